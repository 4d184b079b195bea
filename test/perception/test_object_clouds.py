"""Clouds of objects, point by point, and the keep-out objects that must not be in them."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.perception.camera import Intrinsics
from sam2_ros.perception.object_geometry import POINT_DTYPE, keep_out_mask, object_cloud, pack_rgb

CAMERA = Intrinsics(fx=10.0, fy=10.0, cx=5.5, cy=3.5, width=12, height=8)
# Two objects of 5 x 6 px side by side; without their borders of 1 px: 3 x 4 px each.
LABELS = np.zeros((8, 12), dtype=np.uint8)
LABELS[1:7, 1:6], LABELS[1:7, 6:11] = 3, 7
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
DEPTH = np.full((8, 12), 2.0, dtype=np.float32)


def pixels_of(cloud: np.ndarray) -> set[tuple[int, int]]:
    """(x, y) of the pixels that the points come from."""
    points = np.stack([cloud["x"], cloud["y"], cloud["z"]], axis=1)
    return {(int(x), int(y)) for x, y in np.rint(CAMERA.project(points))}


def test_every_inner_pixel_of_every_object() -> None:
    cloud = object_cloud(LABELS, IMAGE, DEPTH, CAMERA)
    assert cloud.dtype == POINT_DTYPE and len(cloud) == 24
    assert pixels_of(cloud[cloud["label"] == 3]) == {(x, y) for x in (2, 3, 4) for y in (2, 3, 4, 5)}
    assert pixels_of(cloud[cloud["label"] == 7]) == {(x, y) for x in (7, 8, 9) for y in (2, 3, 4, 5)}
    first = cloud[0]  # pixel (2, 2)
    assert (first["x"], first["y"], first["z"]) == pytest.approx((-0.7, -0.3, 2.0))  # (2 - 5.5) / 10 * 2 m
    red, green, blue = (int(value) for value in IMAGE[2, 2])
    assert np.array(first["rgb"]).view("<u4") == red * 65536 + green * 256 + blue


def test_16_bit_labels() -> None:
    cloud = object_cloud(LABELS.astype(np.uint16) * 100, IMAGE, DEPTH, CAMERA)
    assert set(cloud["label"]) == {300, 700}


def test_pixels_without_depth_have_no_point() -> None:
    depth = DEPTH.copy()
    depth[3, 3] = np.nan
    assert (3, 3) not in pixels_of(object_cloud(LABELS, IMAGE, depth, CAMERA))


def test_ignored_objects_and_keep_out_pixels_have_no_point() -> None:
    keep_out = np.zeros((8, 12), dtype=np.bool_)
    keep_out[:4] = True
    cloud = object_cloud(LABELS, IMAGE, DEPTH, CAMERA, keep_out, without_labels={7})
    assert set(cloud["label"]) == {3}
    assert pixels_of(cloud) == {(x, y) for x in (2, 3, 4) for y in (4, 5)}


def test_nothing_to_show_is_an_empty_cloud() -> None:
    cloud = object_cloud(np.zeros_like(LABELS), IMAGE, DEPTH, CAMERA)
    assert cloud.shape == (0,) and cloud.dtype == POINT_DTYPE


def test_pack_rgb() -> None:
    packed = pack_rgb(np.array([[0x12, 0x34, 0x56], [255, 255, 255]], dtype=np.uint8))
    assert packed.tobytes() == bytes.fromhex("56341200 ffffff00")


def test_keep_out_mask_is_the_union_with_a_margin() -> None:
    first, second = (np.zeros((7, 9), dtype=np.bool_) for _ in range(2))
    first[3, 2] = second[3, 7] = True
    union = keep_out_mask([first, second], 0)
    assert union is not None and np.argwhere(union).tolist() == [[3, 2], [3, 7]]
    wide = keep_out_mask([first, second], 1)
    assert wide is not None and wide.sum() == 10  # two crosses
    assert wide[2, 2] and wide[3, 1] and not wide[2, 1]
    assert not first[2, 2]  # the masks themselves stay as they are


def test_without_keep_out_objects_there_is_no_mask() -> None:
    assert keep_out_mask([], 3) is None
