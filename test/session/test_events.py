"""What happens to objects is told once, with the object and the image."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sam2_ros.session.events import Event, EventSource, EventType
from sam2_ros.session.objects import PromptAction, PromptOutcome, PromptRequest
from sam2_ros.tracking.types import ObjectState, Scene

PENDING, TRACKED, OCCLUDED, LOST = ObjectState
MESSAGE = Path(__file__).parents[2] / "msg" / "TrackEvent.msg"


class Told:
    """An event source and what it said."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.scene = Scene.STEADY
        self.source = EventSource(self.events.append)

    def prompt(self, object_id: str, action: PromptAction = PromptAction.ADD, error: str = "", label: int = 1) -> None:
        outcome = PromptOutcome(not error, error, object_id, 0 if error else label)
        self.source.prompted([PromptRequest(object_id, action=action)], [outcome])

    def show(self, *, rejected: Any = (), header: str = "", **states: ObjectState) -> None:
        """One image, in which the objects are in these states."""
        objects = [
            SimpleNamespace(tracked=SimpleNamespace(object_id=object_id, label=1, state=state, doubted_with=""))
            for object_id, state in states.items()
        ]
        result = SimpleNamespace(rejected=rejected, notes=(), scene=self.scene)
        self.source.observed(SimpleNamespace(objects=objects, result=result, header=header))  # type: ignore[arg-type]

    def kinds(self) -> list[EventType]:
        kinds = [event.type for event in self.events]
        self.events.clear()
        return kinds


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_types_are_those_of_the_message() -> None:
    constants = dict(re.findall(r"^uint8 (\w+)=(\d+)", MESSAGE.read_text(encoding="utf-8"), re.M))
    assert {kind.name: str(int(kind)) for kind in EventType} == constants


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([TRACKED, TRACKED], [EventType.ENTERED]),
        ([PENDING, TRACKED], [EventType.ENTERED]),
        ([TRACKED, OCCLUDED, OCCLUDED, TRACKED], [EventType.ENTERED, EventType.OCCLUDED, EventType.RECOVERED]),
        (
            [TRACKED, OCCLUDED, LOST, LOST, TRACKED],
            [EventType.ENTERED, EventType.OCCLUDED, EventType.LOST, EventType.RECOVERED],
        ),
        ([OCCLUDED, TRACKED], [EventType.OCCLUDED, EventType.ENTERED]),  # prompted where it could not be seen
    ],
)
def test_each_change_of_state_is_told_once(told: Told, states: list[ObjectState], expected: list[EventType]) -> None:
    told.prompt("mug")
    for state in states:
        told.show(mug=state)
    assert told.kinds() == [EventType.ADDED, *expected]


def test_events_name_object_label_and_image(told: Told) -> None:
    told.prompt("mug")
    told.show(mug=TRACKED, header="header 7")
    added, entered = told.events
    assert (added.object_id, added.label, added.header) == ("mug", 1, None)
    assert (entered.object_id, entered.label, entered.header) == ("mug", 1, "header 7")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (PromptAction.REFINE, EventType.REFINED),
        (PromptAction.REPLACE, EventType.REFINED),
        (PromptAction.UNDO, EventType.UNDONE),
    ],
)
def test_prompts(told: Told, action: PromptAction, expected: EventType) -> None:
    told.prompt("mug")
    told.prompt("mug", action)
    told.prompt("mug", action, error="no such thing")
    told.prompt("tin", action, error="unknown object")
    assert [event.type for event in told.events] == [EventType.ADDED, expected, *[EventType.PROMPT_REJECTED] * 2]
    assert [(event.label, event.message) for event in told.events[2:]] == [(1, "no such thing"), (0, "unknown object")]


def test_a_prompt_that_its_image_rejects(told: Told) -> None:
    told.prompt("mug")
    told.show(rejected=[("mug", "outside the image")], header="header 1")
    told.prompt("mug")  # it is gone, so this is a new one
    told.show(mug=TRACKED)
    rejected = told.events[1]
    assert (rejected.label, rejected.message, rejected.header) == (1, "outside the image", "header 1")
    assert told.kinds() == [EventType.ADDED, EventType.PROMPT_REJECTED, EventType.ADDED, EventType.ENTERED]


def test_what_is_removed_and_added_again_enters_again(told: Told) -> None:
    for end in (lambda: told.source.removed(["a"]), lambda: told.source.cleared(["a"]), lambda: told.source.reset("")):
        told.prompt("a")
        told.show(a=TRACKED)
        end()
    assert told.kinds() == [
        *(EventType.ADDED, EventType.ENTERED, EventType.REMOVED),
        *(EventType.ADDED, EventType.ENTERED, EventType.CLEARED),
        *(EventType.ADDED, EventType.ENTERED, EventType.RESET),
    ]


def test_objects_of_a_loaded_session_have_entered_before(told: Told) -> None:
    def item(object_id: str, first_seen_ns: int) -> Any:
        return SimpleNamespace(tracked=SimpleNamespace(object_id=object_id, label=1), first_seen_ns=first_seen_ns)

    told.source.loaded("s.pt", [item("old", 5), item("waiting", 0)])
    told.show(old=TRACKED, waiting=TRACKED)
    told.show(old=OCCLUDED, waiting=TRACKED)
    loaded, entered, occluded = told.events
    assert (loaded.type, loaded.message) == (EventType.SESSION_LOADED, "2 object(s) from s.pt")
    assert (entered.type, entered.object_id) == (EventType.ENTERED, "waiting")
    assert (occluded.type, occluded.object_id) == (EventType.OCCLUDED, "old")


def test_memory_is_bounded_by_what_is_tracked(told: Told) -> None:
    for number in range(2000):
        told.prompt(f"object_{number}")
        told.show(**{f"object_{number}": TRACKED})
        told.events.clear()
    assert len(told.source._known) == 1


def test_what_was_changed_of_a_prompt_is_said_once() -> None:
    events: list[Event] = []
    source = EventSource(events.append)
    source.prompted(
        [PromptRequest("mug"), PromptRequest("tin")],
        [PromptOutcome(True, "", "mug", 1, "the box is clipped"), PromptOutcome(True, "", "tin", 2)],
    )
    assert [event.message for event in events] == ["added; the box is clipped", "added"]


def test_what_happens_to_the_camera_is_told_once(told: Told) -> None:
    told.show(a=TRACKED)
    told.kinds()
    seen = []
    covered, frozen, steady = Scene.COVERED, Scene.FROZEN, Scene.STEADY
    for scene in (steady, Scene.CUT, Scene.CUT, covered, covered, steady, frozen, frozen, steady, covered, Scene.CUT):
        told.scene = scene
        told.show(header=scene.value, a=TRACKED)
        seen.append([(event.type, event.header, event.object_id) for event in told.events])
        told.events.clear()
    cut = [(EventType.SCENE_CHANGED, "cut", "")]
    back = [(EventType.CAMERA_BACK, "steady", "")]
    hidden = [(EventType.CAMERA_COVERED, "covered", "")]
    assert seen == [[], cut, cut, hidden, [], back, [(EventType.CAMERA_FROZEN, "frozen", "")], [], back, hidden, cut]
