"""Trackers by name for the evaluation: the models, and two baselines without a network.

A score means little without that of a baseline, here called a floor: "hold" keeps the mask of the prompt, "flow" warps
it by optical flow. Floors take mask prompts only.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.prompt_sampling import Click
from sam2_ros.tracking.transforms import centroid_xy, tight_box_xyxy
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask


class _FloorTracker(ABC):
    """Keeps one mask per object; a subclass defines how masks move from frame to frame."""

    model_name: str

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Remove all objects and start at frame 0."""
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
        """Set a (H, W) bool mask for the next frame; returns the label. PromptError for points and boxes."""
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
        """The object in the result; its label is painted where no earlier object is."""
        mask, label = self._masks[object_id] >= 0.5, self._labels[object_id]
        label_image[mask & (label_image == 0)] = label
        area_px = int(np.count_nonzero(mask))
        state, score = (ObjectState.TRACKED, 1.0) if area_px else (ObjectState.OCCLUDED, 0.0)
        box, centroid = tight_box_xyxy(mask), centroid_xy(mask)
        return TrackedMask(object_id, label, state, score, score, mask, area_px, box, centroid)

    @abstractmethod
    def _move(
        self, masks: dict[str, NDArray[np.float32]], image_rgb: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        """Masks of the last frame -> masks of this frame."""


class HoldTracker(_FloorTracker):
    """Keeps the mask of the prompt unchanged."""

    model_name = "hold"

    def _move(
        self, masks: dict[str, NDArray[np.float32]], image_rgb: NDArray[np.uint8]
    ) -> dict[str, NDArray[np.float32]]:
        return masks


class FlowTracker(_FloorTracker):
    """Warps the last mask by optical flow (dense inverse search, medium preset)."""

    model_name = "flow"

    def reset(self) -> None:
        """Remove all objects and start at frame 0."""
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
        # Backward flow: for each pixel of this frame its position in the last one.
        back_hw2 = self._flow.calc(gray, last_gray, None)
        ys, xs = np.mgrid[: gray.shape[0], : gray.shape[1]].astype(np.float32)
        map_x, map_y = xs + back_hw2[..., 0], ys + back_hw2[..., 1]
        return {object_id: self._warp(mask, map_x, map_y) for object_id, mask in masks.items()}

    @staticmethod
    def _warp(mask: NDArray[np.float32], map_x: NDArray[np.float32], map_y: NDArray[np.float32]) -> NDArray[np.float32]:
        warped = cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        # Binarised on every frame, because a soft edge would blur more and more.
        return (warped >= 0.5).astype(np.float32)


FLOORS = {"hold": HoldTracker, "flow": FlowTracker}


class VideoTracker(Protocol):
    """The part of ``sam2_ros.tracking.tracker.Tracker`` that the evaluation calls."""

    def add_prompt(
        self,
        object_id: str,
        *,
        points: NDArray[np.float32] | None = None,
        labels: NDArray[np.int32] | None = None,
        box: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> int:
        """Prompt for the next frame; see ``Tracker.add_prompt``."""
        ...

    def step(self, image_rgb: NDArray[np.uint8]) -> FrameResult:
        """The next frame, (H, W, 3) uint8 RGB."""
        ...

    def reset(self) -> None:
        """Remove all objects and start at frame 0."""
        ...


def tracker_by_name(model: str | None, checkpoint: Path | None = None, **network: Any) -> VideoTracker:
    """A model of the package by name, or one of the floors "hold" and "flow"; None as in ``load_tracker``.

    Args:
        model, checkpoint, network: arguments of ``load_tracker``; a floor needs only its name.

    Raises:
        ValueError: a floor was given a checkpoint, or the name is unknown.
    """
    if model in FLOORS:
        if checkpoint is not None:
            raise ValueError(f"{model!r} has no weights; leave the checkpoint ({checkpoint}) out")
        return FLOORS[model]()
    from sam2_ros import load_tracker

    tracker: VideoTracker = load_tracker(model=model, checkpoint=checkpoint, **network)
    return tracker


def add_clicks(tracker: VideoTracker, object_id: str, clicks: Iterable[Click]) -> None:
    """Click in the next frame, one click after another: each corrects the mask that the ones before it gave."""
    for click in clicks:
        point, label = np.array([(click.x, click.y)], np.float32), np.array([click.label], np.int32)
        tracker.add_prompt(object_id, points=point, labels=label)


def mask_of(object_id: str, result: FrameResult) -> NDArray[np.bool_]:
    """(H, W) bool mask of an object, empty if it is not in the result."""
    return result[object_id].mask if object_id in result else np.zeros(result.label_image.shape, bool)


def fork(tracker: VideoTracker) -> VideoTracker:
    """An independent copy of a tracker that shares its network.

    A shallow copy is enough, because a tracker replaces its state and never writes to it.
    """
    return copy.copy(tracker)
