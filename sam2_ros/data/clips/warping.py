"""Sampling an image through a homography and a deformation field, at the resolution of the target."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_STEP_PX = 8


@dataclass(frozen=True)
class Region:
    """A rectangle of the frame in px, half open."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of a frame."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True)
class SourceMaps:
    """Where each target pixel comes from."""

    xy_hw2: NDArray[np.float32]  # source px

    def sample(self, source: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
        """Sample a (h, w) or (h, w, C <= 4) uint8 image; outside it follows border, zeros if constant."""
        return cv2.remap(source, self.xy_hw2, None, cv2.INTER_LINEAR, borderMode=border, borderValue=0)


def region_of(matrix_33: NDArray[np.float64], width: int, height: int, margin: float, size_px: int) -> Region | None:
    """The part of the frame that a source of width x height px can reach; None if it is out of view.

    Args:
        matrix_33: source px -> frame px, affine.
        margin: share of the sides by which a deformation may move the outline.
        size_px: side of the frame.
    """
    dx, dy = margin * width, margin * height
    corners_n2 = np.array([[-dx, -dy], [width + dx, -dy], [width + dx, height + dy], [-dx, height + dy]])
    mapped_n3 = np.column_stack([corners_n2, np.ones(4)]) @ matrix_33.T
    if (mapped_n3[:, 2] < 1e-3).any():
        return Region(0, 0, size_px, size_px)
    mapped_n2 = mapped_n3[:, :2] / mapped_n3[:, 2:]
    low = np.clip(np.floor(mapped_n2.min(axis=0)), 0, size_px).astype(int)
    high = np.clip(np.ceil(mapped_n2.max(axis=0)) + 1, 0, size_px).astype(int)
    if (high - low < 1).any():
        return None
    return Region(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def source_maps(
    matrix_33: NDArray[np.float64],
    region: Region,
    table_kk2: NDArray[np.float32] | None,
    carrier_xyxy: tuple[float, float, float, float],
) -> SourceMaps:
    """Invert matrix_33 (source px -> frame px) on the region and add the deformation.

    Args:
        table_kk2: displacements over the carrier as shares of its sides, or None for none.
        carrier_xyxy: source px, where the deformation lives; beyond it the nearest value holds.
    """
    inverse = np.linalg.inv(matrix_33).astype(np.float32)
    # Everything here is smooth, so every eighth pixel is computed, a ring outside the region too, and the rest blended.
    columns, rows = -(-(region.x1 - region.x0) // _STEP_PX) + 2, -(-(region.y1 - region.y0) // _STEP_PX) + 2
    middle = (_STEP_PX - 1) / 2 - _STEP_PX
    xs = (region.x0 + middle + _STEP_PX * np.arange(columns, dtype=np.float32))[None, :]
    ys = (region.y0 + middle + _STEP_PX * np.arange(rows, dtype=np.float32))[:, None]
    x_hw = inverse[0, 0] * xs + (inverse[0, 1] * ys + inverse[0, 2])
    y_hw = inverse[1, 0] * xs + (inverse[1, 1] * ys + inverse[1, 2])
    if abs(inverse[2, 0]) + abs(inverse[2, 1]) > 1e-9:
        depth_hw = inverse[2, 0] * xs + (inverse[2, 1] * ys + inverse[2, 2])
        # Beyond the horizon there is nothing to see; a tiny positive depth sends it far outside.
        depth_hw = np.maximum(depth_hw * np.sign(inverse[2, 2]), 1e-4)
        x_hw, y_hw = x_hw / depth_hw * np.sign(inverse[2, 2]), y_hw / depth_hw * np.sign(inverse[2, 2])
    xy_hw2 = np.dstack([x_hw, y_hw])
    if table_kk2 is not None:
        x0, y0, x1, y1 = carrier_xyxy
        sides = np.array([x1 - x0, y1 - y0], np.float32)
        places_hw2 = (xy_hw2 - np.array([x0, y0], np.float32)) * ((table_kk2.shape[0] - 1) / sides)
        shift_hw2 = cv2.remap(
            table_kk2, places_hw2.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        xy_hw2 = xy_hw2 + shift_hw2 * sides
    size = (columns * _STEP_PX, rows * _STEP_PX)
    fine_hw2 = cv2.resize(xy_hw2.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    height, width = region.y1 - region.y0, region.x1 - region.x0
    return SourceMaps(np.ascontiguousarray(fine_hw2[_STEP_PX : _STEP_PX + height, _STEP_PX : _STEP_PX + width]))
