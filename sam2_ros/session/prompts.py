"""A prompt on its way from a message to the tracker. ROS-free: messages are read in ``conversions``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.types import PromptAction, PromptError


@dataclass(frozen=True)
class PromptRequest:
    """One hint about one object. None stands for "not given"."""

    object_id: str = ""  # "" with ADD: the node chooses one
    class_id: str = ""
    action: PromptAction = PromptAction.ADD
    points_xy: NDArray[np.float32] | None = None  # (P, 2) px, or 0..1 of the image size when normalized
    point_labels: NDArray[np.int32] | None = None  # (P,) 1 = on the object, 0 = not
    box_xyxy: NDArray[np.float32] | None = None  # (4,) as points_xy
    mask: NDArray[np.bool_] | None = None  # (H, W)
    normalized: bool = False
    stamp_ns: int = 0  # of the image that the user saw; 0 = the next one
    refine_if_known: bool = False  # ADD becomes REFINE where the object is known by the time it is carried out

    @property
    def stamp_s(self) -> float | None:
        return self.stamp_ns / 1e9 if self.stamp_ns else None

    def in_pixels(self, frame_size: tuple[int, int] | None) -> PromptRequest:
        """The same prompt in pixels of an image of ``frame_size`` (H, W).

        PromptError when the coordinates are normalized and the size is not known, or do not lie in 0..1.
        """
        if not self.normalized or (self.points_xy is None and self.box_xyxy is None):
            return self
        if frame_size is None:
            raise PromptError(
                "normalized coordinates need the image size, and no image has come yet; "
                "send the prompt again when images arrive, or use pixels"
            )
        for name, values in (("points", self.points_xy), ("box_xyxy", self.box_xyxy)):
            if values is not None and not bool(np.all((values >= 0) & (values <= 1))):  # NaN fails too
                raise PromptError(f"normalized {name} must lie in 0..1, got {values.tolist()}")
        height_px, width_px = frame_size
        points_xy = self.points_xy
        if points_xy is not None:
            size_px = np.array([width_px, height_px], dtype=np.float32)
            points_xy = np.minimum(points_xy * size_px, size_px - 1)  # 1.0 means the last pixel, not one past it
        box_xyxy = self.box_xyxy
        if box_xyxy is not None:
            box_xyxy = box_xyxy * np.array([width_px, height_px, width_px, height_px], dtype=np.float32)
        return replace(self, points_xy=points_xy, box_xyxy=box_xyxy, normalized=False)


@dataclass(frozen=True)
class PromptOutcome:
    """What became of one prompt."""

    accepted: bool
    error: str  # "" when accepted
    object_id: str  # "" when a nameless prompt was refused
    label: int  # 0 when refused
