"""A clip seen through a window that follows one object, as a tracker that zooms in (``tracking/zoom``) would see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.clip import MIN_FIRST_AREA_PX, Clip, resized_mask, resized_to_square
from sam2_ros.tracking.zoom.window import Window, WindowRules, next_window, place_window

WINDOW_DETAIL = 1.5  # clips that will be seen through a window are made that much larger


class WindowedClips:
    """Makes the clip of a seed: for some seeds unchanged, for others a larger clip seen through a window.

    Everything else that changes clips, above all playing them backwards, has to come before: a window depends on the
    frame before.
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
    """How the windows of clips vary round those of the tracker."""

    zoom: float = WindowRules.zoom  # sides of the window, in longer sides of the mask's box
    min_zoom: float = 1.6
    max_zoom: float = 3.0
    size_jitter: float = 0.08  # standard deviation of the logarithm of the window's side
    jitter: float = 0.06  # of the window's side: how far its middle strays, as the box of a predicted mask does
    # The first frame is seen whole; the tracker does so only where the object is not found in its window.
    whole_first_prob: float = 0.25


def windowed(
    clip: Clip, target: int, rng: np.random.Generator, size_px: int | None = None, ranges: WindowRange | None = None
) -> Clip:
    """The clip of one object through a window that follows it.

    Each frame is seen through a window round the mask of the frame before, as far as that mask was visible in its own
    window: a tracker knows no more. After an empty mask the whole frame is seen. So a fast object may leave its window,
    is absent in that frame, and is found again in the next. Size and motion of the windows are the tracker's
    (``next_window``), with a jitter.

    Args:
        clip: T frames of S px.
        target: which of its objects.
        rng: for sizes and places of the windows.
        size_px: side of the new frames; S if None. If it is smaller than S, the windows are enlarged less.
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
    previous: Window | None = None
    images, masks = [], []
    for image_hwc, mask_hw in zip(clip.images_thwc, masks_thw, strict=True):
        window = window_round(known_hw, previous, zoom, rng, ranges)
        images.append(resized_to_square(image_hwc[window.slices], size_px))
        masks.append(resized_mask(mask_hw[window.slices], size_px))
        known_hw = np.zeros_like(mask_hw)
        if masks[-1].any():
            known_hw[window.slices] = mask_hw[window.slices]
        previous = None if window.is_whole else window
    return Clip(np.stack(images), np.stack(masks)[:, None])


def window_round(
    mask_hw: NDArray[np.bool_],
    previous: Window | None,
    zoom: float,
    rng: np.random.Generator,
    ranges: WindowRange,
) -> Window:
    """The window for the frame after the one with this mask; the whole frame for an empty mask.

    Args:
        mask_hw: what is known of the object.
        previous: the window of the mask's frame; None where that was seen whole.
        zoom, rng, ranges: see ``WindowRange``.
    """
    frame_hw = (mask_hw.shape[0], mask_hw.shape[1])
    if not mask_hw.any():
        return Window.whole(frame_hw)
    x, y, w, h = cv2.boundingRect(mask_hw.astype(np.uint8))
    followed = next_window((x, y, x + w, y + h), frame_hw, previous, WindowRules(zoom))
    side = followed.side * float(np.exp(rng.normal(0, ranges.size_jitter)))
    strayed_xy = rng.normal(0, ranges.jitter, 2) * side
    middle_xy = np.array([followed.x0 + followed.x1, followed.y0 + followed.y1]) / 2 + strayed_xy
    return place_window(middle_xy.tolist(), side, frame_hw)


def choose_target(clip: Clip, rng: np.random.Generator) -> int:
    """One of the objects visible in the first frame; the largest where all are tiny."""
    area_n = clip.masks_tnhw[0].sum((1, 2))
    shown = np.flatnonzero(area_n >= MIN_FIRST_AREA_PX)
    return int(rng.choice(shown)) if len(shown) else int(area_n.argmax())
