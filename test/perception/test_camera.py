"""The pinhole camera and its calibration, with numbers small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from sam2_ros.perception.camera import GeometryError, Intrinsics, read_intrinsics

CAMERA = Intrinsics(fx=10.0, fy=20.0, cx=2.0, cy=1.0, width=5, height=3)


def camera_info(
    width: int = 640, height: int = 480, fx: float = 500.0, roi: RegionOfInterest | None = None
) -> CameraInfo:
    k = [fx, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, k=k, roi=roi or RegionOfInterest())


def test_points_lie_where_the_pixels_look() -> None:
    points = CAMERA.points(np.full((3, 5), 2.0, dtype=np.float32))
    assert points.shape == (3, 5, 3) and points.dtype == np.float32
    assert points[1, 2].tolist() == [0, 0, 2]  # the principal point looks straight ahead
    assert points[1, 4].tolist() == pytest.approx([0.4, 0, 2])  # 2 px right of it: x = 2 / 10 * 2 m
    assert points[2, 2].tolist() == pytest.approx([0, 0.1, 2])  # 1 px below it: y = 1 / 20 * 2 m


def test_missing_depth_gives_missing_points() -> None:
    assert np.isnan(CAMERA.points(np.full((3, 5), np.nan, dtype=np.float32))).all()


def test_project_is_the_way_back() -> None:
    depth_m = np.random.default_rng(0).uniform(0.5, 3, (3, 5)).astype(np.float32)
    pixels_xy = CAMERA.project(CAMERA.points(depth_m).reshape(-1, 3))
    rows, columns = np.indices((3, 5))
    np.testing.assert_allclose(pixels_xy, np.stack([columns.ravel(), rows.ravel()], axis=1), atol=1e-5)


def test_what_is_not_in_front_of_the_camera_has_no_pixel() -> None:
    assert np.isnan(CAMERA.project(np.array([[0, 0, -1.0], [1, 1, 0], [0, 0, math.nan]]))).all()


def test_calibration_of_this_image() -> None:
    assert read_intrinsics(camera_info(), 640, 480) == Intrinsics(500, 510, 319.5, 239.5, 640, 480)


def test_calibration_of_another_resolution_is_scaled() -> None:
    half = read_intrinsics(camera_info(), 320, 240)
    # The middle stays in the middle: 319.5 of 0..639 becomes 159.5 of 0..319.
    assert half == Intrinsics(250, 255, 159.5, 119.5, 320, 240)


def test_a_driver_that_does_not_say_its_size() -> None:
    assert read_intrinsics(camera_info(0, 0), 640, 480).fx == 500


def test_a_part_of_the_sensor() -> None:
    roi = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)
    part = read_intrinsics(camera_info(roi=roi), 320, 240)
    assert (part.fx, part.cx, part.cy) == (500, 219.5, 199.5)


def test_a_rectified_image_has_a_calibration_of_its_own() -> None:
    info = camera_info()
    with pytest.raises(GeometryError, match=r"focal lengths in camera_info's p, got fx 0\.0"):
        read_intrinsics(info, 320, 240, rectified=True)
    info.p = [480.0, 0.0, 309.5, -48.0, 0.0, 490.0, 229.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert read_intrinsics(info, 320, 240, rectified=True) == Intrinsics(240, 245, 154.5, 114.5, 320, 240)


def test_almost_the_same_aspect_will_do() -> None:
    assert read_intrinsics(camera_info(1280, 720), 848, 480).fx == pytest.approx(500 * 848 / 1280)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (CameraInfo(width=640, height=480), "not calibrated: expected positive focal lengths.*got fx 0.0, fy 0.0"),
        (camera_info(fx=-5.0), "not calibrated.*got fx -5.0, fy 510.0"),
        (camera_info(fx=math.nan), "not calibrated.*got fx nan"),
        (camera_info(1280, 720), "camera_info is for 1280 x 720 px and the image has 640 x 480: expected the same"),
    ],
)
def test_calibrations_that_are_rejected(message: CameraInfo, reason: str) -> None:
    with pytest.raises(GeometryError, match=reason):
        read_intrinsics(message, 640, 480)
