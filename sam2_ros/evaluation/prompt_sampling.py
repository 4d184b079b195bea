"""Simulated prompts from true masks: clicks in the middle of an object or of the largest error, and boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.transforms import tight_box_xyxy


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
    depth_px: float  # distance to the edge of the region; 0 if the region is empty


def center_click(mask: NDArray[np.bool_]) -> Click:
    """A positive click at the innermost point of a (H, W) bool mask.

    Raises:
        ValueError: the mask is empty.
    """
    center = _innermost_point(mask)
    if center.depth_px == 0:
        raise ValueError(f"expected a mask with at least one pixel, got an empty one of {mask.shape}")
    return Click(float(center.x), float(center.y), 1)


def correction_click(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Click | None:
    """The next click that corrects a mask: the innermost point of the missing or of the surplus region.

    The one further from its region's edge is chosen, the missing one if they are equal. Both masks are (H, W) bool.
    None if they agree.

    Raises:
        ValueError: they differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected a true mask of the image's size, {predicted.shape}, got {truth.shape}")
    missing = _innermost_point(truth & ~predicted)
    surplus = _innermost_point(predicted & ~truth)
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
    box = tight_box_xyxy(mask)
    if box is None:
        raise ValueError(f"expected a mask with at least one pixel, got an empty one of {mask.shape}")
    x0, y0, x1, y1 = box
    return float(x0), float(y0), float(x1 - 1), float(y1 - 1)


def _innermost_point(region: NDArray[np.bool_]) -> _Center:
    # Padding with zeros makes the image border an edge too; otherwise the innermost point could lie on the border.
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return _Center(int(x), int(y), float(depth[y, x]))
