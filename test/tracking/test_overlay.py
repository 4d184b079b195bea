"""The overlay: a new picture, masks tinted in the object's colour, tags inside the image, hidden objects listed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.tracking.overlay import draw_overlay, label_color_rgb, quality_text, tag_of_tracked
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask


def tracked_mask(label: int, mask: np.ndarray, state: ObjectState = ObjectState.TRACKED, name: str = "") -> TrackedMask:
    ys, xs = np.nonzero(mask)
    seen = len(xs) > 0
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1) if seen else None
    centroid = (float(xs.mean()), float(ys.mean())) if seen else None
    return TrackedMask(name or f"object{label}", label, state, 0.9, 0.8, mask, len(xs), box, centroid)


def frame_result(*objects: TrackedMask) -> FrameResult:
    shape = objects[0].mask.shape if objects else (8, 8)
    return FrameResult(0, objects, np.zeros(shape, np.uint8), 1.0)


def rectangle(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_mask_interior_is_tinted_and_the_rest_is_untouched() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    mask = rectangle((200, 300), 100, 100, 160, 150)
    picture = draw_overlay(image, frame_result(tracked_mask(1, mask)))
    expected = 0.55 * 100 + 0.45 * np.array(label_color_rgb(1))
    np.testing.assert_allclose(picture[125, 130], expected, atol=1.0)
    assert (picture[160:, :] == 100).all()
    assert (image == 100).all(), "the caller's image must not be drawn on"


def test_outline_is_in_the_full_colour_of_the_label() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    picture = draw_overlay(image, frame_result(tracked_mask(2, rectangle((200, 300), 100, 100, 160, 150))))
    assert tuple(picture[149, 130]) == label_color_rgb(2)
    assert tuple(picture[125, 100]) == label_color_rgb(2)


@pytest.mark.parametrize("corner_xy", [(0, 0), (290, 0), (0, 190), (290, 190)])
def test_tag_of_an_object_in_a_corner_is_drawn_whole(corner_xy: tuple[int, int]) -> None:
    shape = (200, 300)
    mask = rectangle(shape, corner_xy[0], corner_xy[1], corner_xy[0] + 10, corner_xy[1] + 10)
    in_the_middle = rectangle(shape, 140, 90, 150, 100)
    image = np.full((*shape, 3), 255, np.uint8)
    # White letters on a dark ground: the number of dark pixels is that of a tag that nothing cuts off.
    dark = [
        int((draw_overlay(image, frame_result(tracked_mask(1, m))).max(axis=2) < 120).sum())
        for m in (mask, in_the_middle)
    ]
    assert dark[1] > 500
    assert abs(dark[0] - dark[1]) <= 0.05 * dark[1]


def test_two_objects_at_one_place_get_tags_that_do_not_cover_each_other() -> None:
    shape = (200, 300)
    image = np.full((*shape, 3), 255, np.uint8)
    mask = rectangle(shape, 100, 90, 120, 110)
    one = draw_overlay(image, frame_result(tracked_mask(1, mask, name="aa")))
    two = draw_overlay(image, frame_result(tracked_mask(1, mask, name="aa"), tracked_mask(2, mask, name="bb")))
    dark_one, dark_two = (int((picture.max(axis=2) < 120).sum()) for picture in (one, two))
    assert dark_two > 1.9 * dark_one


@pytest.mark.parametrize("state", [ObjectState.OCCLUDED, ObjectState.LOST, ObjectState.PENDING])
def test_object_without_a_mask_is_listed_in_the_lower_left_corner(state: ObjectState) -> None:
    image = np.full((200, 300, 3), 200, np.uint8)
    picture = draw_overlay(image, frame_result(tracked_mask(3, np.zeros((200, 300), bool), state)))
    assert tuple(picture[199, 0]) == label_color_rgb(3)
    assert (picture[:150] == 200).all()


def test_status_line_is_in_the_upper_left_corner_only_when_asked_for() -> None:
    image = np.full((200, 300, 3), 200, np.uint8)
    assert (draw_overlay(image, frame_result()) == image).all()
    picture = draw_overlay(image, frame_result(), status="12.3 fps")
    assert (picture[:10, :30] != 200).any()
    assert (picture[100:] == 200).all()


def test_image_smaller_than_a_tag_does_not_fail() -> None:
    picture = draw_overlay(np.zeros((6, 9, 3), np.uint8), frame_result(tracked_mask(1, np.ones((6, 9), bool))), "x")
    assert picture.shape == (6, 9, 3)


def test_a_hundred_hidden_objects_leave_most_of_the_picture_free() -> None:
    image = np.full((480, 640, 3), 200, np.uint8)
    hidden = [tracked_mask(label, np.zeros((480, 640), bool), ObjectState.LOST) for label in range(1, 101)]
    picture = draw_overlay(image, frame_result(*hidden))
    assert (picture[:200] == 200).all()


def test_first_twelve_colours_are_far_apart() -> None:
    colors = np.array([label_color_rgb(label) for label in range(1, 13)], float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 60


def test_neighbouring_generated_colours_differ() -> None:
    colors = np.array([label_color_rgb(label) for label in range(13, 80)], float)
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 60


def test_label_zero_is_rejected() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        label_color_rgb(0)


def test_mask_of_another_size_is_rejected_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(10, 10\)"):
        draw_overlay(np.zeros((10, 10, 3), np.uint8), frame_result(tracked_mask(1, np.ones((8, 8), bool))))


def test_gray_image_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        draw_overlay(np.zeros((10, 10), np.uint8), frame_result())


def test_the_tag_shows_presence_and_the_quality_of_the_mask_and_marks_doubt() -> None:
    mug = tracked_mask(1, rectangle((60, 80), 10, 10, 30, 30), name="mug")
    assert tag_of_tracked(mug) == "mug TRACKED 0.90 q0.80"
    assert tag_of_tracked(mug, unsure_below=0.9) == "mug TRACKED 0.90 q0.80?"
    hidden = tracked_mask(1, np.zeros((60, 80), bool), ObjectState.LOST, name="mug")
    assert tag_of_tracked(hidden) == "mug LOST 0.90", "there is no mask to be good or bad"
    assert [quality_text(quality) for quality in (0.5, 0.499)] == ["0.50", "0.50?"]
    assert quality_text(0.0, unsure_below=0.0) == "0.00"
