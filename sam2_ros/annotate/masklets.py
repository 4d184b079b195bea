"""A masklet, one object's masks through a recording, as immutable values and as JSON.

A frame's mask is kept as COCO RLE, so that a masklet of thousands of frames stays small in memory and on disk.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.masks import Rle, decode_rle, encode_rle
from sam2_ros.tracking.types import ObjectState, TrackedMask

# Distinct on photographs and from each other; given to masklets in this order, then again.
PALETTE_RGB = (
    *((230, 25, 75), (60, 180, 75), (0, 130, 200), (255, 225, 25), (245, 130, 48), (145, 30, 180), (70, 240, 240)),
    *((240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (128, 0, 0)),
)


class ProjectError(ValueError):
    """A change or file that a project rejects; the message says what was expected and what came. Nothing changed."""


class MaskSource(str, enum.Enum):
    """How the mask of a frame was made."""

    CLICK = "click"  # clicks or a box
    BRUSH = "brush"  # painted, or erased, by hand
    PROPAGATED = "propagated"  # tracked from other frames
    AUTOMATIC = "automatic"  # the mask generator or a detector on a key frame
    IMPORTED = "imported"  # from a data set, or from what the node recorded

    @property
    def by_hand(self) -> bool:
        """Whether a person made it: such a frame counts as edited."""
        return self in (MaskSource.CLICK, MaskSource.BRUSH)


class Verdict(str, enum.Enum):
    """What the verification said of a masklet (SAM 2 paper, section 5)."""

    UNVERIFIED = "unverified"
    ACCEPTED = "accepted"  # all its frames are locked
    REJECTED = "rejected"  # to be corrected; a correction makes it UNVERIFIED again
    NOT_TRACKABLE = "not_trackable"  # the object has no clear outline or identity: left out of the data set


class Origin(str, enum.Enum):
    """How a masklet was started."""

    MANUAL = "manual"
    AUTOMATIC = "automatic"
    IMPORTED = "imported"


@dataclass(frozen=True)
class FramePrompt:
    """Clicks and at most one box in one frame, in the order given, in pixels of the recording's frames."""

    points_xy: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()  # as many: 1 = on the object, 0 = not on it
    box_xyxy: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points_xy) != len(self.labels) or any(label not in (0, 1) for label in self.labels):
            raise ProjectError(
                f"prompt: expected a label of 0 or 1 for each of {len(self.points_xy)} points, got {list(self.labels)}"
            )
        if not self.points_xy and self.box_xyxy is None:
            raise ProjectError("prompt: expected points or a box, got neither")

    @property
    def click_count(self) -> int:
        """What it cost: a click each point, two a box."""
        return len(self.points_xy) + (0 if self.box_xyxy is None else 2)


@dataclass(frozen=True)
class MaskletFrame:
    """One object in one frame. A frame without one is not annotated; an empty mask says "not visible"."""

    rle: Rle  # of (H, W), the size of the recording's frames
    source: MaskSource
    state: ObjectState = ObjectState.TRACKED  # the tracker's; OCCLUDED or LOST: the mask is empty
    score: float = 1.0  # probability that the object is visible, 0..1
    quality: float = 1.0  # predicted IoU, 0..1; 1 for what a person painted
    prompts: tuple[FramePrompt, ...] = ()
    locked: bool = False  # a barrier of propagation, which starts from it too; it is not changed until unlocked

    @staticmethod
    def of_mask(
        mask: NDArray[np.bool_],
        source: MaskSource,
        *,
        score: float = 1.0,
        quality: float = 1.0,
        prompts: Iterable[FramePrompt] = (),
        locked: bool = False,
    ) -> MaskletFrame:
        """From a (H, W) bool mask; an empty one has the state OCCLUDED."""
        state = ObjectState.TRACKED if mask.any() else ObjectState.OCCLUDED
        return MaskletFrame(encode_rle(mask), source, state, score, quality, tuple(prompts), locked)

    @staticmethod
    def of_tracked(
        tracked: TrackedMask, source: MaskSource = MaskSource.PROPAGATED, prompts: Iterable[FramePrompt] = ()
    ) -> MaskletFrame:
        """From what the tracker returned: its own state, score and predicted IoU."""
        rle = encode_rle(tracked.mask)
        return MaskletFrame(rle, source, tracked.state, tracked.score, tracked.mask_quality, tuple(prompts))

    @property
    def visible(self) -> bool:
        return self.state is ObjectState.TRACKED

    @property
    def doubtfulness(self) -> float:
        """0..1: how much a person should check this frame; 0 for locked frames and those that a person made.

        A frame in which the object is not visible, or hardly, is as doubtful as the score is near 1/2; one in which it
        is visible as its predicted IoU is low.
        """
        if self.locked or self.source.by_hand:
            return 0.0
        unsure = 1.0 - abs(2.0 * self.score - 1.0)
        return max(unsure, 1.0 - self.quality) if self.visible else unsure

    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool."""
        return decode_rle(self.rle)


@dataclass(frozen=True)
class Masklet:
    """One object through a recording."""

    masklet_id: str  # unique in its recording and not used again
    name: str
    class_name: str = ""
    color_rgb: tuple[int, int, int] = PALETTE_RGB[0]
    origin: Origin = Origin.MANUAL
    phase: int | None = None  # 1, 2 or 3: the annotation mode in which it was begun
    locked: bool = False  # nothing but this may change
    hidden: bool = False
    verdict: Verdict = Verdict.UNVERIFIED
    note: str = ""  # of the verifier
    frames: Mapping[int, MaskletFrame] = field(default_factory=dict)  # by frame index

    def is_frame_locked(self, index: int) -> bool:
        """Whether the mask of a frame may not change: by its own lock, the masklet's, or because it is accepted."""
        frame = self.frames.get(index)
        return frame is not None and (frame.locked or self.locked or self.verdict is Verdict.ACCEPTED)

    @property
    def frame_indices(self) -> tuple[int, ...]:
        """The annotated frames, ascending."""
        return tuple(sorted(self.frames))

    @property
    def locked_frames(self) -> tuple[int, ...]:
        return tuple(index for index in self.frame_indices if self.is_frame_locked(index))

    def is_kept(self, index: int) -> bool:
        """Whether propagation leaves a frame as it is and learns from it: it is locked, or a person made it."""
        frame = self.frames.get(index)
        return frame is not None and (frame.source.by_hand or self.is_frame_locked(index))

    @property
    def click_count(self) -> int:
        """Of the prompts that are still there; the interaction log also has those undone."""
        return sum(prompt.click_count for frame in self.frames.values() for prompt in frame.prompts)

    def with_frames(self, frames: Mapping[int, MaskletFrame]) -> Masklet:
        """These frames added or replaced; a REJECTED masklet goes back to the queue."""
        verdict = Verdict.UNVERIFIED if self.verdict is Verdict.REJECTED else self.verdict
        return replace(self, frames={**self.frames, **frames}, verdict=verdict)


