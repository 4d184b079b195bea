"""Places and sizes of objects whose true ones are known: flat and tilted plates before a wall."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.perception.camera import Intrinsics
from sam2_ros.perception.object_geometry import (
    MAX_POINTS,
    MIN_POINTS,
    measure_object,
    near_the_median,
    rotation_to_quaternion,
    surface_points,
    without_border,
)

CAMERA = Intrinsics(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)
WALL_M = 2.0


def plate(x0: int, y0: int, x1: int, y1: int, depth_m: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mask and depth of a plate that faces the camera, before a wall."""
    mask = np.zeros((480, 640), dtype=np.bool_)
    mask[y0:y1, x0:x1] = True
    depth = np.where(mask, np.float32(depth_m), np.float32(WALL_M))
    return mask, depth


def test_a_plate_that_faces_the_camera() -> None:
    # 160 x 80 px around (420, 240) at 1 m: 0.32 m x 0.16 m, 0.2 m to the right of the camera's axis.
    mask, depth = plate(340, 200, 500, 280)
    measured = measure_object(mask, depth, CAMERA)
    assert measured is not None
    np.testing.assert_allclose(measured.centroid, [0.2, 0, 1], atol=0.002)
    np.testing.assert_allclose(measured.box_center, [0.2, 0, 1], atol=0.002)
    # Less 2 px of border on either side, and 1 % of what remains.
    np.testing.assert_allclose(measured.size, [0.312 * 0.98, 0.152 * 0.98, 0], atol=0.003)
    np.testing.assert_allclose(measured.axes, np.eye(3), atol=1e-6)
    assert measured.quaternion_xyzw == pytest.approx((0, 0, 0, 1), abs=1e-6)
    assert MIN_POINTS < measured.points_used <= MAX_POINTS


def test_a_tilted_plate_has_its_own_axes() -> None:
    # Turned by 60 degrees about the vertical: the right side is farther away.
    mask = np.zeros((480, 640), dtype=np.bool_)
    mask[100:380, 300:420] = True
    rays_x = (np.arange(640) - CAMERA.cx) / CAMERA.fx
    slope = np.tan(np.radians(60))
    depth = np.broadcast_to((1.0 / (1 - slope * rays_x)).astype(np.float32), mask.shape)  # z = 1 + slope x
    measured = measure_object(mask, np.where(mask, depth, np.float32(WALL_M)), CAMERA)
    assert measured is not None
    along = np.array([np.cos(np.radians(60)), 0, np.sin(np.radians(60))])
    normal = np.array([-along[2], 0, along[0]])
    cosines = np.abs(measured.axes.T @ np.stack([along, [0, 1, 0], normal], axis=1))
    assert cosines[2] == pytest.approx([0, 0, 1], abs=1e-3)  # the thinnest axis is the plate's normal
    assert measured.size[2] < 0.002
    assert np.linalg.det(measured.axes) == pytest.approx(1)
    assert measured.axes[2, 2] > 0  # which points away from the camera


@pytest.mark.parametrize("spill_px", [1, 2])
def test_a_mask_that_spills_over_the_edge(spill_px: int) -> None:
    mask, depth = plate(300, 200, 340, 280)
    spilled = np.zeros_like(mask)
    spilled[200 - spill_px : 280 + spill_px, 300 - spill_px : 340 + spill_px] = True
    measured = measure_object(spilled, depth, CAMERA)
    assert measured is not None and measured.centroid[2] == pytest.approx(1.0, abs=1e-5)


def test_invented_points_at_the_edge_and_a_third_of_wall_do_not_move_it() -> None:
    mask, depth = plate(280, 200, 360, 280)
    depth[200:280, 280:281] = depth[200:280, 359:360] = 1.5  # half-way to the wall
    depth[200:280, 333:360] = WALL_M  # seen through a handle, say
    measured = measure_object(mask, depth, CAMERA)
    assert measured is not None
    assert measured.centroid[2] == pytest.approx(1.0, abs=1e-5)
    assert measured.size[0] < 0.17


def test_noise_does_not_hide_it() -> None:
    mask, depth = plate(280, 200, 360, 280)
    noisy = depth + np.random.default_rng(0).normal(0, 0.01, depth.shape).astype(np.float32)
    noisy[np.random.default_rng(1).random(depth.shape) < 0.6] = np.nan  # a shiny thing
    measured = measure_object(mask, noisy, CAMERA)
    assert measured is not None
    np.testing.assert_allclose(measured.centroid, [0, 0, 1], atol=0.003)


def test_a_thin_object_keeps_its_border() -> None:
    mask, depth = plate(300, 240, 380, 243)
    measured = measure_object(mask, depth, CAMERA)
    assert measured is not None and measured.points_used == 80 * 3


@pytest.mark.parametrize("depth_value", [np.nan, 1.0])
def test_too_little_to_go_by(depth_value: float) -> None:
    mask, depth = plate(300, 240, 304, 244)  # 16 px
    depth[:] = depth_value
    assert measure_object(mask, depth, CAMERA) is None


def test_an_empty_mask() -> None:
    assert measure_object(np.zeros((480, 640), dtype=np.bool_), np.ones((480, 640), dtype=np.float32), CAMERA) is None


def test_a_mask_as_large_as_the_image_is_thinned_out_evenly() -> None:
    points = surface_points(np.ones((480, 640), dtype=np.bool_), np.ones((480, 640), dtype=np.float32), CAMERA)
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS
    np.testing.assert_allclose(points.mean(axis=0), [0, 0, 1], atol=0.005)


def test_without_border() -> None:
    mask = np.pad(np.ones((5, 6), dtype=np.bool_), ((1, 1), (1, 0)))  # touches the array's right side
    expected = np.zeros_like(mask)
    expected[2:5, 2:6] = True
    np.testing.assert_array_equal(without_border(mask, 1), expected)


def test_near_the_median() -> None:
    z = np.array([1.0, 1.001, 0.999, 1.002, 1.5, 0.2], dtype=np.float32)
    assert near_the_median(z).tolist() == [True, True, True, True, False, False]
    assert near_the_median(np.linspace(1, 2, 101, dtype=np.float32)).all()  # a slope has no outliers
    assert near_the_median(np.zeros(0, dtype=np.float32)).shape == (0,)


@pytest.mark.parametrize(
    ("rotation", "quaternion"),
    [
        (np.eye(3), (0, 0, 0, 1)),
        ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (0, 0, 0.5**0.5, 0.5**0.5)),  # 90 degrees about z
        ([[1, 0, 0], [0, 0, -1], [0, 1, 0]], (0.5**0.5, 0, 0, 0.5**0.5)),  # 90 degrees about x
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], (0.5, 0.5, 0.5, 0.5)),  # x to y to z to x
    ],
)
def test_rotation_to_quaternion(rotation: list[list[float]], quaternion: tuple[float, ...]) -> None:
    assert rotation_to_quaternion(np.array(rotation, dtype=float)) == pytest.approx(quaternion, abs=1e-9)


def test_a_half_turn_has_a_quaternion_too() -> None:
    quaternion = np.array(rotation_to_quaternion(np.diag([1.0, -1.0, -1.0])))
    assert np.abs(quaternion) == pytest.approx([1, 0, 0, 0])
