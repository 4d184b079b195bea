"""Images, depth images and calibrations paired by message_filters: the package itself where ROS has it, a stand-in
with its habits elsewhere; without it, and broken.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import stand_in_message_filters
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sam2_ros.node.conversions import array_to_image, ns_to_stamp, stamp_to_ns
from sam2_ros.node.optional.pairing import QUEUED, ImagePairing
from sam2_ros.perception.depth import DepthSource
from sam2_ros.session.parameters import parse

MS = 1_000_000


try:
    import message_filters as the_package
except ImportError:
    the_package = None
NO_PACKAGE = "message_filters has no wheel: sudo apt install ros-$ROS_DISTRO-message-filters"
INSTALLED = [
    pytest.param(stand_in_message_filters, id="stand-in"),
    pytest.param(the_package, id="package", marks=pytest.mark.skipif(the_package is None, reason=NO_PACKAGE)),
]


@pytest.fixture(params=INSTALLED)
def message_filters(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.setitem(sys.modules, "message_filters", request.param)
    return request.param


@pytest.fixture
def broken_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """``broken_module(name, body)``: a package that is found and runs this while it is imported."""

    def install(name: str, body: str) -> None:
        (tmp_path / f"{name}.py").write_text(body, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(sys.modules, name, None)  # so that it is gone again afterwards
        monkeypatch.delitem(sys.modules, name)

    return install


def stamped(kind: type[Any], time_ms: int) -> Any:
    return kind(header=Header(stamp=ns_to_stamp(time_ms * MS)))


class Paired:
    """A pairing and what it has stored: stamps of image, depth and calibration, in ms."""

    def __init__(self, slop_s: float = 0.05) -> None:
        self.stored: list[tuple[int, int, int]] = []
        self.slop_s = slop_s
        self.fails = False
        self.pairing = ImagePairing(self._store, lambda: parse({"depth_slop_s": self.slop_s}))

    def _store(self, image_ns: int, depth_ns: int, depth: Image, camera_info: CameraInfo) -> None:
        if self.fails:
            raise RuntimeError("no room")
        assert stamp_to_ns(depth.header.stamp) == depth_ns
        info_ns = stamp_to_ns(camera_info.header.stamp)
        self.stored.append((image_ns // MS, depth_ns // MS, info_ns // MS))

    def show(self, image_ms: int, depth_ms: int | None = None, info_ms: int | None = None) -> None:
        self.pairing.add_depth(stamped(Image, image_ms if depth_ms is None else depth_ms))
        self.pairing.add_camera_info(stamped(CameraInfo, image_ms if info_ms is None else info_ms))
        self.pairing.add_image(stamped(Image, image_ms))


def test_what_belongs_together_is_stored_by_the_images_stamp(message_filters: ModuleType) -> None:
    paired = Paired()
    paired.show(1000, depth_ms=1010, info_ms=1000)
    paired.show(1100, depth_ms=1160, info_ms=1100)  # beyond the slop
    paired.show(1200)
    assert paired.stored == [(1000, 1010, 1000), (1200, 1200, 1200)]


def test_after_a_lost_depth_image_each_image_has_its_own_again(message_filters: ModuleType) -> None:
    """At 30 Hz with the default slop, message_filters gives all later images the depth image of the next one."""
    parameters = parse({"use_depth": True})
    assert parameters.depth_slop_s > 0.033
    source = DepthSource(lambda: parameters)
    paired_with: dict[int, int] = {}

    def store(image_ns: int, depth_ns: int, depth: Image, camera_info: CameraInfo) -> None:
        paired_with[image_ns // MS] = depth_ns // MS
        source.put_pair(image_ns, depth_ns, depth, camera_info)

    pairing = ImagePairing(store, lambda: parameters)
    times_ms = range(1000, 1330, 33)
    for time_ms in times_ms:
        depth, info, image = stamped(Image, time_ms), stamped(CameraInfo, time_ms), stamped(Image, time_ms)
        if time_ms != times_ms[2]:
            source.put_depth(time_ms * MS, depth)
            pairing.add_depth(depth)
        pairing.add_camera_info(info)
        pairing.add_image(image)
    assert paired_with[times_ms[5]] == times_ms[6], "the package does as it did: else DepthSource need not look again"
    found = [source._partners(time_ms * MS, 50 * MS)[0] for time_ms in times_ms[3:]]
    assert [stamp_to_ns(depth.header.stamp) // MS for depth in found] == list(times_ms[3:])


def test_a_bag_that_starts_again_is_paired_again(message_filters: ModuleType) -> None:
    paired = Paired()
    for time_ms in range(100_000, 100_000 + 100 * (QUEUED + 5), 100):
        paired.pairing.add_depth(stamped(Image, time_ms))  # full of what has no partner
    for time_ms in range(1000, 1500, 100):
        paired.show(time_ms)
    assert [image_ms for image_ms, _, _ in paired.stored] == [1000, 1100, 1200, 1300, 1400]


def test_an_error_in_the_callback_does_not_leave_the_lock_taken(
    message_filters: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    paired = Paired()
    paired.fails = True
    paired.show(1000)
    assert "could not be stored" in caplog.text
    paired.fails = False
    paired.show(1100)
    assert paired.stored == [(1100, 1100, 1100)] and paired.pairing.is_usable


def test_the_slop_may_change_and_pixels_are_not_kept(message_filters: ModuleType) -> None:
    paired = Paired(slop_s=0.0)
    paired.show(1000)
    assert paired.stored == []
    paired.slop_s = 0.5
    paired.show(1100, depth_ms=1400)
    assert paired.stored == [(1100, 1400, 1100)]
    kept: list[Any] = []
    paired.pairing._filters[0].registerCallback(kept.append)
    paired.pairing.add_image(array_to_image(np.zeros((4, 4, 3), np.uint8), "rgb8", stamped(Image, 2000).header))
    assert vars(kept[0]).keys() == {"header"}


def test_images_without_a_stamp_are_nobodys_partner(message_filters: ModuleType) -> None:
    paired = Paired()
    paired.show(0)
    assert paired.stored == []


def test_without_the_package_nothing_happens_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "message_filters", None)
    paired = Paired()
    paired.show(1000)
    assert not paired.pairing.is_usable and paired.stored == [] and not caplog.records


@pytest.mark.parametrize(
    "body",
    ["raise AttributeError('_ARRAY_API not found')", "class SimpleFilter: pass", "SimpleFilter = lambda: 1 / 0"],
    ids=["import", "half of it", "at use"],
)
def test_a_broken_package_is_said_once_and_left_alone(
    broken_module: Callable[[str, str], None], caplog: pytest.LogCaptureFixture, body: str
) -> None:
    broken_module("message_filters", body)
    caplog.set_level(logging.WARNING)
    paired = Paired()
    for time_ms in (1000, 1100):
        paired.show(time_ms)
    assert not paired.pairing.is_usable and paired.stored == []
    (record,) = caplog.records
    assert record.getMessage().startswith("message_filters is not usable here (")


@pytest.mark.parametrize("package", [*INSTALLED, pytest.param(None, id="absent")])
def test_the_node_measures_with_what_was_paired_or_with_the_nearest(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, package: ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "message_filters", package)
    rig = make_ros_rig(use_depth=True)
    rig.start()
    sensor = qos_profile_sensor_data
    image, depth, info = (
        rig.publisher(kind, topic, sensor)
        for kind, topic in ((Image, "image"), (Image, "depth"), (CameraInfo, "camera_info"))
    )
    header = stamped(Image, 1000).header
    info.publish(CameraInfo(header=header, width=10, height=8, k=[40.0, 0.0, 4.5, 0.0, 40.0, 3.5, 0.0, 0.0, 1.0]))
    depth.publish(array_to_image(np.full((8, 10), 2000, np.uint16), "16UC1", header))
    source = rig.node._depth
    rig.spin_until(lambda: source._camera_info is not None and len(source._depth) == 1, "depth and calibration come")
    image.publish(array_to_image(np.zeros((8, 10, 3), np.uint8), "rgb8", header))
    rig.spin_until(lambda: rig.node._session.stats().processed == 1, "the image is processed")
    assert source.trouble == ""
    assert len(source._pairs) == int(package is not None)
