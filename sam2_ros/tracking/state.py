"""The state of a tracker: its objects, their memory, waiting prompts and the buffer of past frames.

``StreamState`` is one value: every change is made to a copy that replaces it at the end, so a call that raises leaves
the tracker unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, FrameScore, MemorySelection
from sam2_ros.tracking.prompts import AcceptedPrompt
from sam2_ros.tracking.rules.lookalikes import Pair
from sam2_ros.tracking.rules.scene_changes import SceneWatch
from sam2_ros.tracking.rules.sightings import Sighting
from sam2_ros.tracking.types import ObjectState, Scene
from sam2_ros.tracking.zoom.window import Window

T = TypeVar("T")

_GOOD = FrameScore()


def scores_of(frames: Mapping[int, FrameMemory]) -> dict[int, FrameScore]:
    """What a policy decides by; a frame without a score is a good one."""
    return {frame: memory.score or _GOOD for frame, memory in frames.items()}


@dataclass(frozen=True)
class When:
    """What an image is in its stream."""

    stamp_s: float | None = None  # when it was taken; None if unknown
    scene: Scene = Scene.STEADY
    time_s: float | None = None  # by a clock that neither jumps nor goes back, for rules that count seconds


@dataclass(frozen=True)
class Frame:
    """One encoded image, or an encoded part of it."""

    index: int
    features: ImageFeatures  # batch 1
    height: int  # of the camera image, px
    width: int
    window: Window | None = None  # the part that is encoded; None: all of it
    image_rgb: NDArray[np.uint8] | None = None  # (H, W, 3), where windows of it may be looked at
    when: When = When()

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def encoded_hw(self) -> tuple[int, int]:
        """Size of the encoded part, px."""
        return self.size_hw if self.window is None else (self.window.height, self.window.width)

    def kept(self, with_image: bool) -> Frame:
        """The frame for the buffer; the caller may reuse the array of its image."""
        return replace(self, image_rgb=self.image_rgb.copy() if with_image and self.image_rgb is not None else None)


@dataclass(frozen=True)
class RawFrame:
    """An image that is not encoded yet: with no object to track in it, encoding waits until a prompt needs it."""

    index: int
    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    when: When = When()

    @property
    def height(self) -> int:
        return self.image_rgb.shape[0]

    @property
    def width(self) -> int:
        return self.image_rgb.shape[1]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width

    def kept(self) -> RawFrame:
        """The frame for the buffer; the caller may reuse the array of its image."""
        return replace(self, image_rgb=self.image_rgb.copy())


@dataclass(frozen=True)
class InputFrame:
    """An image that is not encoded yet, as the model's input; kept in the buffer where the image would be larger."""

    index: int
    inputs_13ss: Tensor  # float32, on the device
    height: int  # of the camera image, px
    width: int
    when: When = When()

    image_rgb = None  # as in the other kinds of frames: without it there are no windows

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class PrefetchedImage:
    """An image whose features were computed ahead of its ``step``; see ``Tracker.prefetch``."""

    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    features: ImageFeatures | None  # batch 1; None where ``step`` decides what part of the image it encodes
    network: SAM2  # that computed them
    encode_ms: float  # wall time

    def as_frame(self, index: int, when: When) -> Frame | RawFrame:
        raw = RawFrame(index, self.image_rgb, when)
        if self.features is None:
            return raw
        return Frame(index, self.features, raw.height, raw.width, image_rgb=self.image_rgb, when=when)


