"""How much may wait and be tracked at once, and that what takes work off the model is never rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from session_rig import DEADLINE_S, SessionRig, click, wait_until

from sam2_ros.session.events import EventType
from sam2_ros.session.parameters import parse
from sam2_ros.session.persistence import SessionFileError
from sam2_ros.session.results import MAX_WAITERS
from sam2_ros.session.stats import StatsCollector
from sam2_ros.session.work_queue import MAX_COMMANDS, SessionStoppedError, TooManyRequestsError, WorkQueue
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

SECOND = 1_000_000_000


def at_work(rig: SessionRig) -> None:
    """Let the model begin with an image and stay there."""
    rig.tracker.gate.clear()
    rig.offer(1)
    assert rig.tracker.in_step.wait(DEADLINE_S)


def test_one_object_more_than_max_objects_is_rejected_until_one_is_removed(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(max_objects=2)
    outcomes = rig.prompt(click("a"), click("b"), click("c"), click())
    assert [outcome.accepted for outcome in outcomes] == [True, True, False, False]
    why = "2 object(s) are tracked and max_objects is 2: remove one first, or raise max_objects"
    assert [outcome.error for outcome in outcomes[2:]] == [why, why]
    assert rig.tracker.object_ids == ("a", "b")
    rig.session.remove(["a"]).result(DEADLINE_S)
    assert rig.prompt(click("c"))[0].accepted and not rig.prompt(click("d"))[0].accepted


def test_without_a_limit_there_is_none(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(max_objects=0)
    assert all(outcome.accepted for outcome in rig.prompt(*(click() for _ in range(parse({}).max_objects + 1))))


def test_with_drop_lost_the_lost_object_seen_longest_ago_goes_for_a_new_one(
    make_rig: Callable[..., SessionRig],
) -> None:
    rig = make_rig(max_objects=2, when_full="drop_lost")
    rig.prompt(click("a"), click("b"))
    (full,) = rig.prompt(click("c"))
    assert not full.accepted and "max_objects is 2" in full.error, "nothing is LOST"
    rig.offer(1, stamp_s=1.0)
    rig.wait_for(1)
    rig.tracker.hidden = {"b": ObjectState.LOST}
    rig.offer(2, stamp_s=2.0)
    rig.wait_for(2)
    rig.tracker.hidden = {"a": ObjectState.LOST, "b": ObjectState.LOST}
    rig.offer(3, stamp_s=3.0)
    rig.wait_for(3)
    (bad,) = rig.prompt(click("c", x=9999))
    assert not bad.accepted and rig.tracker.object_ids == ("a", "b"), "a rejected prompt changes nothing"
    (added,) = rig.prompt(click("c"))
    assert added.accepted and rig.tracker.object_ids == ("a", "c")
    (removed,) = [event for event in rig.events if event.type is EventType.REMOVED]
    assert removed.object_id == "b" and "max_objects" in removed.message


def test_saving_replays_what_is_behind_in_slices_between_images(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"), click("b"))
    rig.tracker.behind = {"a": 4}
    images = [1]
    rig.tracker.on_catch_up = lambda: rig.offer(images.pop(), stamp_s=5.0) if images else None
    rig.tracker.calls.clear()
    saved, cleared = rig.session.save(), rig.session.clear()
    assert [each["object_id"] for each in saved.result(DEADLINE_S)["objects"]] == ["a", "b"], "what came after waited"
    assert cleared.result(DEADLINE_S) == ("a", "b")
    calls = rig.tracker.calls
    assert calls.count("catch up") == 4 and calls[-1] == "clear"
    assert "step 1" in calls[2:4], "the image did not wait for all of them"


def test_a_save_that_is_not_done_is_answered_when_the_session_ends(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    rig.tracker.behind = {"a": 10**9}
    saved = rig.session.save()
    wait_until(lambda: rig.tracker.calls.count("catch up") > 2)
    assert rig.session.stop(DEADLINE_S)
    with pytest.raises(SessionStoppedError):
        saved.result(DEADLINE_S)


def test_a_session_with_more_than_max_objects_is_rejected_and_changes_nothing(
    make_rig: Callable[..., SessionRig],
) -> None:
    many, few = make_rig(), make_rig(max_objects=1)
    many.prompt(click("a"), click("b"))
    saved = many.session.save().result(DEADLINE_S)
    many.session.clear().result(DEADLINE_S)
    few.prompt(click("c"))
    with pytest.raises(SessionFileError, match="the session has 2 objects and max_objects is 1: raise max_objects"):
        few.session.load(saved, "two.pt").result(DEADLINE_S)
    assert few.tracker.object_ids == ("c",)


def test_more_than_so_many_commands_are_rejected_but_not_what_frees_the_model(
    make_rig: Callable[..., SessionRig],
) -> None:
    rig = make_rig()
    rig.prompt(click("known"))
    at_work(rig)
    tickets = [rig.session.prompt([click()]) for _ in range(MAX_COMMANDS)]
    rejected = f"{MAX_COMMANDS} requests wait for the model already: nothing was changed"
    for late in (rig.session.prompt([click("late")]).outcomes, rig.session.save()):
        with pytest.raises(TooManyRequestsError, match=rejected):
            late.result(DEADLINE_S)
    freeing = [rig.session.remove(["known"]), rig.session.set_enabled(False), rig.session.clear(), rig.session.reset()]
    freeing.append(rig.session.load(an_empty_session(rig), "empty.pt"))
    rig.tracker.gate.set()
    for each in freeing:
        each.result(DEADLINE_S)
    assert all(ticket.outcomes.result(DEADLINE_S) for ticket in tickets)
    assert rig.tracker.object_ids == () and not rig.session.enabled


def an_empty_session(rig: SessionRig) -> dict[str, Any]:
    state = {"model": rig.tracker.model_name, "next_label": 1, "objects": []}
    return {"format": "sam2_ros session 1", "tracker": state, "next_number": 1, "objects": []}


def test_commands_whose_callers_gave_up_make_room(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(max_objects=0)
    at_work(rig)
    tickets = [rig.session.prompt([click()]) for _ in range(MAX_COMMANDS)]
    assert tickets[3].outcomes.cancel()
    last = rig.session.prompt([click("last")]).outcomes
    rig.tracker.gate.set()
    assert last.result(DEADLINE_S)[0].accepted


def test_those_who_wait_for_a_first_mask_are_forgotten_when_they_give_up(make_rig: Callable[..., SessionRig]) -> None:
    """Without a camera no image ever answers them."""
    rig = make_rig(max_objects=0)
    for _ in range(3 * MAX_WAITERS):
        ticket = rig.session.prompt([click()], wait=True)
        assert ticket.outcomes.result(DEADLINE_S)[0].accepted
        assert ticket.first_view.cancel()
    assert len(rig.session._waiters._waiting) <= 1


def test_more_than_so_many_who_wait_are_rejected_before_their_prompts_are_accepted(
    make_rig: Callable[..., SessionRig],
) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    correction = click("a", action=PromptAction.REFINE)
    waiting = [rig.session.prompt([correction], wait=True) for _ in range(MAX_WAITERS)]
    assert all(ticket.outcomes.result(DEADLINE_S) for ticket in waiting)
    with pytest.raises(PromptError, match=f"{MAX_WAITERS} requests wait for a first mask already"):
        rig.session.prompt([click("late")], wait=True).outcomes.result(DEADLINE_S)
    assert "late" not in rig.tracker.object_ids
    assert rig.prompt(click("without waiting"))[0].accepted
    rig.offer(1)
    assert all(ticket.first_view.result(DEADLINE_S).result is not None for ticket in waiting)


def test_what_clears_everything_does_not_wait_for_images_that_others_wait_for() -> None:
    parameters = parse({"process_every_frame": True})
    queue = WorkQueue(StatsCollector(lambda: 0.0), lambda: parameters, on_work=lambda: None)
    for stamp_s in range(1, 6):
        queue.offer(stamp_s, stamp_s * SECOND)
    done: list[str] = []
    queue.submit(lambda: done.append("for the fourth image"), stamp_ns=4 * SECOND)
    queue.submit(lambda: done.append("clear"), at_once=True)
    queue.submit(lambda: done.append("for the fifth"), stamp_ns=5 * SECOND)
    work = queue.take()
    assert work is not None and work[1] is not None and work[1].message == 1
    for command in work[0]:
        command.run()
    assert done == ["for the fourth image", "clear"]


def test_an_object_that_is_lost_for_long_ends_with_an_event(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(remove_lost_after_s=2.0)
    rig.prompt(click("a"), click("b"), click("c"))
    rig.tracker.hidden = {"a": ObjectState.LOST, "b": ObjectState.OCCLUDED, "c": ObjectState.LOST}
    rig.tracker.behind = {"c": 3}  # may be found where its replay arrives
    for count, stamp_s in enumerate((10.0, 11.0, 11.9), 1):
        rig.offer(count, stamp_s=stamp_s)
        assert [item.tracked.object_id for item in rig.wait_for(count).objects] == ["a", "b", "c"]
    rig.offer(4, stamp_s=12.0)
    assert [item.tracked.object_id for item in rig.wait_for(4).objects] == ["b", "c"]
    (removed,) = [event for event in rig.events if event.type is EventType.REMOVED]
    assert (removed.object_id, removed.message) == ("a", "LOST for longer than remove_lost_after_s")
    assert rig.tracker.object_ids == ("b", "c")


def test_an_object_that_is_seen_in_between_starts_to_be_lost_again(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig(remove_lost_after_s=2.0)
    rig.prompt(click("a"))
    for count, (stamp_s, is_lost) in enumerate(((10.0, True), (11.0, False), (12.5, True), (14.0, True)), 1):
        rig.tracker.hidden = {"a": ObjectState.LOST} if is_lost else {}
        rig.offer(count, stamp_s=stamp_s)
        assert len(rig.wait_for(count).objects) == 1
    rig.offer(5, stamp_s=14.5)
    assert rig.wait_for(5).objects == ()


@pytest.mark.parametrize(
    "stamps_s",
    [
        (10.0, 10.5, 3611.0, 11.0, 11.5),  # one image from the future
        (10.0, 500.0, 10.5, 500.5, 11.0, 501.0, 11.5),  # two clocks in turn
        (10.0, 10.5, 3000.0, 3000.5, 3001.0),  # a recording that is played from further on
        (10.0, 0.0, 10.5, 0.0, 11.0),  # without a stamp now and then
    ],
)
def test_a_stamp_of_another_time_ends_no_object(make_rig: Callable[..., SessionRig], stamps_s: tuple[float]) -> None:
    rig = make_rig(remove_lost_after_s=2.0)
    rig.prompt(click("a"))
    rig.tracker.hidden = {"a": ObjectState.LOST}
    for count, stamp_s in enumerate(stamps_s, 1):
        rig.offer(count, stamp_s=stamp_s)
        assert len(rig.wait_for(count).objects) == 1
    assert rig.tracker.times_s == sorted(rig.tracker.times_s, key=lambda time_s: time_s or 0.0) or 0.0 in stamps_s
    assert max(filter(None, rig.tracker.times_s)) < 12.0


def test_by_default_no_object_ends_by_itself(make_rig: Callable[..., SessionRig]) -> None:
    rig = make_rig()
    rig.prompt(click("a"))
    rig.tracker.hidden = {"a": ObjectState.LOST}
    for count, stamp_s in enumerate((10.0, 11.0, 9000.0), 1):
        rig.offer(count, stamp_s=stamp_s)
        assert len(rig.wait_for(count).objects) == 1
