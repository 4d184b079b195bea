"""Images, depth and calibration of every kind: read, or rejected with a reason, and the tracking goes on."""

from __future__ import annotations

from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from session_rig import SessionRig, click
from snapshots import session_snapshot
from std_msgs.msg import Header
from strange_messages import camera_infos, check_serialises, compressed_images, depth_images, images, stamps
from tiny_model import noise_frames, tiny_model

from sam2_ros.image_io.compressed import compressed_to_rgb
from sam2_ros.image_io.encodings import ImageError, image_to_rgb
from sam2_ros.model.sam2 import SAM2
from sam2_ros.node.conversions import (
    array_to_image,
    cloud_to_message,
    fill_pose,
    label_image_to_message,
    ns_to_stamp,
    stamp_to_ns,
    view_to_message,
)
from sam2_ros.perception.camera import GeometryError, read_intrinsics
from sam2_ros.perception.depth import DepthSource, cloud_of, on_image_grid, read_depth
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(4)


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model()


def check_pixels(pixels: np.ndarray) -> None:
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8 and pixels.size


@given(images())
def test_an_image_is_read_or_rejected(message: Image) -> None:
    try:
        pixels = image_to_rgb(message)
    except ImageError as error:
        assert str(error)
        return
    check_pixels(pixels)
    assert pixels.shape[:2] == (message.height, message.width)


@given(compressed_images())
def test_a_compressed_image_is_read_or_rejected(message: CompressedImage) -> None:
    try:
        check_pixels(compressed_to_rgb(message))
    except ImageError as error:
        assert str(error)


class ImageRig(SessionRig):
    """Reads messages as the node does."""

    def _decode(self, message: Any) -> np.ndarray:
        return compressed_to_rgb(message) if isinstance(message, CompressedImage) else image_to_rgb(message)

    def show(self, message: Any) -> bool:  # type: ignore[override]
        """Whether it was processed; what comes of it can be sent."""
        before = self.session.stats()
        self.session.offer(message, stamp_to_ns(message.header.stamp))
        self.settle()
        after = self.session.stats()
        assert after.processed + after.failed == before.processed + before.failed + 1
        if after.failed == before.failed:
            view = self.session.view
            check_serialises(view_to_message(view, with_masks=True))
            check_serialises(label_image_to_message(view.result.label_image, view.header))
            return True
        assert "image rejected: " in after.last_error, after.last_error
        return False


def a_good_image(index: int) -> Image:
    return array_to_image(FRAMES[index], "rgb8", Header(stamp=ns_to_stamp(10**10 + index * 10**8)))


def with_stamp(message: Any, stamp: Time) -> Any:
    message.header.stamp = stamp
    return message


strange_images = st.builds(with_stamp, st.one_of(images(), images(size=(48, 80)), compressed_images()), stamps())


@given(message=strange_images)
def test_a_session_goes_on_after_any_image(model: SAM2, message: Image | CompressedImage) -> None:
    with closing(ImageRig(Tracker(model, buffer_frames=2))) as rig:
        assert rig.prompt(click("mug"))[0].accepted
        assert rig.show(a_good_image(0))
        before, known = session_snapshot(rig.session), rig.session.view.objects
        is_from_before = 0 < 10**10 - stamp_to_ns(message.header.stamp) - 5 * 10**8 < 10**10
        taken = rig.show(message)
        if not taken and not is_from_before and stamp_to_ns(message.header.stamp) >= 0:
            assert session_snapshot(rig.session) == before
            assert rig.session.view.objects == known
        assert rig.prompt(click("good", x=20, y=0 if taken else 3))[0].accepted or taken
        assert rig.show(a_good_image(1))
        assert rig.prompt(click("better", x=20))[0].accepted
        assert rig.show(a_good_image(2))
        assert "better" in [item.tracked.object_id for item in rig.session.view.objects]


@given(message=depth_images, scale_m=st.sampled_from([0.001, 1e-9, 1.0]))
def test_depth_is_read_or_rejected(message: Image, scale_m: float) -> None:
    try:
        depth_m = on_image_grid(read_depth(message, scale_m), HEIGHT, WIDTH)
    except (ImageError, GeometryError) as error:
        assert str(error)
        return
    assert depth_m.shape == (HEIGHT, WIDTH) and depth_m.dtype == np.float32
    measured = depth_m[~np.isnan(depth_m)]
    assert np.isfinite(measured).all() and (measured > 0).all()


@given(camera_infos)
def test_a_calibration_is_read_or_rejected(message: CameraInfo) -> None:
    with suppress(GeometryError):
        found = read_intrinsics(message, WIDTH, HEIGHT)
        assert np.isfinite([found.fx, found.fy, found.cx, found.cy]).all() and found.fx > 0 and found.fy > 0


@given(depth=depth_images, info=camera_infos)
def test_any_depth_and_calibration_give_places_that_can_be_sent_or_a_reason(depth: Image, info: CameraInfo) -> None:
    parameters = parse({"use_depth": True})
    source = DepthSource(lambda: parameters)
    source.put_depth(0, depth)
    source.put_camera_info(info)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[5:40, 10:60] = True
    tracked = TrackedMask("mug", 1, ObjectState.TRACKED, 0.9, 0.9, mask, int(mask.sum()), (10, 5, 60, 40), (35.0, 22.0))
    result = FrameResult(0, (tracked,), mask.astype(np.uint8), 1.0)
    header = SimpleNamespace(frame_id=depth.header.frame_id)
    view = TrackingView(header, 0, FRAMES[0], result, (ObjectView(tracked, "", 1, 1),), 0)
    scene = source.measure(view)
    assert (scene.depth is None) == (source.trouble != "")
    message = view_to_message(view, with_masks=True).objects[0]
    fill_pose(message, scene.geometry.get("mug"))
    check_serialises(message)
    place = [message.pose.position.x, message.pose.position.y, message.pose.position.z, message.size.x]
    assert np.isfinite(place).all()
    if scene.depth is not None:
        check_serialises(cloud_to_message(cloud_of(view, scene.depth, parameters), Header()))
