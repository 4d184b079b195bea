"""Which topics the node publishes, and how, is the parameters' to say; over real middleware, the masks are given."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.node.subscriptions import TopicMonitor
from sam2_ros.tracking.overlay import label_color_rgb

SECOND = 1_000_000_000


def an_image(stamp_s: int) -> Image:
    header = Header(frame_id="camera", stamp=ns_to_stamp(stamp_s * SECOND))
    return array_to_image(np.zeros((8, 10, 3), dtype=np.uint8), "rgb8", header)


def set_parameters(rig: Any, **values: Any) -> None:
    results = rig.node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    assert all(result.successful for result in results), results


def test_images_that_are_switched_off_are_not_sent_until_they_are_on_again(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(publish_label_image=False, publish_overlay=False)
    rig.start()
    objects = rig.collect(TrackedObjectArray, "objects")
    labels, overlays = rig.collect(Image, "label_image"), rig.collect(Image, "overlay")
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(an_image(1))
    rig.spin_until(lambda: len(objects) == 1, "the first image is tracked")
    set_parameters(rig, publish_label_image=True, publish_overlay=True)
    images.publish(an_image(2))
    rig.spin_until(lambda: bool(labels and overlays), "both come")
    assert [message.header.stamp.sec for message in (labels[0], overlays[0])] == [2, 2]


def test_detections_can_be_switched_off(make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The publishers of vision_msgs, which has no wheel, are stood in for."""
    rig = make_ros_rig(publish_detections=False)
    rig.start()
    sent: list[int] = []
    vision = SimpleNamespace(publish=lambda view, scene: sent.append(view.header.stamp.sec), destroy=lambda: None)
    monkeypatch.setattr(rig.node._outputs, "_vision", vision)
    objects = rig.collect(TrackedObjectArray, "objects")
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    for stamp_s, switched_on in ((1, False), (2, True)):
        set_parameters(rig, publish_detections=switched_on)
        images.publish(an_image(stamp_s))
        rig.spin_until(lambda count=stamp_s: len(objects) == count, "the image is tracked")
        rig.spin_until(lambda count=stamp_s: rig.node._session.stats().processed == count, "and published")
    assert sent == [2]


def test_the_label_image_for_people_has_the_colours_of_the_objects(ros_rig: Any) -> None:
    labels, colors = ros_rig.collect(Image, "label_image"), ros_rig.collect(Image, "label_image_color")
    ros_rig.tracker.add_prompt("mug", points=[(4, 4)], labels=[1])
    ros_rig.publisher(Image, "image", qos_profile_sensor_data).publish(an_image(1))
    ros_rig.spin_until(lambda: bool(labels and colors), "both come")
    assert colors[0].header == labels[0].header and colors[0].encoding == "rgb8"
    label_hw = np.frombuffer(labels[0].data, np.uint8).reshape(8, 10)
    rgb_hwc = np.frombuffer(colors[0].data, np.uint8).reshape(8, 10, 3)
    assert set(np.unique(label_hw)) == {0, 1}
    np.testing.assert_array_equal(rgb_hwc[label_hw == 1], np.broadcast_to(label_color_rgb(1), (9, 3)))
    assert not rgb_hwc[label_hw == 0].any()


@pytest.mark.parametrize("wanted", ["reliable", "best_effort"])
def test_outputs_are_as_reliable_as_told(make_ros_rig: Callable[..., Any], wanted: str) -> None:
    rig = make_ros_rig(output_reliability=wanted)
    rig.start()
    topics = [
        f"/sam2_node/{name}"
        for name in ("objects", "label_image", "label_image_color", "overlay", "markers", "object_points")
    ]
    rig.spin_until(lambda: all(map(rig.peer.count_publishers, topics)), "the peer knows the publishers")
    offered = {rig.peer.get_publishers_info_by_topic(topic)[0].qos_profile.reliability for topic in topics}
    assert offered == {ReliabilityPolicy[wanted.upper()]}


def test_silence_is_told_after_the_time_that_the_parameter_says(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_ros_rig(image_timeout_s=3.0)
    rig.start()
    status: list[DiagnosticArray] = []
    monkeypatch.setattr(rig.node, "_diagnostics", SimpleNamespace(publish=status.append))
    now_s = 100.0
    monkeypatch.setattr(rig.node, "_watch", TopicMonitor(lambda: now_s))
    now_s = 102.0  # no image for two seconds
    for timeout_s, level in ((3.0, DiagnosticStatus.OK), (1.5, DiagnosticStatus.WARN)):
        set_parameters(rig, image_timeout_s=timeout_s)
        rig.node._beat()
        assert (status[-1].status[0].level, "no images" in status[-1].status[0].message) == (level, timeout_s < 2)
