"""Rivals: things beside an object that the network nearly took for it, or for a part of it (DAM4SAM, CVPR 2025)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def rival_box_iou(mask_hw: NDArray[np.bool_], candidates_mhw: NDArray[np.bool_]) -> float:
    """How much of the box round an object and its rival the object's own box fills; 1 without a rival.

    A rival is the largest connected part of a candidate outside of the mask; the one that reaches out furthest counts.

    Args:
        mask_hw: of the object, (H, W); not empty.
        candidates_mhw: (M, H, W) the masks that the decoder offered, the chosen one may be among them.
    """
    own = _box_xyxy(mask_hw)
    ious = [1.0]
    for candidate_hw in candidates_mhw:
        rival_hw = _largest_part(candidate_hw & ~mask_hw)
        if rival_hw is not None:
            both = _box_xyxy(mask_hw | rival_hw)
            ious.append(_area(own) / _area(both))  # the larger box holds the smaller one
    return min(ious)


def _largest_part(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(labels_hw == largest)


def _box_xyxy(mask_hw: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _area(box_xyxy: tuple[int, int, int, int]) -> int:
    return (box_xyxy[2] - box_xyxy[0]) * (box_xyxy[3] - box_xyxy[1])
