"""What the evaluation needs of a tracker, and how it gets one by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.floors import FlowTracker, HoldTracker
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


def tracker_by_name(model: str | None, checkpoint: Path | None = None, device: str = "cpu") -> VideoTracker:
    """A model of the package by its name, or one of the floors "hold" and "flow"; without a name as ``load_tracker``.

    Raises:
        ValueError: a floor was given a checkpoint, or the name is unknown.
    """
    if model in FLOORS:
        if checkpoint is not None:
            raise ValueError(f"{model!r} has no weights; leave the checkpoint ({checkpoint}) out")
        return FLOORS[model]()
    from sam2_ros import load_tracker  # torch is not needed for the floors

    tracker: VideoTracker = load_tracker(model=model, checkpoint=checkpoint, device=device)
    return tracker
