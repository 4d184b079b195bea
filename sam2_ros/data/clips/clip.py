"""A clip as training sees it, and what can be done to any clip, wherever it came from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_FIRST_AREA_PX = 16  # an object with less of it in the first frame can hardly be prompted


@dataclass(frozen=True)
class Clip:
    """A short clip with the visible part of each target."""

    images_thwc: NDArray[np.uint8]  # (T, S, S, 3) RGB
    masks_tnhw: NDArray[np.bool_]  # (T, N, S, S) visible mask, N >= 1; empty when absent or hidden

    def is_visible(self, frame: int) -> bool:
        """Whether a frame shows enough of any target to be prompted."""
        return bool(self.masks_tnhw[frame].sum((1, 2)).max() >= MIN_FIRST_AREA_PX)


def reversed_clip(clip: Clip) -> Clip:
    """The clip played backwards; unchanged where no target is visible in its last frame."""
    if not clip.is_visible(-1):
        return clip
    # Copies: torch takes no arrays that run backwards.
    return Clip(clip.images_thwc[::-1].copy(), clip.masks_tnhw[::-1].copy())


def mosaic(clip: Clip, tile: int) -> Clip:
    """The clip four times in a 2 x 2 grid; the targets are those of one tile (0..3), the rest their look-alikes.

    Unchanged where the targets would get too small (paper, appendix D.2.2).
    """
    size_px = clip.images_thwc.shape[1]
    half = size_px // 2
    images = np.stack([cv2.resize(image, (half, half), interpolation=cv2.INTER_AREA) for image in clip.images_thwc])
    row, column = divmod(tile, 2)
    masks = np.zeros(clip.masks_tnhw.shape, np.bool_)
    # One pixel of each 2 x 2 block; thin parts may vanish, as they do in the small picture.
    masks[..., row * half : (row + 1) * half, column * half : (column + 1) * half] = clip.masks_tnhw[
        ..., 1 : 2 * half : 2, 1 : 2 * half : 2
    ]
    tiled = Clip(np.tile(images, (1, 2, 2, 1)), masks)
    return tiled if tiled.is_visible(0) else clip


def mirrored(clip: Clip) -> Clip:
    """The clip with left and right exchanged."""
    return Clip(clip.images_thwc[:, :, ::-1].copy(), clip.masks_tnhw[..., ::-1].copy())


def resized_to_square(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """An image (H, W) or (H, W, C) stretched to ``size_px`` x ``size_px``, as a model's input is."""
    # For enlarging INTER_AREA repeats pixels, which gives blocks that no camera makes.
    how = cv2.INTER_AREA if min(image.shape[:2]) >= size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=how), np.uint8)


def resized_mask(mask_hw: NDArray[np.bool_], size_px: int) -> NDArray[np.bool_]:
    """A mask as ``resized_to_square`` shows it: pixels of which the object covers more than half."""
    return resized_to_square(mask_hw.astype(np.uint8) * 255, size_px) > 127
