"""What the evaluation needs of a tracker, and how it gets one by name."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.floors import FlowTracker, HoldTracker
from sam2_ros.evaluation.prompt_sampling import Click
from sam2_ros.tracking.types import FrameResult

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
        """Forget all objects and start at frame 0."""
        ...


def tracker_by_name(model: str | None, checkpoint: Path | None = None, **network: Any) -> VideoTracker:
    """A model of the package by its name, or one of the floors "hold" and "flow"; without a name as ``load_tracker``.

    Args:
        model, checkpoint, network: arguments of ``load_tracker``; floors need no more than a name.

    Raises:
        ValueError: a floor was given a checkpoint, or the name is unknown.
    """
    if model in FLOORS:
        if checkpoint is not None:
            raise ValueError(f"{model!r} has no weights; leave the checkpoint ({checkpoint}) out")
        return FLOORS[model]()
    from sam2_ros import load_tracker  # torch is not needed for the floors

    tracker: VideoTracker = load_tracker(model=model, checkpoint=checkpoint, **network)
    return tracker


def add_clicks(tracker: VideoTracker, object_id: str, clicks: Iterable[Click]) -> None:
    """Click in the next frame, one click after another: each corrects the mask that those before it gave."""
    for click in clicks:
        point, label = np.array([(click.x, click.y)], np.float32), np.array([click.label], np.int32)
        tracker.add_prompt(object_id, points=point, labels=label)


def mask_of(object_id: str, result: FrameResult) -> NDArray[np.bool_]:
    """(H, W) bool; empty for an object that is not there."""
    return result[object_id].mask if object_id in result else np.zeros(result.label_image.shape, bool)


def fork(tracker: VideoTracker) -> VideoTracker:
    """A second tracker that goes on from here by itself; the network is shared.

    A tracker never writes to its state, it puts another in its place, so that a shallow copy is enough.
    """
    return copy.copy(tracker)
