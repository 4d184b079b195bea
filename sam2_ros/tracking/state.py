"""All that a tracker knows at one time, as one value: a step that fails leaves the old one in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from sam2_ros.tracking.frame_buffer import PastFrame
from sam2_ros.tracking.prompts import GivenPrompt
from sam2_ros.tracking.track import Track


@dataclass(frozen=True)
class OutOfReach:
    """The latest prompt of an object whose frame is not kept any more."""

    number: int  # of the prompt
    frame_index: int


@dataclass(frozen=True)
class Replay:
    """One object on its way from a past frame to now, beside its old track. Never written to, only replaced."""

    object_id: str
    start: int  # the frame it was rolled back to
    next_index: int  # the frame it goes through next
    tracks: Mapping[int, Track]  # as of before each frame, ``start`` to ``next_index``
    prompts: Mapping[int, tuple[GivenPrompt, ...]]  # in place of those in the buffer, by frame
    out_of_reach: OutOfReach | None  # in place of the state's, once it has arrived


@dataclass
class StreamState:
    """Copied before a change, so its mappings are free to be written to; what they hold is shared and is not."""

    tracks: dict[str, Track] = field(default_factory=dict)  # as of now, ordered by label
    waiting: dict[str, tuple[GivenPrompt, ...]] = field(default_factory=dict)  # prompts for the next frame
    cleared: dict[str, tuple[int, ...]] = field(default_factory=dict)  # frames cleared since the latest one
    past: dict[int, PastFrame] = field(default_factory=dict)  # the last frames, by index, oldest first
    replays: dict[str, Replay] = field(default_factory=dict)  # objects that are behind
    out_of_reach: dict[str, OutOfReach] = field(default_factory=dict)
    rejected: tuple[tuple[str, str], ...] = ()  # (object_id, why), to be told with the next result
    next_frame: int = 0
    next_label: int = 1
    prompts_given: int = 0
    frame_size: tuple[int, int] | None = None  # (H, W) of the latest image
    latest_s: float | None = None  # its time

    def copy(self) -> StreamState:
        return replace(
            self,
            tracks=dict(self.tracks),
            waiting=dict(self.waiting),
            cleared=dict(self.cleared),
            past=dict(self.past),
            replays=dict(self.replays),
            out_of_reach=dict(self.out_of_reach),
        )

    def forget(self, object_ids: Collection[str]) -> None:
        """As if these objects had never been."""
        for mapping in (self.tracks, self.waiting, self.cleared, self.replays, self.out_of_reach):
            for object_id in object_ids:
                mapping.pop(object_id, None)  # type: ignore[attr-defined]
        self.past = {index: each.without(object_ids) for index, each in self.past.items()}

    def keep(self, frame: PastFrame, limit: int) -> None:
        """Add the newest frame and let go of the oldest, so that at most ``limit`` are kept."""
        self.past[frame.frame.index] = frame
        while len(self.past) > limit:
            index = next(iter(self.past))
            for object_id, given in self.past[index].prompts.items():
                if gone := _later(self.out_of_reach.get(object_id), given, index):
                    self.out_of_reach[object_id] = gone
            for object_id, replay in self.replays.items():
                gone = _later(replay.out_of_reach, self.prompts_of(object_id, index), index)
                self.replays[object_id] = replace(replay, out_of_reach=gone)
            del self.past[index]
        oldest = min(self.past, default=self.next_frame)
        for replay in self.replays.values():
            assert replay.next_index >= oldest, f"{replay.object_id}: frame {replay.next_index} was dropped too early"
            self.replays[replay.object_id] = replace(
                replay,
                start=max(replay.start, oldest),
                tracks={index: track for index, track in replay.tracks.items() if index >= oldest},
                prompts={index: given for index, given in replay.prompts.items() if index >= oldest},
            )

    def prompts_of(self, object_id: str, index: int) -> tuple[GivenPrompt, ...]:
        """What was asked of an object in a kept frame, with what has been changed since."""
        given = self.past[index].prompts.get(object_id, ())
        replay = self.replays.get(object_id)
        return given if replay is None else replay.prompts.get(index, given)


def _later(gone: OutOfReach | None, given: tuple[GivenPrompt, ...], index: int) -> OutOfReach | None:
    latest = max((each.number for each in given), default=0)
    return OutOfReach(latest, index) if latest > (0 if gone is None else gone.number) else gone
