"""Prompts of every kind through the session, with the real tracker and a small network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from session_rig import DEADLINE_S, SessionRig, click
from tiny_model import noise_frames, tiny_model

from sam2_ros.session.events import EventType
from sam2_ros.session.objects import PromptAction, PromptRequest, TrackingView
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptError

FRAMES = noise_frames(12)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., SessionRig]]:
    rigs: list[SessionRig] = []

    def make(buffer_frames: int = 8, catchup_budget_ms: float | None = None, **values: Any) -> SessionRig:
        tracker = Tracker(tiny_model(), buffer_frames=buffer_frames, catchup_budget_ms=catchup_budget_ms)
        rigs.append(SessionRig(tracker, **values))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def at(frame: int) -> float:
    """Its stamp [s], as today's clocks have them."""
    return 1.8e9 + 0.033 * frame


def stamp_ns(frame: int) -> int:
    return round(at(frame) * 1_000_000_000)


def show(rig: SessionRig, first: int, end: int) -> TrackingView:
    for index in range(first, end):
        view = rig.show(FRAMES[index], at(index))
    return view


def same_masks(view: TrackingView, expected: TrackingView) -> bool:
    assert view.result is not None and expected.result is not None
    return np.array_equal(view.result.label_image, expected.result.label_image)


def test_a_prompt_is_for_the_image_that_it_names(make_rig: Callable[..., SessionRig]) -> None:
    in_time, late = make_rig(), make_rig()
    show(in_time, 0, 3)
    assert in_time.prompt(click("mug", 40, 20))[0].accepted
    expected = show(in_time, 3, 8)
    show(late, 0, 6)
    (outcome,) = late.prompt(click("mug", 40, 20, stamp_ns=stamp_ns(3)))
    assert outcome.accepted, outcome.error
    assert same_masks(show(late, 6, 8), expected)
    assert expected.result is not None and expected.result.label_image.any()


def test_an_image_that_is_not_kept_any_more_is_rejected_with_how_far_back_it_reaches(
    make_rig: Callable[..., SessionRig],
) -> None:
    rig = make_rig(buffer_frames=3)
    show(rig, 0, 6)
    (outcome,) = rig.prompt(click("mug", 40, 20, stamp_ns=stamp_ns(1)))
    assert not outcome.accepted
    assert "taken 0.13 s before the latest" in outcome.error and "0.07 s" in outcome.error
    assert rig.tracker.object_ids == ()
    assert rig.prompt(click("mug", 40, 20, stamp_ns=stamp_ns(3)))[0].accepted
    assert rig.prompt(click("next", 40, 20, stamp_ns=stamp_ns(99)))[0].accepted  # later than all: the next image


def test_in_a_replay_a_prompt_waits_for_its_image_in_the_queue(make_rig: Callable[..., SessionRig]) -> None:
    in_time, queued = make_rig(), make_rig(process_every_frame=True)
    show(in_time, 0, 5)
    in_time.prompt(click("mug", 40, 20))
    expected = show(in_time, 5, 8)
    for index in range(8):
        queued.offer_pixels(FRAMES[index], stamp_s=at(index))
    (outcome,) = queued.prompt(click("mug", 40, 20, stamp_ns=stamp_ns(5)))
    assert outcome.accepted, outcome.error
    assert same_masks(queued.wait_for(8), expected)