def masklet_to_json(masklet: Masklet) -> dict[str, Any]:
    """Plain values for ``json``."""
    return {
        "id": masklet.masklet_id,
        "name": masklet.name,
        "class": masklet.class_name,
        "color_rgb": list(masklet.color_rgb),
        "origin": masklet.origin.value,
        "phase": masklet.phase,
        "locked": masklet.locked,
        "hidden": masklet.hidden,
        "verdict": masklet.verdict.value,
        "note": masklet.note,
        "frames": {str(index): frame_to_json(masklet.frames[index]) for index in masklet.frame_indices},
    }


def frame_to_json(frame: MaskletFrame) -> dict[str, Any]:
    """Plain values for ``json``; default values are left out."""
    values: dict[str, Any] = {
        "rle": frame.rle,
        "source": frame.source.value,
        "state": frame.state.name,
        "score": round(frame.score, 4),
        "quality": round(frame.quality, 4),
    }
    if frame.prompts:
        values["prompts"] = [
            {"points": [list(xy) for xy in each.points_xy], "labels": list(each.labels), "box": each.box_xyxy}
            for each in frame.prompts
        ]
    if frame.locked:
        values["locked"] = True
    return values


def masklet_from_json(values: Any) -> Masklet:
    """The masklet of ``masklet_to_json``.

    Raises:
        ProjectError: not such values; what is missing or wrong.
    """
    try:
        red, green, blue = (int(channel) for channel in values["color_rgb"])
        return Masklet(
            masklet_id=str(values["id"]),
            name=str(values["name"]),
            class_name=str(values["class"]),
            color_rgb=(red, green, blue),
            origin=Origin(values["origin"]),
            phase=None if values["phase"] is None else int(values["phase"]),
            locked=bool(values["locked"]),
            hidden=bool(values["hidden"]),
            verdict=Verdict(values["verdict"]),
            note=str(values["note"]),
            frames={int(index): frame_from_json(frame) for index, frame in values["frames"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProjectError(
            f"expected a masklet as JSON, got something else ({type(error).__name__}: {error})"
        ) from error


def frame_from_json(values: Mapping[str, Any]) -> MaskletFrame:
    """The frame of ``frame_to_json``; KeyError, TypeError or ValueError for other values."""
    height, width = values["rle"]["size"]
    counts = values["rle"]["counts"]
    if not isinstance(counts, str):
        raise TypeError(f"counts: expected a text, got {type(counts).__name__}")
    return MaskletFrame(
        rle={"size": [int(height), int(width)], "counts": counts},
        source=MaskSource(values["source"]),
        state=ObjectState[values["state"]],
        score=float(values["score"]),
        quality=float(values["quality"]),
        prompts=tuple(_prompt_from_json(each) for each in values.get("prompts", ())),
        locked=bool(values.get("locked", False)),
    )


def _prompt_from_json(values: Mapping[str, Any]) -> FramePrompt:
    box = values["box"]
    return FramePrompt(
        tuple((float(x), float(y)) for x, y in values["points"]),
        tuple(int(label) for label in values["labels"]),
        None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
    )
