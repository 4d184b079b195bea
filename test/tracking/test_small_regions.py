"""Holes and specks: masks by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_ros.tracking.small_regions import without_small_regions

MASK = """
#########...
#.#######...
#####..##..#
#####..##...
#########...
.........#..
............
"""


def logits_of(text: str) -> torch.Tensor:
    rows = text.strip().splitlines()
    return torch.tensor([[[3.0 if letter == "#" else -3.0 for letter in row] for row in rows]])


def text_of(logits_1hw: torch.Tensor) -> str:
    return "\n".join("".join("#" if value > 0 else "." for value in row) for row in logits_1hw[0].tolist())


@pytest.mark.parametrize(
    ("hole", "speck", "expected"),
    [
        (0, 0, MASK),
        (1, 0, MASK.replace("#.#######", "#########")),
        (4, 0, MASK.replace("#.#######", "#########").replace("#####..##", "#########")),
        (0, 1, MASK.replace("..#\n", "...\n")),  # the one below right touches the large region at its corner
    ],
    ids=["nothing asked for", "the small hole", "both holes", "the speck"],
)
def test_small_regions_go(hole: int, speck: int, expected: str) -> None:
    logits = logits_of(MASK)
    assert text_of(without_small_regions(logits, hole, speck)) == expected.strip()
    assert text_of(logits) == MASK.strip()  # a new map


def test_what_is_changed_is_sure_and_the_rest_is_untouched() -> None:
    logits = logits_of(MASK)
    cleaned = without_small_regions(logits, 1, 1)
    changed = cleaned != logits
    assert np.argwhere(changed[0].numpy()).tolist() == [[1, 1], [2, 11]]
    assert cleaned[changed].tolist() == [10.0, -10.0]


def test_a_mask_that_is_all_small_vanishes_and_a_full_one_stays() -> None:
    logits = torch.stack([logits_of("#.\n..")[0], logits_of("##\n##")[0]])
    cleaned = without_small_regions(logits, 2, 2)
    assert (cleaned > 0).sum((1, 2)).tolist() == [0, 4]
