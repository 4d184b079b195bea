"""Non-maximum suppression: cases by hand, and against the plainest form of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from official_image import nms

from sam2_ros.tracking.nms import keep_best_boxes

BOX, NEARLY, HALF, APART = (0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5), (20, 0, 30, 10)  # IoU with BOX: 0.9, 0.5, 0

CASES = {
    "nothing": ([], [], 0.7, []),
    "one": ([BOX], [0.1], 0.7, [0]),
    "best first": ([BOX, APART], [0.1, 0.9], 0.7, [1, 0]),
    "the worse of two goes": ([BOX, NEARLY], [0.8, 0.9], 0.7, [1]),
    "above the threshold only": ([BOX, HALF], [0.9, 0.8], 0.5, [0, 1]),
    "a threshold below it": ([BOX, HALF], [0.9, 0.8], 0.49, [0]),
    "equal scores: the earlier": ([BOX, NEARLY, APART], [0.5, 0.5, 0.5], 0.7, [0, 2]),
    "one that is gone takes none with it": ([BOX, (0, 0, 10, 7), HALF], [0.9, 0.8, 0.7], 0.6, [0, 2]),
    "no area": ([(5, 5, 5, 9), (5, 5, 5, 9)], [0.9, 0.8], 0.7, [0, 1]),
}


@pytest.mark.parametrize(("boxes", "scores", "threshold", "kept"), CASES.values(), ids=CASES)
def test_by_hand(boxes: list, scores: list, threshold: float, kept: list) -> None:
    boxes_n4 = np.array(boxes, np.float32).reshape(-1, 4)
    scores_n = np.array(scores, np.float32)
    assert keep_best_boxes(boxes_n4, scores_n, threshold).tolist() == kept
    # What the official code is given in the parity tests is held to the same.
    assert nms(torch.from_numpy(boxes_n4), torch.from_numpy(scores_n), threshold).tolist() == kept


def test_many_random_boxes() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 40, (80, 2))
    boxes = np.concatenate([corners, corners + rng.integers(5, 30, (80, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 20, 80).astype(np.float32)  # many are equal
    kept = keep_best_boxes(boxes, scores, 0.5)
    assert 5 < len(kept) < 75
    assert kept.tolist() == nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).tolist()
