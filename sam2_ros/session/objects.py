"""The prompts that reach a session, and what it knows about the tracked objects beyond the tracker.

``ObjectRegistry`` is used on the model thread only; its outputs (``TrackingView``, ``PromptOutcome``) are frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.saved_values import SavedStateError
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.persistence import SavedObject, SessionFileError, SessionSnapshot
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptAction, PromptError, TrackedMask

if TYPE_CHECKING:
    from sam2_ros.tracking.image_predictor import ImagePredictor


@dataclass(frozen=True)
class PromptRequest:
    """One prompt for one object. None means "not given"."""

    object_id: str = ""  # "" with ADD: the session chooses one
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

        PromptError when the coordinates are normalized and the size is not known, or are no such coordinates.
        """
        if not self.normalized or (self.points_xy is None and self.box_xyxy is None):
            return self
        if frame_size is None:
            raise PromptError(
                "normalized coordinates need the image size, and no image has come yet; "
                "send the prompt again when images arrive, or use pixels"
            )
        # A box may reach outside and is clipped later, as one in pixels; far outside it is one in pixels.
        for name, values, low, high in (("points", self.points_xy, 0, 1), ("box_xyxy", self.box_xyxy, -1, 2)):
            if values is not None and not bool(np.all((values >= low) & (values <= high))):  # NaN fails too
                raise PromptError(f"normalized {name} must lie in {low}..{high}, got {values.tolist()}")
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
    """Whether one prompt was accepted, and why not."""

    accepted: bool
    error: str  # "" when accepted
    object_id: str  # "" when a nameless prompt was rejected
    label: int  # 0 when rejected
    note: str = ""  # what was changed to make it fit the image, such as a clipped box


