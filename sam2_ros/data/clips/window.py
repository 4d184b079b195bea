"""A clip seen through a window that follows one object, as a tracker that zooms in would see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.clip import MIN_FIRST_AREA_PX, Clip

WINDOW_DETAIL = 1.5  # clips that will be seen through a window are made that much larger


class WindowedClips:
    """Gives the clip of a seed: of some seeds as it is, of others a larger clip through a window.

    Whatever else is done to clips, running backwards above all, belongs before this: a window knows the frame before.
    """

    def __init__(
        self, clips: Callable[[int], Clip], larger_clips: Callable[[int], Clip], size_px: int, probability: float
    ) -> None:
        """Keep the sources.

        Args:
            clips: gives clips of size_px.
            larger_clips: gives clips about WINDOW_DETAIL times as large.
            size_px: side of the frames.
            probability: of a window.
        """
        self._clips, self._larger_clips = clips, larger_clips
        self._size_px, self._probability = size_px, probability

    def __call__(self, seed: int) -> Clip:
        rng = np.random.default_rng((seed, 3))  # the sources use the plain seed
        if rng.random() >= self._probability:
            return self._clips(seed)
        clip = self._larger_clips(seed)
        return windowed(clip, choose_target(clip, rng), rng, self._size_px)


@dataclass(frozen=True)
class WindowRange:
    """How a window is drawn round a mask."""

    zoom: float = 2.0  # sides of the window, in longer sides of the mask's box
    min_zoom: float = 1.6
    max_zoom: float = 3.0
    jitter: float = 0.06  # of the window's side: how far its middle strays, as the box of a predicted mask does
    smallest: float = 0.18  # of the frame's side; what is enlarged further is mush
    whole_first_prob: float = 0.5  # the first frame is seen whole, since nothing is known yet


@dataclass(frozen=True)
class SquareWindow:
    """A square part of the frame, px; the whole frame where nothing is followed."""

    x0: int
    y0: int
    side: int


def windowed(
    clip: Clip, target: int, rng: np.random.Generator, size_px: int | None = None, ranges: WindowRange | None = None
) -> Clip:
    """The clip of one object through a window that follows it.

    Each frame is seen through a window round the mask of the frame before, as far as that was in its own window: a
    tracker knows no more. Where that mask was empty, the whole frame is seen. So a fast object leaves its window,
    counts as absent there, and is met again in the next frame.

    Args:
        clip: T frames of S px.
        target: which of its objects.
        rng: for sizes and places of the windows.
        size_px: side of the new frames; S if None. Smaller than S loses less to the enlarging.
        ranges: of the windows.

    Returns:
        A clip of the same length with that object alone; the clip with that object alone, unwindowed but resized, where
        the first window would hide it.
    """
    ranges = ranges or WindowRange()
    source_px = clip.images_thwc.shape[1]
    size_px = size_px or source_px
    zoom = float(np.clip(ranges.zoom * np.exp(rng.normal(0, 0.2)), ranges.min_zoom, ranges.max_zoom))
    masks_thw = clip.masks_tnhw[:, target]
    known_hw = np.zeros_like(masks_thw[0]) if rng.random() < ranges.whole_first_prob else masks_thw[0]
    images, masks = [], []
    for image_hwc, mask_hw in zip(clip.images_thwc, masks_thw, strict=True):
        window = window_round(known_hw, zoom, rng, ranges)
        rows, columns = slice(window.y0, window.y0 + window.side), slice(window.x0, window.x0 + window.side)
        images.append(_resized(image_hwc[rows, columns], size_px))
        masks.append(_resized(mask_hw[rows, columns].astype(np.uint8) * 255, size_px) > 127)
        known_hw = np.zeros_like(mask_hw)
        if masks[-1].any():
            known_hw[rows, columns] = mask_hw[rows, columns]
    return Clip(np.stack(images), np.stack(masks)[:, None])


def window_round(
    mask_hw: NDArray[np.bool_], zoom: float, rng: np.random.Generator, ranges: WindowRange
) -> SquareWindow:
    """A square about ``zoom`` times as large as the mask's box, inside the frame; all of it for an empty mask."""
    size = mask_hw.shape[0]
    if not mask_hw.any():
        return SquareWindow(0, 0, size)
    x, y, w, h = cv2.boundingRect(mask_hw.astype(np.uint8))
    side = zoom * max(w, h) * float(np.exp(rng.normal(0, 0.08)))
    side = int(np.clip(round(side), max(8, np.ceil(ranges.smallest * size)), size))
    middle = np.array([x + w / 2, y + h / 2]) + rng.normal(0, ranges.jitter, 2) * side
    corner = np.clip(np.round(middle - side / 2), 0, size - side).astype(int)
    return SquareWindow(int(corner[0]), int(corner[1]), side)


def choose_target(clip: Clip, rng: np.random.Generator) -> int:
    """One of the objects that the first frame shows; the one that it shows most of where all are tiny."""
    area_n = clip.masks_tnhw[0].sum((1, 2))
    shown = np.flatnonzero(area_n >= MIN_FIRST_AREA_PX)
    return int(rng.choice(shown)) if len(shown) else int(area_n.argmax())


def _resized(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    # Enlarging, INTER_AREA repeats pixels: blocks that no camera makes.
    how = cv2.INTER_AREA if image.shape[0] >= size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=how), np.uint8)
