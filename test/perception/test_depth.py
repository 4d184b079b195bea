"""Depth images of both kinds to metres, and onto the grid of the colour image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from image_messages import image_message
from sensor_msgs.msg import Image

from sam2_ros.image_io.encodings import ImageError
from sam2_ros.perception.camera import GeometryError
from sam2_ros.perception.depth import on_image_grid, read_depth

NAN = math.nan


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_millimetres(encoding: str, padding: int, big_endian: bool) -> None:
    sent = np.array([[0, 1], [1500, 65535]], dtype=np.uint16)
    depth_m = read_depth(image_message(sent, encoding, padding=padding, big_endian=big_endian))
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, [[NAN, 0.001], [1.5, 65.535]], rtol=1e-6)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_metres(padding: int, big_endian: bool) -> None:
    sent = np.array([[0, NAN, math.inf], [-math.inf, -1.0, 1.25]], dtype=np.float32)
    depth_m = read_depth(image_message(sent, "32FC1", padding=padding, big_endian=big_endian))
    np.testing.assert_array_equal(depth_m, np.array([[NAN, NAN, NAN], [NAN, NAN, 1.25]], dtype=np.float32))


def test_another_unit_is_for_whole_numbers_only() -> None:
    assert read_depth(image_message(np.array([[15000]], dtype=np.uint16), "16UC1"), 1e-4)[0, 0] == pytest.approx(1.5)
    assert read_depth(image_message(np.array([[1.5]], dtype=np.float32), "32FC1"), 1e-4)[0, 0] == pytest.approx(1.5)


def test_the_message_is_left_as_it_was() -> None:
    message = image_message(np.array([[0.0, -1.0]], dtype=np.float32), "32FC1")
    before = bytes(message.data)
    read_depth(message)
    assert bytes(message.data) == before


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (image_message(np.zeros((2, 2, 3), dtype=np.uint8), "rgb8"), "'rgb8' is not supported; expected one of 16UC1"),
        (image_message(np.zeros((2, 2), dtype=np.uint16), "32FC1"), "step 4 is too small: 2 pixels of 32FC1 need 8"),
        (image_message(np.zeros((2, 2), dtype=np.uint16), "16UC1", cut=1), "too short: 7 bytes, expected 8"),
        (Image(encoding="16UC1"), "size zero"),
    ],
)
def test_depth_that_cannot_be_read(message: Image, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_depth(message)


def test_the_same_size_is_handed_through() -> None:
    depth_m = np.ones((4, 6), dtype=np.float32)
    assert on_image_grid(depth_m, 4, 6) is depth_m


def test_coarser_depth_is_repeated_not_mixed() -> None:
    depth_m = np.array([[1, 2, 3], [4, NAN, 6]], dtype=np.float32)
    expected = np.repeat(np.repeat(depth_m, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(on_image_grid(depth_m, 4, 6), expected)


def test_finer_depth_is_picked_where_the_centres_fall() -> None:
    depth_m = np.arange(6 * 9, dtype=np.float32).reshape(6, 9)
    # 3 depth pixels to an image pixel: the middle one of each.
    np.testing.assert_array_equal(on_image_grid(depth_m, 2, 3), depth_m[[1, 4]][:, [1, 4, 7]])


def test_depth_of_another_shape_is_rejected() -> None:
    with pytest.raises(GeometryError, match="the depth image is for 9 x 6 px and the image has 6 x 6"):
        on_image_grid(np.ones((6, 9), dtype=np.float32), 6, 6)