def test_without_a_buffer_stamps_are_ignored(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(buffer_frames=0, prompt_buffer_s=0.0)
    show(rig, 0, 3)
    assert rig.prompt(click("mug", 40, 20, stamp_ns=stamp_ns(0)))[0].accepted
    assert show(rig, 3, 4).objects[0].tracked.state is ObjectState.TRACKED


def test_while_it_is_brought_up_to_now_an_object_is_pending_and_who_waits_waits_on(
    make_rig: Callable[..., SessionRig],
) -> None:
    rig = make_rig(catchup_budget_ms=0.0)  # two past images for each new one
    show(rig, 0, 7)
    ticket = rig.session.prompt([click("mug", 40, 20, stamp_ns=stamp_ns(1))], wait=True)
    assert ticket.outcomes.result(DEADLINE_S)[0].accepted
    behind = show(rig, 7, 8)
    assert behind.frames_behind == {"mug": 5} and not ticket.first_view.done()
    assert [item.tracked.state for item in behind.objects] == [ObjectState.PENDING]
    assert behind.result is not None and not behind.result.label_image.any()
    show(rig, 8, 12)
    for index in range(6):
        rig.show(FRAMES[index], at(12 + index))
    view = ticket.first_view.result(DEADLINE_S)
    assert view.frames_behind == {} and view.objects[0].tracked.state is ObjectState.TRACKED


def test_refine_replace_and_undo(make_rig: Callable[..., SessionRig]) -> None:
    rig, other = make_rig(), make_rig()
    for each in (rig, other):
        each.prompt(click("mug", 40, 20))
        show(each, 0, 3)
    correction = click("mug", 20, 10, action=PromptAction.REFINE, stamp_ns=stamp_ns(2))
    (refined,) = rig.prompt(correction)
    assert (refined.accepted, refined.label) == (True, 1)
    assert not same_masks(show(rig, 3, 5), show(other, 3, 5))
    (undone,) = rig.prompt(PromptRequest("mug", action=PromptAction.UNDO))
    assert (undone.accepted, undone.label) == (True, 1)
    assert same_masks(show(rig, 5, 7), show(other, 5, 7))
    (nothing,) = rig.prompt(PromptRequest("mug", action=PromptAction.UNDO))
    assert not nothing.accepted and "only its first prompt" in nothing.error
    assert rig.prompt(click("mug", 60, 30, action=PromptAction.REPLACE))[0].label == 1
    assert not same_masks(show(rig, 7, 8), show(other, 7, 8))
    kinds = [event.type for event in rig.events]
    assert kinds == [
        *(EventType.ADDED, EventType.ENTERED, EventType.REFINED, EventType.UNDONE),
        *(EventType.PROMPT_REJECTED, EventType.REFINED),
    ]


def test_images_and_prompts_without_stamps(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    for index in range(3):
        rig.offer_pixels(FRAMES[index], stamp_s=0)
        rig.wait_for(index + 1)
    (outcome,) = rig.prompt(click("a", 40, 20, stamp_ns=stamp_ns(1)))
    assert not outcome.accepted and "the latest image came without one" in outcome.error
    assert rig.prompt(click("a", 40, 20))[0].accepted
    rig.offer_pixels(FRAMES[3], stamp_s=0)
    assert rig.wait_for(4).objects[0].tracked.state is ObjectState.TRACKED


def test_out_of_sight_the_mask_is_empty_in_everything_that_is_put_out(make_rig: Callable[..., SessionRig]) -> None:
    tracker = Tracker(tiny_model(object_score_bias=-20.0), lost_after_frames=2)
    rig = SessionRig(tracker)
    rig.prompt(click("mug", 40, 20))
    for index, state in enumerate([ObjectState.OCCLUDED] * 3 + [ObjectState.LOST]):
        view = rig.show(FRAMES[index], at(index))
        (item,) = view.objects
        assert item.tracked.state is state
        assert not item.tracked.mask.any() and item.tracked.area_px == 0 and item.tracked.box_xyxy is None
        assert view.result is not None and not view.result.label_image.any()
    assert [event.type for event in rig.events] == [EventType.ADDED, EventType.OCCLUDED, EventType.LOST]
    rig.close()


def test_a_session_goes_on_in_another_one(make_rig: Callable[..., SessionRig]) -> None:
    first, second = make_rig(), make_rig()
    first.prompt(click("mug", 40, 20, class_id="cup"), click("", 20, 10))
    show(first, 0, 4)
    saved = first.session.save().result(DEADLINE_S)
    loaded = second.session.load(saved, "s.pt").result(DEADLINE_S)
    assert [(v.tracked.object_id, v.tracked.label, v.class_id) for v in loaded.objects] == [
        ("mug", 1, "cup"),
        ("object_1", 2, ""),
    ]
    assert same_masks(show(second, 4, 6), show(first, 4, 6))
    assert [event.type for event in second.events] == [EventType.SESSION_LOADED]  # they have entered before
    with pytest.raises(ValueError, match="does not fit: session: missing"):
        second.session.load({}, "empty.pt").result(DEADLINE_S)
    assert len(second.session.view.objects) == 2


def test_thousands_of_objects_come_and_go(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    for number in range(1500):
        assert rig.prompt(click(f"a{number}", 40, 20))[0].accepted
        assert rig.session.remove([f"a{number}"]).result(DEADLINE_S) == (f"a{number}",)
        if number % 300 == 0:
            rig.show(FRAMES[0], at(number))
    assert rig.prompt(click("last", 40, 20))[0].label == 1501
    assert [item.tracked.object_id for item in rig.show(FRAMES[1], at(2000)).objects] == ["last"]
    state = rig.tracker._state
    assert len(state.tracks) == 1 and len(state.out_of_reach) <= 1 and len(state.waiting) == 0
    with pytest.raises(PromptError, match="unknown object"):
        rig.session.remove(["a3"]).result(DEADLINE_S)
