"""Clicks and boxes from masks, on masks small enough to see the answer."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.evaluation.prompt_sampling import Click, center_click, correction_click, tight_box


def typed(rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows.split()])


@pytest.mark.parametrize(
    ("mask", "x", "y"),
    [
        (typed(".....  .###.  .###.  .###.  ....."), 2, 2),
        # The border is an edge: the middle of the block, not a point on the border.
        (typed("###..  ###..  ###..  ....."), 1, 1),
        # An L has its mean outside; the click lies in its thick part.
        (typed("#.....  #.....  #..###  ######  ...###"), 4, 3),
        (typed("...  ..#"), 2, 1),
    ],
)
def test_center_click_lies_deepest_inside(mask: np.ndarray, x: int, y: int) -> None:
    assert center_click(mask) == Click(x, y, 1)
    assert mask[y, x]


BLOCK = typed("........  .###....  .###....  .###....  ........")
SURPLUS = typed(".....###  .#...###  .#...###  .#......  ........")


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (np.zeros_like(BLOCK), BLOCK, Click(2, 2, 1)),
        (BLOCK, np.zeros_like(BLOCK), Click(2, 2, 0)),
        (BLOCK, BLOCK, None),
        # One pixel is missing, a block of three by three is too much: the larger error is corrected.
        (SURPLUS, typed("........  .#......  .#......  .#......  .#......"), Click(6, 1, 0)),
        # Equally deep: what is missing comes first.
        (typed("#......."), typed(".......#"), Click(7, 0, 1)),
    ],
)
def test_correction_click(predicted: np.ndarray, truth: np.ndarray, expected: Click | None) -> None:
    assert correction_click(predicted, truth) == expected


def test_tight_box_names_the_last_column_and_row_inside() -> None:
    assert tight_box(BLOCK) == (1.0, 1.0, 3.0, 3.0)
    assert tight_box(typed("##  ##")) == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("make_prompt", [center_click, tight_box])
def test_empty_mask_is_rejected(make_prompt: object) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        make_prompt(np.zeros((3, 4), bool))  # type: ignore[operator]


def test_masks_of_different_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="true mask of the image's size"):
        correction_click(np.ones((6, 8), bool), np.ones((5, 8), bool))
