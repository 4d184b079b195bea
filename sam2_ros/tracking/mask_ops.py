"""Masks as people and planners use them: boxes, centroids and one label image for all objects."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray


def tight_box_xyxy(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Smallest box around the True pixels, x1 and y1 exclusive; None for an empty mask."""
    x, y, width, height = cv2.boundingRect(_as_image(mask))
    return (x, y, x + width, y + height) if width else None


def centroid_xy(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Mean position of the True pixels in pixels; None for an empty mask."""
    moments = cv2.moments(_as_image(mask), binaryImage=True)  # sums of whole numbers: exact
    area = moments["m00"]
    return (moments["m10"] / area, moments["m01"] / area) if area else None


def _as_image(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """As OpenCV takes it, which goes through a mask several times faster than numpy's sums along an axis."""
    return np.ascontiguousarray(mask).view(np.uint8)


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
        np.copyto(winner_hw, label, where=wins)
        np.maximum(highest_hw, logits, out=highest_hw)
    return winner_hw
