"""What goes into the tracker and what comes out: plain frozen values, numpy only."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class PromptError(ValueError):
    """A prompt that cannot be used; the message says what was expected, what came and what to do."""


class PromptAction(enum.IntEnum):
    """What a prompt does to its object. The values are those of ``sam2_ros/msg/Prompt``."""

    ADD = 0  # start a new object
    REFINE = 1  # correct a known object in one frame; its memory stays
    REPLACE = 2  # forget what is remembered of a known object and start it again; id and label stay
    UNDO = 3  # take its latest prompt back


class ObjectState(enum.IntEnum):
    """Life of an object. The values are those of ``sam2_ros/msg/TrackedObject``."""

    PENDING = 0  # prompted, not yet segmented; also while a prompt for a past frame is brought up to now
    TRACKED = 1  # visible in this frame
    OCCLUDED = 2  # not visible now, was visible recently
    LOST = 3  # not visible for longer than ``lost_after_frames``


@dataclass(frozen=True)
class TrackedMask:
    """One object in one frame. Coordinates are pixels of the camera image, origin top left."""

    object_id: str
    label: int  # value in the label image, 1.., the same for the object's whole life
    state: ObjectState
    score: float  # probability that the object is visible, 0..1 (sigmoid of the object score logit)
    mask_quality: float  # the model's own estimate of the mask's IoU, 0..1
    mask: NDArray[np.bool_]  # (H, W); all False while the object is not visible
    area_px: int  # number of True pixels
    box_xyxy: tuple[int, int, int, int] | None  # tight box, x1 and y1 exclusive; None when the mask is empty
    centroid_xy: tuple[float, float] | None  # mean pixel position; None when the mask is empty
    low_res_logits: NDArray[np.float32] | None = None  # (S/4, S/4) for model input S; > 0 = object


@dataclass(frozen=True)
class FrameResult:
    """Everything known about one frame. ``result["mug"]`` is the object of that id."""

    frame_index: int  # 0 for the first image after construction or ``reset``
    objects: tuple[TrackedMask, ...]  # ordered by label
    label_image: NDArray[np.uint8] | NDArray[np.uint16]  # (H, W); 0 = nothing, else the label of the highest logit
    inference_ms: float  # wall time of ``step``, and of ``encode_ahead`` where that went before it
    rejected: tuple[tuple[str, str], ...] = field(default=())  # (object_id, why) of prompts that could not be used

    def __getitem__(self, object_id: str) -> TrackedMask:
        for tracked in self.objects:
            if tracked.object_id == object_id:
                return tracked
        known = ", ".join(o.object_id for o in self.objects) or "none"
        raise KeyError(f"no object {object_id!r} in this frame; objects here: {known}")

    def __contains__(self, object_id: object) -> bool:
        return any(tracked.object_id == object_id for tracked in self.objects)

    def __iter__(self) -> Iterator[TrackedMask]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)
