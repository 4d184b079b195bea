"""Of boxes that mostly cover each other, the best one (non-maximum suppression)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def keep_best_boxes(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> NDArray[np.intp]:
    """Indices of the boxes to keep, best score first; of equal scores the earlier box.

    A box goes when it overlaps a better one that is kept by more than ``iou_threshold``. Boxes without area overlap
    nothing.

    >>> keep_best_boxes(np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]]), np.float32([0.8, 0.9, 0.1]), 0.7)
    array([1, 2])
    """
    x0, y0, x1, y1 = boxes_xyxy.astype(np.float32).reshape(-1, 4).T
    areas = (x1 - x0) * (y1 - y0)
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[waiting]) - np.maximum(x0[best], x0[waiting])
        height = np.minimum(y1[best], y1[waiting]) - np.maximum(y0[best], y0[waiting])
        overlap = width.clip(min=0) * height.clip(min=0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which is not above any threshold
            iou = overlap / (areas[best] + areas[waiting] - overlap)
        waiting = waiting[~(iou > np.float32(iou_threshold))]
    return np.array(kept, dtype=np.intp)
