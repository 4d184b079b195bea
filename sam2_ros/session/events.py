"""Events: what happened to objects, by commands or by a change of state between two images, each reported once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sam2_ros.session.objects import ObjectView, PromptAction, PromptOutcome, PromptRequest, TrackingView
from sam2_ros.tracking.types import ObjectState, Scene


class EventType(enum.IntEnum):
    """The values are those of ``sam2_ros/msg/TrackEvent``."""

    ADDED = 0
    REFINED = 1
    UNDONE = 2
    REMOVED = 3
    ENTERED = 4
    OCCLUDED = 5
    LOST = 6
    RECOVERED = 7
    PROMPT_REJECTED = 8
    CLEARED = 9
    RESET = 10
    SESSION_SAVED = 11
    SESSION_LOADED = 12
    SCENE_CHANGED = 13
    CAMERA_COVERED = 14
    CAMERA_FROZEN = 15
    CAMERA_BACK = 16


@dataclass(frozen=True)
class Event:
    """One occurrence."""

    type: EventType
    message: str
    object_id: str = ""  # "" when it is about all objects
    label: int = 0  # 0 when it is about all objects, or the object never had one
    header: Any = None  # of the image at which it happened
    time_went_back: bool = False  # a RESET by a time jump: messages since then belong to the new time


_BY_ACTION = {
    PromptAction.ADD: (EventType.ADDED, "added"),
    PromptAction.REFINE: (EventType.REFINED, "refined"),
    PromptAction.REPLACE: (EventType.REFINED, "started again from a new prompt"),
    PromptAction.UNDO: (EventType.UNDONE, "its latest prompt was taken back"),
}


_BY_SCENE = {
    Scene.CUT: (EventType.SCENE_CHANGED, "another place: what the last images showed is forgotten, prompts are not"),
    Scene.COVERED: (EventType.CAMERA_COVERED, "nothing can be seen: is something in front of the camera?"),
    Scene.FROZEN: (EventType.CAMERA_FROZEN, "the images have been the same to the last bit for seconds"),
}


@dataclass
class _Known:
    label: int
    state: ObjectState = ObjectState.PENDING
    has_entered: bool = False


class EventSource:
    """Makes events and hands them to ``emit``. On the model thread; ``rejected`` and ``saved`` on any thread."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._known: dict[str, _Known] = {}
        self._scene = Scene.STEADY  # of the latest image

    def prompted(
        self, requests: Sequence[PromptRequest], outcomes: Sequence[PromptOutcome], made_room: Sequence[str] = ()
    ) -> None:
        """Prompts were accepted or rejected; the objects of ``made_room`` were removed for new ones."""
        self.removed(made_room, "LOST, and removed for a new object: there are max_objects")
        for request, outcome in zip(requests, outcomes, strict=True):
            if not outcome.accepted:
                self.rejected(outcome.object_id, outcome.error)
                continue
            self._known.setdefault(outcome.object_id, _Known(outcome.label))
            kind, text = _BY_ACTION[request.action]
            self._emit(Event(kind, _with_note(text, outcome.note), outcome.object_id, outcome.label))

    def rejected(self, object_id: str, why: str, header: Any = None) -> None:
        """A prompt was rejected. From any thread."""
        known = self._known.get(object_id)
        self._emit(Event(EventType.PROMPT_REJECTED, why, object_id, known.label if known else 0, header))

    def removed(self, object_ids: Iterable[str], message: str = "removed", header: Any = None) -> None:
        for object_id in object_ids:
            known = self._known.pop(object_id, None)
            self._emit(Event(EventType.REMOVED, message, object_id, known.label if known else 0, header))

    def cleared(self, object_ids: Sequence[str]) -> None:
        self._known.clear()
        self._emit(Event(EventType.CLEARED, f"removed: {', '.join(object_ids) or 'nothing, there was no object'}"))

    def _observe_scene(self, scene: Scene, header: Any) -> None:
        before, self._scene = self._scene, scene
        if scene is Scene.CUT or (scene in _BY_SCENE and scene is not before):
            kind, text = _BY_SCENE[scene]
            self._emit(Event(kind, text, header=header))
        elif scene is Scene.STEADY and before in (Scene.COVERED, Scene.FROZEN):
            self._emit(Event(EventType.CAMERA_BACK, f"no longer {before.value}", header=header))

    def reset(self, why: str, time_went_back: bool = False, kept: Collection[str] = ()) -> None:
        """All objects except ``kept`` were removed."""
        self._known = {object_id: known for object_id, known in self._known.items() if object_id in kept}
        self._emit(Event(EventType.RESET, why, time_went_back=time_went_back))

    def saved(self, path: str, count: int) -> None:
        """The session was written to a file. From any thread."""
        self._emit(Event(EventType.SESSION_SAVED, f"{count} object(s) to {path}"))

    def loaded(self, path: str, objects: Sequence[ObjectView]) -> None:
        """A session was read from a file that has these objects."""
        self._known = {
            item.tracked.object_id: _Known(item.tracked.label, has_entered=item.first_seen_ns > 0) for item in objects
        }
        self._emit(Event(EventType.SESSION_LOADED, f"{len(objects)} object(s) from {path}"))

    def observed(self, view: TrackingView) -> None:
        """An image was processed."""
        for object_id, why in view.result.rejected if view.result is not None else ():
            self.rejected(object_id, why, view.header)
        if view.result is not None:
            self._observe_scene(view.result.scene, view.header)
        # Notes made by the image itself: those of prompts that were given before its size was known.
        notes = dict(view.result.notes) if view.result is not None else {}
        for item in view.objects:
            tracked = item.tracked
            known = self._known.setdefault(tracked.object_id, _Known(tracked.label))
            before, known.state = known.state, tracked.state
            if tracked.state is before:
                continue
            found = _transition(before, tracked.state, known.has_entered)
            known.has_entered |= tracked.state is ObjectState.TRACKED
            if found is not None:
                kind, text = found
                if tracked.doubted_with:
                    text = f"in doubt: it may be {tracked.doubted_with}, which looks the same; prompt it"
                note = notes.get(tracked.object_id, "") if before is ObjectState.PENDING else ""
                self._emit(Event(kind, _with_note(text, note), tracked.object_id, tracked.label, view.header))
        there = {item.tracked.object_id for item in view.objects}
        self._known = {object_id: known for object_id, known in self._known.items() if object_id in there}


def _with_note(text: str, note: str) -> str:
    return f"{text}; {note}" if note else text


def _transition(before: ObjectState, now: ObjectState, has_entered: bool) -> tuple[EventType, str] | None:
    if now is ObjectState.TRACKED:
        if not has_entered:
            return EventType.ENTERED, "seen for the first time"
        if before in (ObjectState.OCCLUDED, ObjectState.LOST):
            return EventType.RECOVERED, f"visible again after {before.name}"
    if now is ObjectState.OCCLUDED:
        return EventType.OCCLUDED, "out of sight" if has_entered else "not visible in the image it was prompted in"
    if now is ObjectState.LOST:
        return EventType.LOST, "out of sight for longer than lost_after_frames or lost_after_s; still looked for"
    return None
