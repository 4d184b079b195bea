"""Masks as people and planners use them: boxes, centroids and one label image for all objects."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def tight_box_xyxy(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Smallest box around the True pixels, x1 and y1 exclusive; None for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def centroid_xy(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Mean position of the True pixels in pixels; None for an empty mask."""
    area = int(mask.sum())
    if not area:
        return None
    x = float(mask.sum(0) @ np.arange(mask.shape[1])) / area
    y = float(mask.sum(1) @ np.arange(mask.shape[0])) / area
    return x, y


def label_image(
    logits_hw: Iterable[NDArray[np.float32]], labels: list[int], height: int, width: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) image of labels: where several objects claim a pixel, the highest logit wins; 0 where none is above 0.

    Args:
        logits_hw: one (H, W) map an object, taken one by one: full-size maps of many objects are large.
        labels: of these objects, in the same order.
        height, width: of the image, in pixels.

    Returns:
        uint8, or uint16 once a label exceeds 255.
    """
    winner_hw = np.zeros((height, width), np.uint16 if labels and max(labels) > 255 else np.uint8)
    highest_hw = np.zeros((height, width), np.float32)
    for label, logits in zip(labels, logits_hw, strict=True):
        wins = logits > highest_hw
        winner_hw[wins] = label
        np.maximum(highest_hw, logits, out=highest_hw)
    return winner_hw
