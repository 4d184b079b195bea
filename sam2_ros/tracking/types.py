"""Values that go into the tracker and come out of it: frozen, numpy only, so that code without torch can use them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class PromptError(ValueError):
    """A rejected prompt; the message says what was expected, what came and what to do."""


class PromptAction(enum.IntEnum):
    """What a prompt does to its object. The values are those of ``sam2_ros/msg/Prompt``."""

    ADD = 0  # start a new object
    REFINE = 1  # correct a known object in one frame; its memory is kept
    REPLACE = 2  # discard the memory of a known object and start it again; id and label are kept
    UNDO = 3  # undo its latest prompt


class ObjectState(enum.IntEnum):
    """Tracking state of an object. The values are those of ``sam2_ros/msg/TrackedObject``."""

    PENDING = 0  # prompted but not segmented yet; also while a prompt for a past frame is being replayed
    TRACKED = 1  # visible in this frame
    OCCLUDED = 2  # not visible in this frame, but at most ``lost_after_frames`` ago
    LOST = 3  # not visible for longer than ``lost_after_frames``


class Scene(enum.Enum):
    """What an image is after those before it."""

    STEADY = "steady"  # the same place
    CUT = "cut"  # the first image of another place
    COVERED = "covered"  # nothing can be seen in it
    FROZEN = "frozen"  # to the last bit the image of seconds ago


@dataclass(frozen=True)
class TrackedMask:
    """One object in one frame. Coordinates are pixels of the camera image, origin top left."""

    object_id: str
    label: int  # value in the label image, 1 or more; constant for the lifetime of the object
    state: ObjectState
    score: float  # probability that the object is visible, 0..1 (sigmoid of the object score logit)
    mask_quality: float  # the model's own estimate of the mask's IoU, 0..1
    mask: NDArray[np.bool_]  # (H, W); all False unless the state is TRACKED
    area_px: int  # number of True pixels
    box_xyxy: tuple[int, int, int, int] | None  # tight box, x1 and y1 exclusive; None when the mask is empty
    centroid_xy: tuple[float, float] | None  # mean pixel position; None when the mask is empty
    low_res_logits: NDArray[np.float32] | None = None  # (S/4, S/4) for model input S; > 0 = object
    window_xyxy: tuple[int, int, int, int] | None = None  # what the network looked at; None: the whole image
    doubted_with: str = ""  # the look-alike that it cannot be told from since they met; "": none. Then it has no mask


@dataclass(frozen=True)
class FrameResult:
    """All objects in one frame. ``result["mug"]`` is the object with that id."""

    frame_index: int  # 0 for the first image after construction or ``reset``
    objects: tuple[TrackedMask, ...]  # ordered by label
    label_image: NDArray[np.uint8] | NDArray[np.uint16]  # (H, W); 0 = no object, else the label with the highest logit
    inference_ms: float  # wall time of ``step``, plus that of ``prefetch`` for a prefetched image
    rejected: tuple[tuple[str, str], ...] = field(
        default=()
    )  # (object_id, reason) of prompts that could not be applied
    notes: tuple[tuple[str, str], ...] = ()  # (object_id, what was changed) of prompts accepted since the last image
    scene: Scene = Scene.STEADY  # other values with ``scene_changes`` alone

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


def check_image(image_rgb: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the argument is a non-empty (H, W, 3) uint8 array."""
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8:
        kind = getattr(image_rgb, "dtype", type(image_rgb).__name__)
        raise ValueError(f"image: expected a uint8 array of shape (H, W, 3), RGB, got {kind}")
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or 0 in image_rgb.shape:
        raise ValueError(f"image: expected shape (H, W, 3), RGB, got {image_rgb.shape}")