@dataclass
class Track:
    """One tracked object: its identity, its state and its bounded memory, as of one frame."""

    object_id: str
    label: int
    state: ObjectState = ObjectState.PENDING
    last_seen_frame: int = -1
    conditioning: dict[int, FrameMemory] = field(default_factory=dict)
    recent: dict[int, FrameMemory] = field(default_factory=dict)
    visible_in_a_row: int = 0  # frames; not saved, so it starts at 0 after ``load_state``
    visible_since_s: float | None = None  # stamp of the first of them; likewise
    last_seen_s: float | None = None  # time (``When.time_s``) of ``last_seen_frame``
    window: Window | None = None  # with zoom: the part of the next image to look for it in; None: the whole image
    hidden_frame: int = -1  # the last one in which it was not visible
    is_sought: bool = False  # since a cut: only conditioning frames are attended to, and nothing is remembered
    areas_px: tuple[int, ...] = ()  # of its latest masks that were not empty, for a policy that finds anchors

    def copy(self) -> Track:
        """An independent track; the memories are shared, because nothing writes to them."""
        return replace(self, conditioning=dict(self.conditioning), recent=dict(self.recent))

    def after_cut(self) -> Track:
        """The track where another place begins: what the old one looked like is not what just was."""
        state = ObjectState.OCCLUDED if self.state is ObjectState.TRACKED else self.state
        cut = replace(self.copy(), recent={}, state=state, visible_in_a_row=0, visible_since_s=None, window=None)
        cut.is_sought = self.has_memory
        return cut

    def with_memory_of(self, other: Track) -> Track:
        return replace(self, conditioning=dict(other.conditioning), recent=dict(other.recent), areas_px=other.areas_px)

    @property
    def has_memory(self) -> bool:
        return bool(self.conditioning)

    def select(self, policy: BankPolicy, frame: int) -> MemorySelection:
        return policy.select(frame, scores_of(self.conditioning), scores_of(self.recent))

    @property
    def frames(self) -> dict[int, FrameMemory]:
        return {**self.recent, **self.conditioning}

    def remember(self, policy: BankPolicy, frame: int, memory: FrameMemory, is_conditioning: bool) -> None:
        """Add the memory of the newest frame and drop the memories that no later frame attends to."""
        assert memory.spatial_bchw is not None
        # Always bfloat16, as the official predictor stores it: a result must not depend on how old a memory is.
        kept = FrameMemory(memory.spatial_bchw.to(torch.bfloat16).contiguous(), memory.pointer_bc.clone(), memory.score)
        (self.conditioning if is_conditioning else self.recent)[frame] = kept
        for old in policy.surplus_conditioning(scores_of(self.conditioning)):
            self.recent[old] = self.conditioning.pop(old)
        self.drop_old(policy, frame + 1)

    def demote(self, policy: BankPolicy, frame: int, next_frame: int) -> None:
        """Turn a conditioning frame into a tracked one, which is dropped if it is too old for that."""
        self.recent[frame] = self.conditioning.pop(frame)
        self.drop_old(policy, next_frame)

    def drop_old(self, policy: BankPolicy, next_frame: int) -> None:
        """Drop what no frame from ``next_frame`` on attends to."""
        for old in policy.expired(next_frame, scores_of(self.recent)):
            del self.recent[old]
        for old in policy.without_spatial(next_frame, scores_of(self.recent)):
            self.recent[old] = replace(self.recent[old], spatial_bchw=None)

    def update_state(
        self,
        frame: int,
        is_visible: bool,
        lost_after_frames: int,
        recover_after_frames: int = 1,
        stamp_s: float | None = None,
        lost_after_s: float = 0.0,
        recover_after_s: float = 0.0,
    ) -> None:
        """Set the state after a frame.

        An OCCLUDED or LOST object becomes TRACKED when it was visible in ``recover_after_frames`` consecutive frames.
        Seconds above 0 take the place of frames where the stamps that they need are known.
        """
        self.visible_in_a_row = self.visible_in_a_row + 1 if is_visible else 0
        if not is_visible:
            self.hidden_frame, self.visible_since_s = frame, None
        elif self.visible_since_s is None:
            self.visible_since_s = stamp_s
        is_missing = self.state in (ObjectState.OCCLUDED, ObjectState.LOST)
        is_believed = self.visible_in_a_row >= recover_after_frames
        if recover_after_s > 0 and stamp_s is not None and self.visible_since_s is not None:
            is_believed = stamp_s - self.visible_since_s >= recover_after_s
        is_seen = is_visible and (not is_missing or is_believed)
        if is_seen or self.state == ObjectState.PENDING:  # the user who prompted it saw it
            self.last_seen_frame, self.last_seen_s = frame, stamp_s
        is_gone = frame - self.last_seen_frame > lost_after_frames
        if lost_after_s > 0 and stamp_s is not None and self.last_seen_s is not None:
            is_gone = stamp_s - self.last_seen_s > lost_after_s
        if is_seen:
            self.state = ObjectState.TRACKED
        elif is_gone:
            self.state = ObjectState.LOST
        else:
            self.state = ObjectState.OCCLUDED


@dataclass(frozen=True)
class PastFrame:
    """A processed frame with what is needed to replay it. Immutable, contents included."""

    frame: Frame | RawFrame | InputFrame
    stamp_s: float | None
    tracks: Mapping[str, Track]  # as of before this frame; later tracks share the memories
    prompts: Mapping[str, tuple[AcceptedPrompt, ...]]  # applied to this frame
    cleared: Mapping[str, tuple[int, ...]]  # frames passed to ``clear_prompts`` just before this frame
    num_objects: int  # that were tracked in it, those included that were removed since
    sightings: Mapping[str, Sighting] = field(default_factory=dict)  # of those with masks, with ``crowd_suppression``

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
            sightings=_without(self.sightings, object_ids),
        )

    def corrected(self, track: Track, given: tuple[AcceptedPrompt, ...]) -> PastFrame:
        """The same frame with a replayed track and the prompts of one object."""
        return replace(
            self,
            tracks={**self.tracks, track.object_id: track},
            prompts={**self.prompts, track.object_id: given},
            num_objects=self.num_objects + (track.object_id not in self.tracks),
        )


