"""J and F on masks typed out by hand, with the numbers worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam2_ros.evaluation.metrics import (
    Score,
    boundary_pixels,
    boundary_similarity,
    boundary_tolerance_px,
    mean_score,
    region_similarity,
    score_object,
)


def typed(rows: str) -> np.ndarray:
    """A mask from rows of '.' and '#'."""
    return np.array([[letter == "#" for letter in row] for row in rows.split()])


EMPTY = typed("....  ....  ....  ....")
FULL = typed("####  ####  ####  ####")
BLOCK = typed("....  .##.  .##.  ....")


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (EMPTY, BLOCK, 0.0),
        (BLOCK, EMPTY, 0.0),
        (BLOCK, BLOCK, 1.0),
        (FULL, BLOCK, 4 / 16),
        (typed("....  ..##  ..##  ...."), BLOCK, 2 / 6),
        (typed("#...  ....  ....  ...."), BLOCK, 0.0),
    ],
)
def test_region_similarity(predicted: np.ndarray, truth: np.ndarray, expected: float) -> None:
    assert region_similarity(predicted, truth) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mask", "outline"),
    [
        (EMPTY, EMPTY),
        (FULL, EMPTY),
        # Each pixel against right, lower and lower right neighbour.
        (BLOCK, typed("###.  #.#.  ###.  ....")),
        # The right half: only the column left of the edge differs from its neighbours.
        (typed("..##  ..##  ..##  ..##"), typed(".#..  .#..  .#..  .#..")),
        # One pixel in the last corner is seen from above and from the left.
        (typed("....  ....  ....  ...#"), typed("....  ....  ..##  ..#.")),
    ],
)
def test_boundary_pixels(mask: np.ndarray, outline: np.ndarray) -> None:
    np.testing.assert_array_equal(boundary_pixels(mask), outline)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (EMPTY, BLOCK, 0.0),
        (BLOCK, EMPTY, 0.0),
        (BLOCK, BLOCK, 1.0),
        (FULL, EMPTY, 1.0),  # by the rule a mask that fills the image has no outline
        (FULL, BLOCK, 0.0),
    ],
)
def test_boundary_similarity_of_simple_cases(predicted: np.ndarray, truth: np.ndarray, expected: float) -> None:
    assert boundary_similarity(predicted, truth) == pytest.approx(expected)


def test_boundary_similarity_with_a_tolerance_of_one_pixel() -> None:
    truth = typed("""
        ..######
        ..######
        ..######""")  # outline: column 1
    two_to_the_right = typed("""
        ....####
        ....####
        ....####""")  # outline: column 3, two away
    one_row_cut = typed("""
        ..######
        ..######
        ........""")
    # Outline of one_row_cut: (0,1), (1,1), and the second row from column 1 to 7: 8 pixels. Within one pixel of
    # column 1 are (0,1), (1,1), (1,2): precision 3/8. Of the true (0,1), (1,1), (2,1) all are near: recall 1.
    assert boundary_tolerance_px(truth.shape) == 1
    assert boundary_similarity(two_to_the_right, truth) == 0.0
    assert boundary_similarity(one_row_cut, truth) == pytest.approx(2 * (3 / 8) / (3 / 8 + 1))


def test_boundary_tolerance_of_usual_sizes() -> None:
    assert boundary_tolerance_px((480, 854)) == 8  # 0.008 * 979.7 = 7.84
    assert boundary_tolerance_px((720, 1280)) == 12  # 0.008 * 1468.6 = 11.75


@pytest.mark.parametrize("seed", range(4))
def test_boundary_similarity_equals_dilation_with_a_disk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal((2, 150, 400)).transpose(1, 2, 0), (0, 0), 9)
    predicted, truth = noise[..., 0] > 0.02, noise[..., 1] > 0.02
    radius = boundary_tolerance_px(truth.shape)
    assert radius == 4
    ys, xs = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (xs**2 + ys**2 <= radius**2).astype(np.uint8)
    outlines = [boundary_pixels(mask) for mask in (predicted, truth)]
    grown = [cv2.dilate(outline.astype(np.uint8), disk).astype(bool) for outline in outlines]
    precision = (outlines[0] & grown[1]).sum() / outlines[0].sum()
    recall = (outlines[1] & grown[0]).sum() / outlines[1].sum()
    expected = 2 * precision * recall / (precision + recall)
    assert 0 < expected < 1
    assert boundary_similarity(predicted, truth) == pytest.approx(expected)


def test_object_score_drops_the_first_and_the_last_frame() -> None:
    frames = [Score(1.0, 1.0), Score(0.5, 0.25), Score(0.75, 0.75), Score(0.0, 0.0)]
    score = score_object(frames)
    assert score == Score(0.625, 0.5)
    assert score.mean == pytest.approx(0.5625)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_object_score_is_none_when_nothing_is_left_to_score(count: int) -> None:
    assert score_object([Score(1.0, 1.0)] * count) is None


def test_mean_score_weighs_objects_equally() -> None:
    assert mean_score([Score(1.0, 0.5), Score(0.0, 0.0)]) == Score(0.5, 0.25)
    assert mean_score([]) is None


def test_masks_of_different_size_are_rejected_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(3, 4\)"):
        region_similarity(BLOCK, BLOCK[:3])


def test_masks_that_are_not_bool_are_rejected() -> None:
    with pytest.raises(ValueError, match="uint8"):
        boundary_similarity(BLOCK.astype(np.uint8), BLOCK)
