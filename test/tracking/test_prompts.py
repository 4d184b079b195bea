"""Prompts are checked whole before anything uses them, and the sentence says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_ros.tracking.prompts import clipping_note, fit_to_image, make_prompt, to_model_points
from sam2_ros.tracking.types import PromptError

NAN, INF = float("nan"), float("inf")
MASK = np.eye(4, dtype=bool)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "empty prompt: expected points with labels, a box or a mask"),
        ({"points": [], "labels": []}, "empty prompt"),
        ({"points": [[1, 2]]}, "labels: expected one per point.*got none for 1 points"),
        ({"points": [[1, 2]], "labels": [1, 0]}, r"labels: expected as many as points \(1\), got 2"),
        ({"labels": [1]}, r"labels: expected as many as points \(0\), got 1"),
        ({"points": [[1, 2]], "labels": [2]}, "labels: expected only 1 .* and 0 .*, got .*2"),
        ({"points": [[1, 2]], "labels": [0.5]}, "labels: expected only 1"),
        ({"points": [[1, 2]], "labels": [NAN]}, "labels: expected only 1"),
        ({"points": [1, 2], "labels": [1]}, r"points: expected shape \(P, 2\), x and y in pixels, got \(2,\)"),
        ({"points": [[1, 2, 3]], "labels": [1]}, r"points: expected shape \(P, 2\)"),
        ({"points": [[1], [2, 3]], "labels": [1]}, "points: expected numbers"),
        ({"points": "here", "labels": [1]}, "points: expected numbers, got 'here'"),
        ({"points": [[NAN, 2]], "labels": [1]}, "points: expected finite"),
        ({"points": [[INF, 2]], "labels": [1]}, "points: expected finite"),
        ({"points": np.ones((257, 2)), "labels": np.ones(257)}, "points: expected at most 256 in a prompt, got 257"),
        ({"box": [1, 2, 3]}, "box: expected four finite numbers"),
        ({"box": [1, 2, 3, NAN]}, "box: expected four finite numbers"),
        ({"box": [3, 2, 1, 4]}, "box: expected x0 < x1 and y0 < y1, got"),
        ({"box": [1, 2, 3, 2]}, "box: expected x0 < x1 and y0 < y1, got"),
        ({"box": [1, 2, 1.5, 9]}, "box: expected at least one pixel in width and height"),
        ({"mask": np.zeros((4, 4), bool)}, "mask: expected at least one pixel set"),
        ({"mask": np.ones((4, 4, 3), bool)}, r"mask: expected shape \(H, W\), got \(4, 4, 3\)"),
        ({"mask": [[1], [1, 2]]}, "mask: expected rows of numbers, all of one length"),
        ({"mask": MASK, "box": [0, 0, 2, 2]}, "a mask stands alone"),
        ({"mask": MASK, "points": [[1, 2]], "labels": [1]}, "a mask stands alone"),
    ],
)
def test_bad_prompt_is_rejected(parts: dict, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make_prompt(**parts)


@pytest.mark.parametrize(
    ("parts", "num_tokens"),
    [
        ({"points": [[1, 2]], "labels": [1]}, 1),
        ({"points": [[1, 2], [3, 4]], "labels": [1, 0]}, 2),
        ({"points": np.array([[1, 2]], np.int32), "labels": np.array([True])}, 1),
        ({"box": [1, 2, 3, 4]}, 2),
        ({"box": [[1, 2], [3, 4]]}, 2),
        ({"box": [1, 2, 3, 4], "points": [[1, 2]], "labels": [0]}, 3),
        ({"box": [1, 2, 3, 4], "points": [], "labels": []}, 2),
        ({"mask": MASK}, 0),
        ({"mask": np.uint8(255) * MASK}, 0),
    ],
)
def test_a_box_counts_as_two_points(parts: dict, num_tokens: int) -> None:
    assert make_prompt(**parts).num_tokens == num_tokens


def test_later_changes_of_the_callers_arrays_do_not_arrive() -> None:
    points, box = np.array([[1.0, 2.0]], np.float32), np.array([0, 0, 5, 5], np.float32)
    mask = MASK.copy()
    clicked, drawn = make_prompt(points, [1], box), make_prompt(mask=mask)
    points[:], box[:], mask[:] = 99, 99, True
    assert clicked.points_xy.tolist() == [[1, 2]]
    assert clicked.box_xyxy is not None
    assert clicked.box_xyxy.tolist() == [0, 0, 5, 5]
    assert drawn.mask is not None
    assert drawn.mask.sum() == 4


@pytest.mark.parametrize("xy", [(0, 0), (79, 47), (79.9, 47.9)])
def test_point_inside_the_image_fits(xy: tuple[float, float]) -> None:
    fit_to_image(make_prompt([xy], [1]), height=48, width=80)


@pytest.mark.parametrize("xy", [(80, 0), (0, 48), (-0.5, 5), (5, -1), (47, 79)])
def test_point_outside_the_image_is_named(xy: tuple[float, float]) -> None:
    with pytest.raises(PromptError, match=rf"80x48.*got \[{float(xy[0])}, {float(xy[1])}\]"):
        fit_to_image(make_prompt([(1, 1), xy], [1, 0]), height=48, width=80)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([0, 0, 80, 48], [0, 0, 80, 48]),
        ([-1, 0, 8, 8], [0, 0, 8, 8]),
        ([3, -2.5, 8, 8], [3, 0, 8, 8]),
        ([0, 0, 81, 8], [0, 0, 80, 8]),
        ([-9, -9, 900, 900], [0, 0, 80, 48]),
    ],
)
def test_a_box_that_reaches_outside_is_clipped_and_this_is_said(box: list, clipped: list) -> None:
    given = make_prompt([(5, 5)], [0], box)
    fitted = fit_to_image(given, height=48, width=80)
    assert fitted.box_xyxy is not None and fitted.box_xyxy.tolist() == clipped
    assert fitted.points_xy.tolist() == [[5, 5]]
    assert bool(clipping_note(given, fitted)) == (box != clipped)


@pytest.mark.parametrize("box", [[-9, 0, -1, 8], [-9, 0, 0, 8], [79.5, 0, 90, 8], [0, 48, 8, 60], [0, -8, 8, 0.5]])
def test_a_box_of_which_less_than_a_pixel_is_inside_is_refused(box: list) -> None:
    with pytest.raises(PromptError, match="at least a pixel within the image of 80x48, got"):
        fit_to_image(make_prompt(box=box), height=48, width=80)


def test_mask_must_have_the_images_size() -> None:
    fit_to_image(make_prompt(mask=MASK), height=4, width=4)
    with pytest.raises(PromptError, match="mask: expected the image's size, 4 rows of 5, got 4 rows of 4"):
        fit_to_image(make_prompt(mask=MASK), height=4, width=5)


def test_points_become_model_pixels_with_the_box_first() -> None:
    prompt = make_prompt([[40, 24], [0, 0]], [1, 0], [20, 12, 80, 48])
    points = to_model_points(prompt, height=48, width=80, image_size=64, device=torch.device("cpu"))
    assert points.xy_bn2.tolist() == [[[16, 16], [64, 64], [32, 32], [0, 0]]]
    assert points.xy_bn2.dtype == torch.float32
    assert points.labels_bn.tolist() == [[2, 3, 1, 0]]
    assert points.labels_bn.dtype == torch.int64
