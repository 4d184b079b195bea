"""Small holes and specks in masks (``get_connected_components`` in the official ``SAM2Transforms``)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FILLED_LOGIT, _EMPTIED_LOGIT = 10.0, -10.0


def without_small_regions(logits_nhw: Tensor, max_hole_area: float, max_sprinkle_area: float) -> Tensor:
    """Close holes and drop specks of at most so many pixels of the map; 0 leaves them.

    Neighbours are the eight around a pixel. Both are looked for in the mask as it comes in, so a speck inside a hole
    that is closed is dropped again, as in the official code.
    """
    if max_hole_area <= 0 and max_sprinkle_area <= 0:
        return logits_nhw
    masks_nhw = (logits_nhw > 0).cpu().numpy()
    holes_nhw = np.zeros_like(masks_nhw)
    specks_nhw = np.zeros_like(masks_nhw)
    for mask_hw, holes_hw, specks_hw in zip(masks_nhw, holes_nhw, specks_nhw, strict=True):
        holes_hw[...] = _small_regions(~mask_hw, max_hole_area)
        specks_hw[...] = _small_regions(mask_hw, max_sprinkle_area)
    filled = logits_nhw.masked_fill(torch.from_numpy(holes_nhw).to(logits_nhw.device), _FILLED_LOGIT)
    return filled.masked_fill(torch.from_numpy(specks_nhw).to(logits_nhw.device), _EMPTIED_LOGIT)


def _small_regions(mask_hw: NDArray[np.bool_], max_area: float) -> NDArray[np.bool_]:
    """The pixels of those connected regions that are not larger."""
    _, regions_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    is_small = stats[:, cv2.CC_STAT_AREA] <= max_area
    is_small[0] = False  # what is not in the mask
    return np.asarray(is_small[regions_hw], dtype=np.bool_)
