"""Rivals: things beside an object that the network nearly took for it, or for a part of it (DAM4SAM, CVPR 2025)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.transforms import tight_box_xyxy


def rival_box_iou(mask_hw: NDArray[np.bool_], candidates_mhw: NDArray[np.bool_]) -> float:
    """How much of the box round an object and its rival the object's own box fills; 1 without a rival.

    A rival is the largest connected part of a candidate outside of the mask; the one that reaches out furthest counts.

    Args:
        mask_hw: of the object, (H, W); not empty.
        candidates_mhw: (M, H, W) the masks that the decoder offered, the chosen one may be among them.
    """
    own_area = _box_area(mask_hw)
    ious = [1.0]
    for candidate_hw in candidates_mhw:
        rival_hw = _largest_part(candidate_hw & ~mask_hw)
        if rival_hw is not None:
            ious.append(own_area / _box_area(mask_hw | rival_hw))  # the larger box holds the smaller one
    return min(ious)


def _largest_part(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(labels_hw == largest)


def _box_area(mask_hw: NDArray[np.bool_]) -> int:
    x0, y0, x1, y1 = tight_box_xyxy(mask_hw) or (0, 0, 0, 0)
    return (x1 - x0) * (y1 - y0)
