"""Masks as single polygons, which is all that YOLO's segmentation labels have, and back.

Parts and holes are joined to one outline by bridges of no width. A mask of one part, with holes or without, comes back
exactly; between parts a bridge leaves a line of one pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_FAR_PX = 30_000  # OpenCV counts in 16 bits and a fraction


def polygon_of_mask(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(P, 2) x, y in pixels, P >= 3, of a (H, W) bool mask with at least one pixel: the pixels on its outline.

    Raises:
        ValueError: the mask is empty.
    """
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        raise ValueError("expected a mask with at least one pixel, got an empty one")
    pieces = sorted((contour[:, 0].astype(np.float64) for contour in contours), key=len, reverse=True)
    joined = pieces.pop(0)
    while pieces:
        # The nearest piece next, so that bridges are short and few of them cross anything.
        distances = [((joined[:, None] - piece[None]) ** 2).sum(-1) for piece in pieces]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        here, there = np.unravel_index(int(distances[nearest].argmin()), distances[nearest].shape)
        piece = pieces.pop(nearest)
        around = np.concatenate((piece[there:], piece[: there + 1]))
        joined = np.concatenate((joined[: here + 1], around, joined[here:]))
    return joined if len(joined) >= 3 else np.concatenate((joined, joined[[-1] * (3 - len(joined))]))


def mask_of_polygon(points_xy: NDArray[np.float64], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The (H, W) bool mask of a polygon (P, 2) in pixels; its outline belongs to it. ValueError: not finite."""
    if not np.isfinite(points_xy).all():
        raise ValueError("expected finite coordinates of a polygon")
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.round(points_xy.clip(-_FAR_PX, _FAR_PX)).astype(np.int32)], 1)
    return mask > 0
