"""What is done to a clip is done to its pictures and its masks alike."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.data.clips.clip import Clip, mirrored, mosaic, reversed_clip

SIZE = 32


def clip_with(*boxes: tuple[int, int, int, int] | None) -> Clip:
    """One frame a box x0, y0, x1, y1 (None: not there) of a white object on black."""
    masks = np.zeros((len(boxes), 1, SIZE, SIZE), bool)
    for mask, box in zip(masks[:, 0], boxes, strict=True):
        if box is not None:
            x0, y0, x1, y1 = box
            mask[y0:y1, x0:x1] = True
    return Clip(np.repeat(masks[:, 0, ..., None], 3, axis=-1).astype(np.uint8) * 255, masks)


def assert_picture_fits(clip: Clip) -> None:
    np.testing.assert_array_equal(clip.images_thwc[..., 0] > 127, clip.masks_tnhw[:, 0])


def test_reversed_clip_begins_at_its_end() -> None:
    clip = clip_with((0, 0, 8, 8), (8, 8, 16, 16), (16, 16, 24, 24))
    backwards = reversed_clip(clip)
    assert_picture_fits(backwards)
    np.testing.assert_array_equal(backwards.masks_tnhw[0], clip.masks_tnhw[2])
    np.testing.assert_array_equal(reversed_clip(backwards).masks_tnhw, clip.masks_tnhw)


def test_clip_that_ends_without_its_object_is_not_reversed() -> None:
    clip = clip_with((0, 0, 8, 8), None)
    assert reversed_clip(clip) is clip


def test_mirrored_clip() -> None:
    turned = mirrored(clip_with((0, 0, 8, 8)))
    assert_picture_fits(turned)
    assert turned.masks_tnhw[0, 0, 0, -8:].all()
    assert turned.masks_tnhw.sum() == 64


@pytest.mark.parametrize(("tile", "corner"), [(0, (0, 0)), (1, (16, 0)), (2, (0, 16)), (3, (16, 16))])
def test_mosaic_has_four_objects_and_means_one(tile: int, corner: tuple[int, int]) -> None:
    tiled = mosaic(clip_with((8, 4, 24, 20)), tile)
    x, y = corner
    expected = np.zeros((SIZE, SIZE), bool)
    expected[y + 2 : y + 10, x + 4 : x + 12] = True
    np.testing.assert_array_equal(tiled.masks_tnhw[0, 0], expected)
    shown = tiled.images_thwc[0, ..., 0] > 127
    assert shown.sum() == 4 * expected.sum()
    assert (shown & expected).sum() == expected.sum()


def test_objects_that_a_mosaic_would_make_too_small_are_left_as_they_are() -> None:
    clip = clip_with((8, 4, 14, 10))
    assert mosaic(clip, 0) is clip
