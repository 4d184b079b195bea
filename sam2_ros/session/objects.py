"""What the node knows about the tracked objects beyond the tracker: names, kinds, when they were seen. ROS-free.

Used by the session's worker thread only; what leaves it (``TrackingView``) is frozen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.prompts import PromptAction, PromptOutcome, PromptRequest
from sam2_ros.session.saved_book import SavedBook, SavedObject, SessionFileError
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask

if TYPE_CHECKING:
    from sam2_ros.tracking.heads import AheadImage
    from sam2_ros.tracking.image_predictor import ImagePredictor


class TrackerLike(Protocol):
    """The part of ``sam2_ros.tracking.tracker.Tracker`` that the node uses."""

    @property
    def object_ids(self) -> tuple[str, ...]: ...
    @property
    def model_name(self) -> str: ...
    def label_of(self, object_id: str) -> int: ...
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
    def encode_ahead(self, image_rgb: NDArray[np.uint8]) -> AheadImage: ...
    def step(self, image: NDArray[np.uint8] | AheadImage, stamp_s: float | None) -> FrameResult: ...
    def image_predictor(self) -> ImagePredictor: ...
    def save_state(self) -> dict[str, Any]: ...
    def load_state(self, state: object) -> None: ...
    def remove(self, object_id: str) -> None: ...
    def clear(self) -> None: ...
    def reset(self) -> None: ...


@dataclass(frozen=True)
class ObjectView:
    """One object as of the latest image, with what only the node knows."""

    tracked: TrackedMask
    class_id: str
    first_seen_ns: int  # stamp of the first image in which it was visible; 0 = never yet
    last_seen_ns: int  # stamp of the latest such image; 0 = never yet


@dataclass(frozen=True)
class TrackingView:
    """All objects as of one image; without one (``result`` None) they are all PENDING."""

    header: Any  # of the image message, handed through; None before the first image
    stamp_ns: int
    image_rgb: NDArray[np.uint8] | None  # (H, W, 3)
    result: FrameResult | None
    objects: tuple[ObjectView, ...]  # ordered by label
    frames_dropped: int
    frames_behind: Mapping[str, int] = field(default_factory=dict)  # by object; only those that are being brought up

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


class ObjectBook:
    """Applies prompts and removals to a tracker and remembers class ids and stamps of its objects.

    ``prompts_have_stamps``: a prompt with a stamp is for the image of that time; else every one is for the next image.
    """

    def __init__(self, tracker: TrackerLike, *, prompts_have_stamps: bool = True) -> None:
        self._tracker = tracker
        self._prompts_have_stamps = prompts_have_stamps
        self._records: dict[str, _Record] = {}
        self._next_number = 1

    def apply_all(
        self, requests: Sequence[PromptRequest], frame_size: tuple[int, int] | None
    ) -> tuple[PromptOutcome, ...]:
        """``apply`` for each prompt by itself; those that name the same object are refused: their order is unclear."""
        uses = Counter(request.object_id for request in requests if request.object_id)
        outcomes = []
        for request in requests:
            try:
                if uses[request.object_id] > 1:
                    raise PromptError(f"{uses[request.object_id]} prompts for {request.object_id!r} at once: send one")
                object_id, label = self.apply(request, frame_size)
                outcomes.append(PromptOutcome(True, "", object_id, label))
            except PromptError as error:
                outcomes.append(PromptOutcome(False, str(error), request.object_id, 0))
        return tuple(outcomes)

    def apply(self, request: PromptRequest, frame_size: tuple[int, int] | None) -> tuple[str, int]:
        """Hand one prompt to the tracker; (object id, label). PromptError, with nothing changed, when it is refused.

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
        if not request.object_id:  # chosen names are not given twice, not even after a removal
            self._next_number = int(object_id.rsplit("_", 1)[1]) + 1
        record = self._records.setdefault(object_id, _Record(request.class_id))
        record.class_id = request.class_id or record.class_id
        return object_id, label

    def settled(self, request: PromptRequest) -> PromptRequest:
        """The request with the action that it means now."""
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

    def observe(self, result: FrameResult, stamp_ns: int) -> None:
        """Note what one processed image showed."""
        for tracked in result.objects:
            record = self._records.setdefault(tracked.object_id, _Record(""))
            record.latest = tracked
            if tracked.state is ObjectState.TRACKED:
                record.first_seen_ns = record.first_seen_ns or stamp_ns
                record.last_seen_ns = stamp_ns
        self._forget_gone()

    def views(self) -> tuple[ObjectView, ...]:
        """The objects that the tracker has now, ordered by label; those without an image yet are PENDING."""
        views = []
        for object_id in self._tracker.object_ids:
            record = self._records.setdefault(object_id, _Record(""))
            tracked = record.latest or _pending(object_id, self._tracker.label_of(object_id))
            views.append(ObjectView(tracked, record.class_id, record.first_seen_ns, record.last_seen_ns))
        return tuple(views)

    def save(self) -> dict[str, Any]:
        """The tracker's state and what is known beyond it, as plain values."""
        state = self._tracker.save_state()
        objects = [
            SavedObject(object_id, record.class_id, record.first_seen_ns, record.last_seen_ns)
            for object_id, record in ((each, self._records.get(each, _Record(""))) for each in self._tracker.object_ids)
        ]
        return SavedBook(state, self._next_number, tuple(objects)).to_plain()

    def load(self, plain: object) -> None:
        """Go on with a saved session. SessionFileError, with nothing changed, when it does not fit."""
        saved = SavedBook.from_plain(plain)
        try:
            self._tracker.load_state(saved.tracker_state)
        except ValueError as error:  # the tracker's own: damaged, or of another model
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
