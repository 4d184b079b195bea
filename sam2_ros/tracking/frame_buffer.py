"""The last frames, kept so that a prompt can be applied to the image that the user saw."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from sam2_ros.tracking.prompts import GivenPrompt
from sam2_ros.tracking.propagation import Frame, RawFrame
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.types import PromptError

T = TypeVar("T")


@dataclass(frozen=True)
class PastFrame:
    """A frame that was processed: what is needed to go through it again. Nothing in it is ever written to."""

    frame: Frame | RawFrame
    stamp_s: float | None
    tracks: Mapping[str, Track]  # as of before this frame; the memories are shared with later ones
    prompts: Mapping[str, tuple[GivenPrompt, ...]]  # that were applied to it
    cleared: Mapping[str, tuple[int, ...]]  # frames whose prompts were cleared just before it

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the camera image."""
        return self.frame.height, self.frame.width

    def without(self, object_ids: Collection[str]) -> PastFrame:
        return replace(
            self,
            tracks=_without(self.tracks, object_ids),
            prompts=_without(self.prompts, object_ids),
            cleared=_without(self.cleared, object_ids),
        )

    def corrected(self, track: Track, given: tuple[GivenPrompt, ...]) -> PastFrame:
        """With another past of one object."""
        return replace(
            self,
            tracks={**self.tracks, track.object_id: track},
            prompts={**self.prompts, track.object_id: given},
        )


def _without(mapping: Mapping[str, T], object_ids: Collection[str]) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key not in object_ids}


def frame_of_index(past: Mapping[int, PastFrame], next_frame: int, frame_index: int) -> int:
    """Check that a prompt can be applied to this frame: a past one that is kept, or the next.

    Raises:
        PromptError: how old it is and how far back the kept frames reach.
    """
    if isinstance(frame_index, bool) or not isinstance(frame_index, int) or not 0 <= frame_index <= next_frame:
        raise PromptError(f"frame_index: expected a frame from 0 to {next_frame} (the next), got {frame_index!r}")
    if frame_index == next_frame or frame_index in past:
        return frame_index
    latest = next_frame - 1
    raise PromptError(
        f"frame {frame_index} is too old: it came {latest - frame_index} frames before the latest ({latest}), and "
        f"{reach(past)}; prompt a later frame, or keep more (buffer_frames)"
    )


def frame_of_stamp(past: Mapping[int, PastFrame], next_frame: int, latest_s: float | None, stamp_s: float) -> int:
    """The frame that shows what an image of that time showed: the nearest kept one; the next one for later times.

    Raises:
        PromptError: how old it is and how far back the kept frames reach.
    """
    if not math.isfinite(stamp_s):
        raise PromptError(f"stamp: expected a finite time in seconds, got {stamp_s}")
    if next_frame == 0:
        return next_frame
    if latest_s is None:
        raise PromptError(f"stamp: the latest image came without one, so no image can be found for {stamp_s:.3f} s")
    if stamp_s > latest_s:
        return next_frame
    times_s = {index: each.stamp_s for index, each in past.items() if each.stamp_s is not None}
    if not times_s or stamp_s < min(times_s.values()):
        seconds = f", {latest_s - min(times_s.values()):.2f} s" if times_s else ""
        raise PromptError(
            f"the image is too old: taken {latest_s - stamp_s:.2f} s before the latest, and {reach(past)}{seconds}; "
            "prompt a newer image, or keep more (buffer_frames)"
        )
    return min(times_s, key=lambda index: abs(times_s[index] - stamp_s))


def reach(past: Mapping[int, PastFrame]) -> str:
    """How far back, for a refusal."""
    if not past:
        return "no past frames are kept"
    return f"what is kept reaches back {len(past) - 1} frames, to frame {min(past)}"