def _without(mapping: Mapping[str, T], object_ids: Collection[str]) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key not in object_ids}


@dataclass(frozen=True)
class OutOfReach:
    """The latest prompt of an object whose frame has left the buffer: it can no longer be undone."""

    number: int  # ``AcceptedPrompt.number``
    frame_index: int


@dataclass(frozen=True)
class Replay:
    """An object that was rolled back and is being propagated to the present again, beside its old track. Immutable."""

    object_id: str
    start: int  # the frame it was rolled back to
    next_index: int  # the frame to process next
    tracks: Mapping[int, Track]  # as of before each frame from ``start`` to ``next_index``
    prompts: Mapping[int, tuple[AcceptedPrompt, ...]]  # by frame; they replace those in the buffer
    out_of_reach: OutOfReach | None  # replaces the state's when the replay is finished


@dataclass
class StreamState:
    """All that a tracker knows. Copied before each change: the mappings may be written to, their values may not."""

    tracks: dict[str, Track] = field(default_factory=dict)  # current, ordered by label
    waiting: dict[str, tuple[AcceptedPrompt, ...]] = field(default_factory=dict)  # prompts for the next frame
    cleared: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # frames passed to ``clear_prompts`` since the latest frame
    past: dict[int, PastFrame] = field(default_factory=dict)  # the buffer: the latest frames by index, oldest first
    replays: dict[str, Replay] = field(default_factory=dict)  # of the objects that are behind
    out_of_reach: dict[str, OutOfReach] = field(default_factory=dict)
    rejected: tuple[tuple[str, str], ...] = ()  # (object_id, reason), reported with the next result
    notes: tuple[tuple[str, str], ...] = ()  # (object_id, what was changed to make its prompt fit), as ``rejected``
    next_frame: int = 0
    next_label: int = 1
    prompts_given: int = 0
    frame_size: tuple[int, int] | None = None  # (H, W) of the latest image
    latest_s: float | None = None  # its stamp
    watch: SceneWatch = field(default_factory=SceneWatch)  # with ``scene_changes``
    pairs: Mapping[tuple[str, str], Pair] = field(default_factory=dict)  # with ``lookalike_doubt``

    @property
    def kept_s(self) -> dict[int, float | None]:
        """Stamps of the frames in the buffer, by index; None where one has none."""
        return {index: each.stamp_s for index, each in self.past.items()}

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
        """Remove every trace of these objects."""
        for mapping in (self.tracks, self.waiting, self.cleared, self.replays, self.out_of_reach):
            for object_id in object_ids:
                mapping.pop(object_id, None)  # type: ignore[attr-defined]
        self.past = {index: each.without(object_ids) for index, each in self.past.items()}
        self.forget_pairs(object_ids)

    def forget_pairs(self, object_ids: Collection[str]) -> None:
        """Nothing is known of these objects and their look-alikes: the next frame begins anew."""
        self.pairs = {pair: each for pair, each in self.pairs.items() if not set(pair) & set(object_ids)}

    def reject_prompts(self, object_id: str, why: str) -> None:
        """Reject an object's waiting prompts, which the next result reports; an object that has nothing else goes."""
        self.rejected += ((object_id, why),)
        del self.waiting[object_id]
        if not self.tracks[object_id].has_memory and object_id not in self.replays:
            self.forget([object_id])

    def keep(self, frame: PastFrame, limit: int) -> None:
        """Add the newest frame to the buffer and drop the oldest ones beyond ``limit``."""
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

    def prompts_of(self, object_id: str, index: int) -> tuple[AcceptedPrompt, ...]:
        """The prompts of an object for a frame in the buffer, with the changes of a replay in progress."""
        given = self.past[index].prompts.get(object_id, ())
        replay = self.replays.get(object_id)
        return given if replay is None else replay.prompts.get(index, given)

    def objects_in(self, index: int) -> int:
        """Number of objects in a frame in the buffer, had those that are replayed been there in time."""
        past = self.past[index]
        late = [r for r in self.replays.values() if r.start <= index and r.object_id not in past.tracks]
        return past.num_objects + len(late)


def _later(gone: OutOfReach | None, given: tuple[AcceptedPrompt, ...], index: int) -> OutOfReach | None:
    latest = max((each.number for each in given), default=0)
    return OutOfReach(latest, index) if latest > (0 if gone is None else gone.number) else gone
