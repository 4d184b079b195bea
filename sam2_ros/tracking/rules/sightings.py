"""What the rules about several objects know of each of them in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.zoom.window import Window

_CELLS = 256


@dataclass(frozen=True, eq=False)
class Place:
    """Where an object is in one frame, and what it looks like there."""

    xy: tuple[float, float]  # middle of its mask, in widths of the image
    area: float  # in squared widths
    look_c: NDArray[np.float32]  # of length 1: its features less those of the whole image


@dataclass(frozen=True, eq=False)
class Sighting:
    """The properties of one object in one frame that the rules about several objects decide by."""

    mask_hw: NDArray[np.bool_]  # in cells of the whole image
    hidden_frame: int  # the last frame before this one in which it was not visible; -1: none
    quality: float  # of the mask
    label: int
    is_prompted: bool = False  # prompted in this frame, so it never yields
    place: Place | None = None  # with ``lookalike_doubt``, where it is visible
    view: int = 0  # number of the encoded image, or part of it, that it was seen in

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """The one with the higher rank yields; of two that were never hidden the one with the worse mask."""
        return not self.is_prompted, self.hidden_frame, -self.quality, self.label


def place_of(mask_hw: NDArray[np.bool_], image_hw: tuple[int, int], look_c: NDArray[np.float32]) -> Place:
    """The place of a mask that is not empty, in cells of the whole image.

    Args:
        mask_hw: of any size.
        image_hw: size of the image, px.
        look_c: from ``prediction.looks_of``.
    """
    rows, columns = np.nonzero(mask_hw)
    height = image_hw[0] / image_hw[1]  # widths
    xy = (columns.mean() + 0.5) / mask_hw.shape[1], height * (rows.mean() + 0.5) / mask_hw.shape[0]
    return Place((float(xy[0]), float(xy[1])), height * len(rows) / mask_hw.size, look_c)


def overlap(one_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 0 of empty ones."""
    either = int(np.count_nonzero(one_hw | other_hw))
    return int(np.count_nonzero(one_hw & other_hw)) / either if either else 0.0


def in_whole_image(mask_hw: NDArray[np.bool_], window: Window | None) -> NDArray[np.bool_]:
    """A mask of the whole image (``window`` None) or of a window in ``_CELLS`` squared cells of the whole image.

    Masks that were seen through different windows are compared in these.
    """
    if window is None:
        return _resized(mask_hw, _CELLS, _CELLS)
    height, width = window.image_hw
    y0, y1 = round(window.y0 * _CELLS / height), round(window.y1 * _CELLS / height)
    x0, x1 = round(window.x0 * _CELLS / width), round(window.x1 * _CELLS / width)
    whole_hw = np.zeros((_CELLS, _CELLS), np.bool_)
    if y0 < y1 and x0 < x1:
        whole_hw[y0:y1, x0:x1] = _resized(mask_hw, y1 - y0, x1 - x0)
    return whole_hw


def _resized(mask_hw: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    shares_hw = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(shares_hw > 0.5)
