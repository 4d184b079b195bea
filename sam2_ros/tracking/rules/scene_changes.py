"""Cuts, and a camera that is covered or frozen: seen by small pictures of the images alone, without the network.

A *cut* is another place from one image to the next: a switched camera, a bag that was put together, a frame grabber's
other input. SAM 2 does not handle it (paper, section 8): it attends to memories of the old place as if they were the
last frames of the new one. ``docs/tracking.md`` says what the tracker does instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.types import Scene

_SAMPLE_HW = (96, 128)  # px; an image is sampled to about this size, whatever its own
MOST_SAMPLED = 3 * (2 * _SAMPLE_HW[0]) * (2 * _SAMPLE_HW[1])  # values: an image of twice the size is not sampled yet
_THUMB_WH = (32, 24)
_LEVELS = 8  # of each colour, in the histogram
_SHIFT_XY = (6, 4)  # cells of the thumbnail by which a moving camera may shift it
_CUT_DISTANCE = 0.25  # of histograms; between consecutive images of real clips it is below 0.22, across cuts above 0.29
_CUT_RATIO = 2.0  # to the largest of the last distances: a camera that turns fast makes large ones again and again
_MOST_REMEMBERED = 0.2  # of a distance, so that a second cut soon after the first is seen
_DISTANCES = 3
_MOST_ALIKE = 0.65  # correlation of thumbnails; a light that is switched changes all colours, but not what is where
_COVERED_CONTRAST, _CLEAR_CONTRAST = 10, 16  # grey levels between the darkest and the brightest twentieth
_HAD_CONTRAST = 32  # before it was covered: a camera that always sees a plain wall is not covered
_FROZEN_AFTER_S, _FROZEN_AFTER_FRAMES = 2.0, 60  # the latter without stamps


@dataclass(frozen=True, eq=False)
class Look:
    """A small picture of an image, with which the next image is compared."""

    sample_hw3: NDArray[np.uint8]  # every few pixels of the image
    thumb_hw: NDArray[np.uint8]  # grey
    shares: NDArray[np.float32]  # (512,) of the sample's pixels, by colour; they sum to 1
    contrast: int  # grey levels

    @classmethod
    def of(cls, image_rgb: NDArray[np.uint8]) -> Look:
        height, width = image_rgb.shape[:2]
        steps = max(1, height // _SAMPLE_HW[0]), max(1, width // _SAMPLE_HW[1])
        return cls.of_sample(np.ascontiguousarray(image_rgb[:: steps[0], :: steps[1]]))

    @classmethod
    def of_sample(cls, sample_hw3: NDArray[np.uint8]) -> Look:
        thumb_hw = cv2.resize(cv2.cvtColor(sample_hw3, cv2.COLOR_RGB2GRAY), _THUMB_WH, interpolation=cv2.INTER_AREA)
        counts = cv2.calcHist([sample_hw3], [0, 1, 2], None, [_LEVELS] * 3, [0, 256] * 3).ravel()
        dark, bright = np.percentile(thumb_hw, (5, 95))
        return cls(sample_hw3, np.asarray(thumb_hw), (counts / counts.sum()).astype(np.float32), int(bright - dark))

    def distance(self, other: Look) -> float:
        """Hellinger distance of the colours, 0 for the same ones and 1 for none in common."""
        return float(np.sqrt(max(0.0, 1.0 - float(np.sqrt(self.shares * other.shares).sum()))))

    def likeness(self, other: Look) -> float:
        """Correlation of the thumbnails, -1 to 1, at the best shift of one against the other."""
        x, y = _SHIFT_XY
        middle_hw = other.thumb_hw[y:-y, x:-x]
        if not self.thumb_hw.std() or not middle_hw.std():
            return 1.0  # of a plain picture, colours alone decide
        return float(cv2.matchTemplate(self.thumb_hw, middle_hw, cv2.TM_CCOEFF_NORMED).max())

    def is_same(self, other: Look) -> bool:
        return bool(np.array_equal(self.sample_hw3, other.sample_hw3))


@dataclass(frozen=True, eq=False)
class SceneWatch:
    """What is remembered of the images so far; bounded. ``observe`` gives the next one."""

    look: Look | None = None  # the latest image in which something could be seen
    distances: tuple[float, ...] = ()  # of the last images of this place, from each to the next
    frames_same: int = 0  # images since, and equal to, the first of a series of equal ones
    same_since_s: float | None = None  # stamp of that image
    is_covered: bool = False

    def observe(self, image_rgb: NDArray[np.uint8], stamp_s: float | None = None) -> tuple[SceneWatch, Scene]:
        """The next image: what is remembered with it, and what it is.

        Args:
            image_rgb: (H, W, 3) uint8 RGB, any size.
            stamp_s: when it was taken; None if unknown.
        """
        look, last = Look.of(image_rgb), self.look
        if last is None:
            return SceneWatch(look, same_since_s=stamp_s), Scene.STEADY
        contrast = _CLEAR_CONTRAST if self.is_covered else _COVERED_CONTRAST
        if look.contrast < contrast and last.contrast >= _HAD_CONTRAST:
            return replace(self, is_covered=True, frames_same=0, same_since_s=stamp_s), Scene.COVERED
        if look.is_same(last):
            return replace(self, frames_same=self.frames_same + 1, is_covered=False), self._while_same(stamp_s)
        distance = look.distance(last)
        usual = _CUT_RATIO * max(self.distances, default=0.0)
        is_cut = distance > max(_CUT_DISTANCE, usual) and look.likeness(last) < _MOST_ALIKE
        distances = (*self.distances, min(distance, _MOST_REMEMBERED))[-_DISTANCES:]
        return SceneWatch(look, distances, same_since_s=stamp_s), Scene.CUT if is_cut else Scene.STEADY

    def _while_same(self, stamp_s: float | None) -> Scene:
        if stamp_s is not None and self.same_since_s is not None:
            return Scene.FROZEN if stamp_s - self.same_since_s >= _FROZEN_AFTER_S else Scene.STEADY
        return Scene.FROZEN if self.frames_same + 1 >= _FROZEN_AFTER_FRAMES else Scene.STEADY
