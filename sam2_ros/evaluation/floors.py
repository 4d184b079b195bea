"""Trackers without a network, as floors: what a score is worth shows only beside theirs.

Both have the methods of the tracker that the evaluation uses, and take masks only.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask


class _FloorTracker(ABC):
    """Keeps one mask per object; a subclass says how masks move from frame to frame."""

    model_name: str

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._masks: dict[str, NDArray[np.float32]] = {}  # (H, W) in 0..1
        self._prompted: dict[str, NDArray[np.bool_]] = {}
        self._labels: dict[str, int] = {}
        self._frame_index = 0

    def add_prompt(
        self,
        object_id: str,
        *,
        points: object = None,
        labels: object = None,
        box: object = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> int:
        """Take a (H, W) bool mask for the next frame; the object's label. PromptError for clicks and boxes."""
        if mask is None or points is not None or labels is not None or box is not None:
            raise PromptError(f"{self.model_name!r} needs the true mask of an object; use it with mask prompts only")
        self._prompted[object_id] = np.asarray(mask, bool)
        return self._labels.setdefault(object_id, len(self._labels) + 1)

    def step(self, image_rgb: NDArray[np.uint8]) -> FrameResult:
        """Masks of all objects in the next frame, (H, W, 3) uint8 RGB."""
        started_s = time.perf_counter()
        if any(mask.shape != image_rgb.shape[:2] for mask in self._masks.values()):
            raise ValueError(f"the image changed to {image_rgb.shape[:2]}; {self.model_name!r} needs one size")
        self._masks = self._move(self._masks, image_rgb)
        for object_id, mask in self._prompted.items():
            if mask.shape != image_rgb.shape[:2]:
                raise PromptError(f"mask of {object_id!r} is {mask.shape}, the image is {image_rgb.shape[:2]}")
            self._masks[object_id] = mask.astype(np.float32)
        self._prompted = {}
        label_image = np.zeros(image_rgb.shape[:2], np.uint16)
        objects = tuple(self._tracked(object_id, label_image) for object_id in self._labels)
        result = FrameResult(self._frame_index, objects, label_image, (time.perf_counter() - started_s) * 1e3)
        self._frame_index += 1
        return result

    def _tracked(self, object_id: str, label_image: NDArray[np.uint16]) -> TrackedMask:
        """The object's value for the result; paints it where no earlier object is."""
        mask, label = self._masks[object_id] >= 0.5, self._labels[object_id]
        label_image[mask & (label_image == 0)] = label
        ys, xs = np.nonzero(mask)
        if len(xs) == 0:
            return TrackedMask(object_id, label, ObjectState.OCCLUDED, 0.0, 0.0, mask, 0, None, None)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        centroid = (float(xs.mean()), float(ys.mean()))
        return TrackedMask(object_id, label, ObjectState.TRACKED, 1.0, 1.0, mask, len(xs), box, centroid)

    @abstractmethod
    def _move(
        self, masks: dict[str, NDArray[np.float32]], image_rgb: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        """Masks of the last frame -> masks of this frame."""


class HoldTracker(_FloorTracker):
    """The prompt's mask, held still."""

    model_name = "hold"

    def _move(
        self, masks: dict[str, NDArray[np.float32]], image_rgb: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        return masks


class FlowTracker(_FloorTracker):
    """The last mask, carried along by optical flow (dense inverse search, medium preset)."""

    model_name = "flow"

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._last_gray: NDArray[np.uint8] | None = None
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def _move(
        self, masks: dict[str, NDArray[np.float32]], image_rgb: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
        last_gray, self._last_gray = self._last_gray, gray
        if last_gray is None or not masks:
            return masks
        # From this frame back to the last: for each pixel here, where it was.
        back_hw2 = self._flow.calc(gray, last_gray, None)
        ys, xs = np.mgrid[: gray.shape[0], : gray.shape[1]].astype(np.float32)
        map_x, map_y = xs + back_hw2[..., 0], ys + back_hw2[..., 1]
        return {object_id: self._warp(mask, map_x, map_y) for object_id, mask in masks.items()}

    @staticmethod
    def _warp(mask: NDArray[np.float32], map_x: NDArray[np.float32], map_y: NDArray[np.float32]) -> NDArray[np.float32]:
        warped = cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        # Cut to 0 or 1 on every frame: kept soft, the edge would blur wider and wider.
        return (warped >= 0.5).astype(np.float32)