class TrackerLike(Protocol):
    """The part of ``sam2_ros.tracking.tracker.Tracker`` that a session uses."""

    @property
    def object_ids(self) -> tuple[str, ...]: ...
    @property
    def model_name(self) -> str: ...
    def label_of(self, object_id: str) -> int: ...
    @property
    def notes(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def frames_behind(self) -> Mapping[str, int]: ...
    def add_prompt(
        self,
        object_id: str,
        *,
        points: Any,
        labels: Any,
        box: Any,
        mask: Any,
        action: PromptAction,
        stamp_s: float | None,
        frame_size: tuple[int, int] | None,
    ) -> int: ...
    def undo(self, object_id: str) -> None: ...
    def step(self, image: NDArray[np.uint8], stamp_s: float | None, time_s: float | None) -> FrameResult: ...
    def image_predictor(self) -> ImagePredictor: ...
    def catch_up(self, budget_ms: float | None) -> int: ...
    def save_state(self) -> dict[str, Any]: ...
    def load_state(self, state: object) -> None: ...
    def remove(self, object_id: str) -> None: ...
    def clear(self) -> None: ...
    def reset(self) -> None: ...


@dataclass(frozen=True)
class ObjectView:
    """One object as of the latest image, with what only the session knows."""

    tracked: TrackedMask
    class_id: str
    first_seen_ns: int  # stamp of the first image in which it was visible; 0 = never yet
    last_seen_ns: int  # stamp of the latest such image; 0 = never yet


@dataclass(frozen=True)
class TrackingView:
    """All objects as of one image; without one (``result`` None) they are all PENDING."""

    header: Any  # of the image message, passed on unchanged; None before the first image
    stamp_ns: int
    image_rgb: NDArray[np.uint8] | None  # (H, W, 3)
    result: FrameResult | None
    objects: tuple[ObjectView, ...]  # ordered by label
    frames_dropped: int
    frames_behind: Mapping[str, int] = field(default_factory=dict)  # by object; only those that are being replayed
    age_is_known: bool = True  # the stamp and the node's clock agree about the time

    @property
    def frame_index(self) -> int:
        return self.result.frame_index if self.result is not None else 0

    @property
    def inference_ms(self) -> float:
        return self.result.inference_ms if self.result is not None else 0.0


@dataclass
class _Record:
    class_id: str
    first_seen_ns: int = 0
    last_seen_ns: int = 0
    latest: TrackedMask | None = None
    lost_since_ns: int | None = None  # time of the first image of those in a row in which it was LOST; not saved


class ObjectRegistry:
    """Applies prompts and removals to a tracker and remembers class ids and stamps of its objects.

    Args:
        tracker: on the model thread.
        parameters: the current ones. Without ``prompt_buffer_s`` stamps of prompts are ignored.
    """

    def __init__(self, tracker: TrackerLike, parameters: Callable[[], NodeParameters] = NodeParameters) -> None:
        self._tracker = tracker
        self._parameters = parameters
        self._prompts_have_stamps = parameters().prompt_buffer_s > 0
        self._records: dict[str, _Record] = {}
        self._next_number = 1
        self._made_room: tuple[str, ...] = ()
        self._timeline = 0  # of the latest image
        self._older_ids: set[str] = set()  # objects that were in an image from before it

    def accept_prompts(
        self, requests: Sequence[PromptRequest], frame_size: tuple[int, int] | None
    ) -> tuple[PromptOutcome, ...]:
        """``accept_prompt`` for each; those that name the same object are rejected: their order is unclear."""
        uses = Counter(request.object_id for request in requests if request.object_id)
        outcomes = []
        for request in requests:
            try:
                if uses[request.object_id] > 1:
                    raise PromptError(f"{uses[request.object_id]} prompts for {request.object_id!r} at once: send one")
                known_notes = len(self._tracker.notes)
                object_id, label = self.accept_prompt(request, frame_size)
                note = "; ".join(text for _, text in self._tracker.notes[known_notes:])
                outcomes.append(PromptOutcome(True, "", object_id, label, note))
            except PromptError as error:
                outcomes.append(PromptOutcome(False, str(error), request.object_id, 0))
        return tuple(outcomes)

    def accept_prompt(self, request: PromptRequest, frame_size: tuple[int, int] | None) -> tuple[str, int]:
        """Hand one prompt to the tracker; (object id, label). PromptError, with nothing changed, when it is rejected.

        ``frame_size``: (H, W) of the image the prompt will be applied to, None while no image came.
        """
        object_id = self._resolve_id(request)
        if request.action is PromptAction.UNDO:
            self._tracker.undo(object_id)
            label = self._tracker.label_of(object_id)
        else:
            given = request.in_pixels(frame_size)
            label = self._tracker.add_prompt(
                object_id,
                points=given.points_xy,
                labels=given.point_labels,
                box=given.box_xyxy,
                mask=given.mask,
                action=request.action,
                stamp_s=request.stamp_s if self._prompts_have_stamps else None,
                frame_size=frame_size,
            )
        if not request.object_id:  # chosen names are never reused, not even after a removal
            self._next_number = int(object_id.rsplit("_", 1)[1]) + 1
        record = self._records.setdefault(object_id, _Record(request.class_id))
        record.class_id = request.class_id or record.class_id
        limit = self._parameters().max_objects
        if request.action is PromptAction.ADD and limit and len(self._tracker.object_ids) > limit:
            self._made_room += self.remove(filter(None, [self._to_make_room()]))
        return object_id, label

    def _to_make_room(self) -> str | None:
        """The LOST object that was seen longest ago, where ``when_full`` lets it go; None: there is none."""
        if self._parameters().when_full != "drop_lost":
            return None
        lost = [
            object_id
            for object_id, record in self._records.items()
            if record.lost_since_ns is not None and object_id not in self._tracker.frames_behind
        ]
        return min(lost, key=lambda object_id: self._records[object_id].last_seen_ns, default=None)

    def take_made_room(self) -> tuple[str, ...]:
        """The objects that were removed for new ones since the last call."""
        gone, self._made_room = self._made_room, ()
        return gone

    def resolve_action(self, request: PromptRequest) -> PromptRequest:
        """The request with ADD replaced by REFINE where it asks for that and the object is known."""
        if request.refine_if_known and request.object_id in self._tracker.object_ids:
            return replace(request, action=PromptAction.REFINE)
        return request

    def _resolve_id(self, request: PromptRequest) -> str:
        known = self._tracker.object_ids
        if request.action is PromptAction.ADD:
            if request.object_id in known:
                raise PromptError(
                    f"object {request.object_id!r} exists already; use action REFINE to correct it, "
                    "another object_id, or an empty one to have it chosen"
                )
            limit = self._parameters().max_objects
            if limit and len(known) >= limit and self._to_make_room() is None:
                raise PromptError(
                    f"{len(known)} object(s) are tracked and max_objects is {limit}: remove one first, or raise "
                    "max_objects"
                )
            return request.object_id or self._new_id()
        if request.object_id not in known:
            verb = request.action.name.lower()
            raise PromptError(f"no object {request.object_id!r} to {verb}; known: {', '.join(known) or 'none'}")
        return request.object_id

    def _new_id(self) -> str:
        known = self._tracker.object_ids
        number = self._next_number
        while f"object_{number}" in known:
            number += 1
        return f"object_{number}"

    def remove(self, object_ids: Iterable[str]) -> tuple[str, ...]:
        """Remove all of them, or none: PromptError that names the unknown ones."""
        wanted = tuple(dict.fromkeys(object_ids))
        known = self._tracker.object_ids
        unknown = [object_id for object_id in wanted if object_id not in known]
        if unknown:
            raise PromptError(f"unknown object(s) {', '.join(map(repr, unknown))}; known: {', '.join(known) or 'none'}")
        for object_id in wanted:
            self._tracker.remove(object_id)
        self._forget_gone()
        return wanted

    def clear(self) -> tuple[str, ...]:
        """Remove all objects; names and labels are not used again."""
        removed = self._tracker.object_ids
        self._tracker.clear()
        self._forget_gone()
        return removed

    def reset(self) -> tuple[str, ...]:
        """Start again: labels and chosen names count from one."""
        removed = self._tracker.object_ids
        self._tracker.reset()
        self._records.clear()
        self._next_number = 1
        return removed

    def follow(self, timeline: int) -> None:
        """Record the next image's timeline, see ``StampReading``."""
        if timeline != self._timeline:
            self._timeline = timeline
            self._older_ids = {object_id for object_id, each in self._records.items() if each.latest is not None}

    def restart(self) -> tuple[str, ...]:
        """Remove objects that were in an image before the present timeline; those that stay. ``reset`` if none does."""
        kept = tuple(object_id for object_id in self._tracker.object_ids if object_id not in self._older_ids)
        if kept:
            self.remove(object_id for object_id in self._tracker.object_ids if object_id in self._older_ids)
        else:
            self.reset()
        return kept

    def update(self, result: FrameResult, stamp_ns: int, time_ns: int = 0) -> tuple[str, ...]:
        """Record the states of one processed image, see ``QueuedImage``; the ids of the objects that end with it."""
        for tracked in result.objects:
            record = self._records.setdefault(tracked.object_id, _Record(""))
            record.latest = tracked
            if tracked.state is ObjectState.TRACKED:
                record.first_seen_ns = record.first_seen_ns or stamp_ns
                record.last_seen_ns = stamp_ns
            if tracked.state is not ObjectState.LOST:
                record.lost_since_ns = None
            elif record.lost_since_ns is None:
                record.lost_since_ns = time_ns
        self._forget_gone()
        return self._remove_lost(time_ns, self._parameters().remove_lost_after_s)

    def _remove_lost(self, time_ns: int, after_s: float) -> tuple[str, ...]:
        """Remove the objects that have been LOST for ``after_s`` seconds or more; 0: none. The removed ids.

        An object that is replayed stays: where it arrives it may be TRACKED.
        """
        if not (after_s > 0 and time_ns):
            return ()
        gone = tuple(
            object_id
            for object_id, record in self._records.items()
            if record.lost_since_ns is not None
            and time_ns - record.lost_since_ns >= after_s * 1e9
            and object_id not in self._tracker.frames_behind
        )
        return self.remove(gone)

    def views(self) -> tuple[ObjectView, ...]:
        """The objects that the tracker has now, ordered by label; those without an image yet are PENDING."""
        views = []
        for object_id in self._tracker.object_ids:
            record = self._records.setdefault(object_id, _Record(""))
            tracked = record.latest or _pending(object_id, self._tracker.label_of(object_id))
            views.append(ObjectView(tracked, record.class_id, record.first_seen_ns, record.last_seen_ns))
        return tuple(views)

    def save(self) -> dict[str, Any]:
        """The tracker's state and the registry's own records, as plain values."""
        state = self._tracker.save_state()
        objects = [
            SavedObject(object_id, record.class_id, record.first_seen_ns, record.last_seen_ns)
            for object_id, record in ((each, self._records.get(each, _Record(""))) for each in self._tracker.object_ids)
        ]
        return SessionSnapshot(state, self._next_number, tuple(objects)).to_plain()

    def load(self, plain: object) -> None:
        """Replace the objects by a saved session's. SessionFileError, with nothing changed, when it does not fit."""
        try:
            saved = SessionSnapshot.from_plain(plain)
            limit = self._parameters().max_objects
            if limit and len(saved.objects) > limit:
                raise SessionFileError(
                    f"the session has {len(saved.objects)} objects and max_objects is {limit}: raise max_objects to "
                    "load it"
                )
            self._tracker.load_state(saved.tracker_state)
        except SavedStateError as error:
            raise SessionFileError(f"the session does not fit: {error}") from error
        by_id = {each.object_id: each for each in saved.objects}
        self._next_number = max(self._next_number, saved.next_number)
        self._records = {
            object_id: _Record(by_id[object_id].class_id, by_id[object_id].first_seen_ns, by_id[object_id].last_seen_ns)
            for object_id in self._tracker.object_ids
        }

    def _forget_gone(self) -> None:
        known = set(self._tracker.object_ids)
        self._records = {object_id: record for object_id, record in self._records.items() if object_id in known}


def _pending(object_id: str, label: int) -> TrackedMask:
    return TrackedMask(
        object_id=object_id,
        label=label,
        state=ObjectState.PENDING,
        score=0.0,
        mask_quality=0.0,
        mask=np.zeros((0, 0), dtype=np.bool_),
        area_px=0,
        box_xyxy=None,
        centroid_xy=None,
    )
