"""Stamps and publishers that disagree, as the node tells of them in its messages, log and diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.perception.depth import LEAST_OFFSETS
from sam2_ros.session.stamps import LASTING_S


def an_image(stamp: Time) -> Image:
    return array_to_image(np.zeros((8, 10, 3), np.uint8), "rgb8", Header(frame_id="camera", stamp=stamp))


def statuses_of(rig: Any) -> list[DiagnosticStatus]:
    found: list[DiagnosticStatus] = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: found.extend(message.status), 10)
    return found


@pytest.mark.parametrize(
    ("use_sim_time", "offset_s", "expected"),
    [
        (False, -1e6, "1000000.0 s behind this node's clock"),
        (False, 30.0, "s ahead of this node's clock"),
        (True, 0.0, "no /clock has come"),
    ],
)
def test_an_age_by_another_clock_is_not_told(
    make_ros_rig: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    use_sim_time: bool,
    offset_s: float,
    expected: str,
) -> None:
    monkeypatch.setattr("sam2_ros.session.stamps.LASTING_S", LASTING_S / 20)
    rig = make_ros_rig(use_sim_time=use_sim_time)
    rig.start()
    objects, statuses = rig.collect(TrackedObjectArray, "objects"), statuses_of(rig)
    images = rig.publisher(Image, "image", qos_profile_sensor_data)

    def told() -> bool:
        images.publish(an_image(ns_to_stamp(time.time_ns() + round(offset_s * 1e9))))
        return bool(objects) and any("this node's clock" in s.message or "/clock" in s.message for s in statuses)

    rig.spin_until(told, "diagnostics say so")
    status = statuses[-1]
    values = {pair.key: pair.value for pair in status.values}
    assert status.level == DiagnosticStatus.WARN and values["age p95 [ms]"] == ""
    assert expected in f"{status.message} {capfd.readouterr().err}" and {each.age_ms for each in objects} == {0.0}


def test_an_age_by_the_same_clock_is_told(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    rig.start()
    objects = rig.collect(TrackedObjectArray, "objects")
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(an_image(ns_to_stamp(time.time_ns())))
    rig.spin_until(lambda: bool(objects), "objects come")
    assert objects[0].age_ms > 0 and rig.node._session.clock_trouble == ""


@pytest.mark.parametrize(("kind", "topic"), [(Image, "image"), (CameraInfo, "camera_info")])
def test_two_publishers_on_one_topic_are_named(
    make_ros_rig: Callable[..., Any], capfd: pytest.CaptureFixture[str], kind: Any, topic: str
) -> None:
    rig = make_ros_rig()
    rig.start()
    statuses = statuses_of(rig)
    publishers = [rig.publisher(kind, topic, qos_profile_sensor_data) for _ in range(2)]
    rig.spin_until(lambda: any("2 publishers" in status.message for status in statuses), "diagnostics say so")
    said = f"2 publishers on /{topic} (/peer, /peer): their images are taken for those of one camera"
    assert statuses[-1].level == DiagnosticStatus.WARN and said in statuses[-1].message
    assert capfd.readouterr().err.count(said) == 1
    rig.peer.destroy_publisher(publishers[0])
    statuses.clear()
    rig.spin_until(lambda: any("publishers" not in status.message for status in statuses), "it is over")


def test_every_published_image_is_counted(make_ros_rig: Callable[..., Any]) -> None:
    """Two hundred images in bursts that the executor is too late for: its queue holds one."""
    rig = make_ros_rig()
    rig.start()
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(an_image(Time(sec=1)))
    rig.spin_until(lambda: rig.node._session.stats().received == 1, "the first one arrives")
    for burst in range(20):
        for index in range(10):
            images.publish(an_image(Time(sec=2 + burst, nanosec=index * 33_000_000)))
        rig.executor.spin_once(timeout_sec=0.05)
    images.publish(an_image(Time(sec=30)))

    def all_counted() -> bool:
        stats = rig.node._session.stats()
        done = stats.processed + stats.dropped + stats.skipped + stats.failed
        return bool(done == stats.received and stats.received + rig.node._watch.missed == 202)

    rig.spin_until(all_counted, "each is processed, dropped or lost before the node")
    assert rig.node._watch.missed > 100
    statuses = statuses_of(rig)

    def are_told() -> bool:
        values = {pair.key: pair.value for status in statuses for pair in status.values}
        return values.get("images lost before the node") == str(rig.node._watch.missed)

    rig.spin_until(are_told, "/diagnostics has them")


def test_the_node_compares_the_stamps_of_depth_with_those_of_the_images_that_arrive(
    make_ros_rig: Callable[..., Any],
) -> None:
    rig = make_ros_rig(use_depth=True)
    rig.start()
    images, depths = (rig.publisher(Image, topic, qos_profile_sensor_data) for topic in ("image", "depth"))
    received = rig.node._session.stats
    for index in range(LEAST_OFFSETS):
        images.publish(an_image(Time(sec=100 + index)))
        wanted, newest_ns = index + 1, (130 + index) * 10**9
        rig.spin_until(lambda wanted=wanted: received().received == wanted, "the image arrives")
        depths.publish(an_image(Time(sec=130 + index)))
        rig.spin_until(lambda newest_ns=newest_ns: rig.node._depth._newest_ns == newest_ns, "its depth arrives")
    assert rig.node._depth._offset.seconds == pytest.approx(30.0, abs=10.0)
