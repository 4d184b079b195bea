"""Boxes, centroids and label images of masks that are typed out."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.tracking.mask_ops import centroid_xy, label_image, tight_box_xyxy

EMPTY = ["....", "....", "...."]
CORNERS = ["#...", "....", "...#"]
INNER = ["....", ".##.", "...."]
ALL = ["####", "####", "####"]
L_SHAPE = ["#...", "#...", "##.."]


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@pytest.mark.parametrize(
    ("rows", "box", "centroid"),
    [
        (EMPTY, None, None),
        (CORNERS, (0, 0, 4, 3), (1.5, 1.0)),
        (INNER, (1, 1, 3, 2), (1.5, 1.0)),
        (ALL, (0, 0, 4, 3), (1.5, 1.0)),
        (L_SHAPE, (0, 0, 2, 3), (0.25, 1.25)),
    ],
)
def test_box_and_centroid(rows: list[str], box: tuple | None, centroid: tuple | None) -> None:
    assert tight_box_xyxy(mask_of(rows)) == box
    assert centroid_xy(mask_of(rows)) == centroid


def test_values_are_plain_numbers() -> None:
    """numpy's own would not fit into messages and JSON."""
    assert {type(v) for v in tight_box_xyxy(mask_of(INNER)) or ()} == {int}
    assert {type(v) for v in centroid_xy(mask_of(INNER)) or ()} == {float}


def test_the_highest_logit_wins_a_pixel_and_nothing_below_zero_does() -> None:
    logits = np.array([[[2.0, 1.0, -1.0]], [[1.0, 3.0, -2.0]]], np.float32)
    assert label_image(logits, [4, 9], 1, 3).tolist() == [[4, 9, 0]]


def test_zero_is_not_above_zero() -> None:
    assert label_image(np.zeros((1, 1, 1), np.float32), [4], 1, 1).tolist() == [[0]]


def test_no_objects_are_an_empty_image() -> None:
    image = label_image(np.zeros((0, 2, 3), np.float32), [], 2, 3)
    assert image.shape == (2, 3)
    assert image.dtype == np.uint8
    assert not image.any()


@pytest.mark.parametrize(("label", "dtype"), [(255, np.uint8), (256, np.uint16), (60000, np.uint16)])
def test_labels_above_255_need_16_bits(label: int, dtype: type) -> None:
    image = label_image(np.ones((1, 1, 2), np.float32), [label], 1, 2)
    assert image.dtype == dtype
    assert image.tolist() == [[label, label]]
