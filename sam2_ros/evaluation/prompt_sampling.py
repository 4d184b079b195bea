"""Prompts made from masks, as a careful person would give them: the click in the middle of what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Click:
    """One click in pixels of the image."""

    x: float
    y: float
    label: int  # 1: belongs to the object, 0: does not


@dataclass(frozen=True)
class _Center:
    x: int
    y: int
    depth_px: float  # distance to the edge of the region; 0 for an empty region


def center_click(mask: NDArray[np.bool_]) -> Click:
    """A positive click at the point of a (H, W) bool mask that lies deepest inside it.

    Raises:
        ValueError: the mask is empty.
    """
    center = _deepest_point(mask)
    if center.depth_px == 0:
        raise ValueError(f"expected a mask with at least one pixel, got an empty one of {mask.shape}")
    return Click(float(center.x), float(center.y), 1)


def correction_click(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Click | None:
    """The next click that corrects a mask: the deepest point of what is missing, or of what is too much.

    The deeper of the two decides; on equal depth what is missing. Both masks are (H, W) bool. None where they agree.

    Raises:
        ValueError: they differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected a true mask of the image's size, {predicted.shape}, got {truth.shape}")
    missing = _deepest_point(truth & ~predicted)
    surplus = _deepest_point(predicted & ~truth)
    if missing.depth_px == 0 and surplus.depth_px == 0:
        return None
    if missing.depth_px >= surplus.depth_px:
        return Click(float(missing.x), float(missing.y), 1)
    return Click(float(surplus.x), float(surplus.y), 0)


def tight_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the first and last columns and rows of a (H, W) bool mask, all inside the image.

    Raises:
        ValueError: the mask is empty.
    """
    if not mask.any():
        raise ValueError(f"expected a mask with at least one pixel, got an empty one of {mask.shape}")
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def _deepest_point(region: NDArray[np.bool_]) -> _Center:
    # A rim of zeros makes the image border an edge too: without it the deepest point lies on the border.
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return _Center(int(x), int(y), float(depth[y, x]))
