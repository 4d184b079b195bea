"""Crowds: two objects with one mask (SAM2MOT, SAM 3). The object that was hidden more recently gives it up.

An object that goes behind a similar one tends to be found on the one in front: both then have the same mask, and the
hidden one's memories of these frames show the other one. Instead it yields: it has no mask and no memory of this frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.zoom.window import Window

_CELLS = 256
SAME_IOU = 0.7  # from this intersection over union on, two masks are taken for one


@dataclass(frozen=True, eq=False)
class Sighting:
    """The properties of one object in one frame that decide which object yields."""

    mask_hw: NDArray[np.bool_]  # in cells of the whole image
    hidden_frame: int  # the last frame before this one in which it was not visible; -1: none
    quality: float  # of the mask
    label: int
    is_prompted: bool = False  # prompted in this frame, so it never yields

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """The one with the higher rank yields; of two that were never hidden the one with the worse mask."""
        return not self.is_prompted, self.hidden_frame, -self.quality, self.label


def yielding(sightings: Mapping[str, Sighting]) -> set[str]:
    """The objects that lose their masks in this frame; masks that overlap most are settled first."""
    areas = {object_id: int(seen.mask_hw.sum()) for object_id, seen in sightings.items()}
    visible = [object_id for object_id, area in areas.items() if area]
    pairs = []
    for one, other in itertools.combinations(visible, 2):
        least, most = sorted((areas[one], areas[other]))
        if least < SAME_IOU * most:  # cannot overlap enough: spares counting
            continue
        shared = int(np.count_nonzero(sightings[one].mask_hw & sightings[other].mask_hw))
        iou = shared / (least + most - shared)
        if iou >= SAME_IOU:
            pairs.append((iou, one, other))
    gone: set[str] = set()
    for _, one, other in sorted(pairs, reverse=True):
        if not gone & {one, other}:
            last = max(one, other, key=lambda object_id: sightings[object_id].rank)
            if not sightings[last].is_prompted:
                gone.add(last)
    return gone


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
