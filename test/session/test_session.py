"""The session without ROS and without a network: what is taken when, and what survives which failure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from session_rig import DEADLINE_S, SessionRig, click, wait_until

from sam2_ros.session.events import EventType
from sam2_ros.session.objects import PromptAction, PromptRequest
from sam2_ros.session.work_queue import SessionStoppedError
from sam2_ros.tracking.concurrency import TaskThread
from sam2_ros.tracking.types import ObjectState, PromptError


@pytest.fixture
def rig(fake_tracker: Any) -> Iterator[SessionRig]:
    rig = SessionRig(fake_tracker)
    yield rig
    fake_tracker.gate.set()
    rig.publish_gate.set()
    rig.close()


def test_prompt_before_any_image_is_pending_then_tracked_with_the_images_header(rig: SessionRig) -> None:
    (outcome,) = rig.prompt(click("mug", class_id="cup"))
    assert (outcome.accepted, outcome.object_id, outcome.label) == (True, "mug", 1)
    (before,) = rig.session.view.objects
    assert before.tracked.state is ObjectState.PENDING and before.first_seen_ns == 0
    rig.offer(7, stamp_s=2.5)
    view = rig.wait_for(1)
    assert view.header == "header 7" and view.stamp_ns == 2_500_000_000
    (after,) = view.objects
    assert after.tracked.state is ObjectState.TRACKED and after.class_id == "cup"
    assert after.first_seen_ns == after.last_seen_ns == 2_500_000_000


def test_only_the_newest_waiting_image_is_processed_and_the_others_are_counted(rig: SessionRig) -> None:
    rig.tracker.gate.clear()
    rig.offer(1)
    assert rig.tracker.in_step.wait(DEADLINE_S)
    for value in (2, 3, 4):
        rig.offer(value)
    rig.tracker.gate.set()
    assert rig.wait_for(1).header == "header 1"
    latest = rig.wait_for(2)
    assert latest.header == "header 4" and latest.frames_dropped == 2
    assert rig.session.stats().received == 4


def test_commands_run_in_order_between_images(rig: SessionRig) -> None:
    rig.tracker.gate.clear()
    rig.offer(1)
    assert rig.tracker.in_step.wait(DEADLINE_S)
    first = rig.session.prompt([click("a")])
    removed = rig.session.remove(["a"])
    second = rig.session.prompt([click("b")])
    cleared = rig.session.clear()
    third = rig.session.prompt([click("c")])
    assert not first.outcomes.done()  # not while the model is at work
    rig.offer(2)
    rig.tracker.gate.set()
    rig.wait_for(2)
    assert removed.result(DEADLINE_S) == ("a",) and cleared.result(DEADLINE_S) == ("b",)
    assert third.outcomes.result(DEADLINE_S)[0].label == 3
    assert second.outcomes.result(DEADLINE_S)[0].accepted
    assert rig.tracker.calls == ["step 1", "prompt a", "remove a", "prompt b", "clear", "prompt c", "step 2"]


def test_add_or_refine_is_decided_when_the_prompt_is_carried_out(rig: SessionRig) -> None:
    """Of two clicks while the model is busy, the second corrects what the first one adds."""
    rig.tracker.gate.clear()
    rig.offer()
    assert rig.tracker.in_step.wait(20)
    tickets = [rig.session.prompt([click("mug", x=x, refine_if_known=True)]) for x in (4, 5)]
    rig.tracker.gate.set()
    assert all(ticket.outcomes.result(20)[0].accepted for ticket in tickets)
    assert rig.tracker.calls[-2:] == ["prompt mug", "refine mug"]
    assert [event.type for event in rig.events] == [EventType.ADDED, EventType.REFINED]


def test_waiting_for_the_first_mask(rig: SessionRig) -> None:
    ticket = rig.session.prompt([click("a"), click("b", x=400)], wait=True)
    assert [o.accepted for o in ticket.outcomes.result(DEADLINE_S)] == [True, True]  # no size is known yet
    rig.offer(1)
    view = ticket.first_view.result(DEADLINE_S)
    assert view.result is not None
    assert view.result["a"].area_px == 9
    assert [object_id for object_id, _ in view.result.rejected] == ["b"]
    assert [item.tracked.object_id for item in rig.session.view.objects] == ["a"]


def test_giving_up_while_the_model_is_busy_withdraws_the_prompt(rig: SessionRig) -> None:
    rig.tracker.gate.clear()
    rig.offer(1)
    assert rig.tracker.in_step.wait(DEADLINE_S)
    ticket = rig.session.prompt([click("a")])
    assert ticket.outcomes.cancel()
    rig.tracker.gate.set()
    rig.offer(2)
    rig.wait_for(2)
    with pytest.raises(CancelledError):
        ticket.outcomes.result(DEADLINE_S)
    assert rig.tracker.object_ids == ()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (PromptRequest("new"), "empty prompt"),
        (click("known"), "exists already"),
        (click("new", x=99), "outside the image"),
        (click("new", action=PromptAction.REFINE), "no object 'new' to refine; known: known"),
        (click("new", action=PromptAction.REPLACE), "no object 'new' to replace; known: known"),
        (PromptRequest("new", action=PromptAction.UNDO), "no object 'new' to undo; known: known"),
        (click("new", x=1.5, normalized=True), "must lie in 0..1"),
        (click("new", x=float("nan"), normalized=True), "must lie in 0..1"),
    ],
)
def test_rejected_prompt_says_why_and_changes_nothing(rig: SessionRig, request_: PromptRequest, reason: str) -> None:
    rig.prompt(click("known"))
    rig.offer(1)
    rig.wait_for(1)
    calls = list(rig.tracker.calls)
    (outcome,) = rig.prompt(request_)
    assert not outcome.accepted and outcome.label == 0 and reason in outcome.error
    assert rig.tracker.calls == calls and rig.tracker.object_ids == ("known",)


def test_each_prompt_of_a_batch_stands_for_itself_but_not_twice_for_one_object(rig: SessionRig) -> None:
    outcomes = rig.prompt(click("a"), click("b"), click("a"), click(), click())
    assert [o.accepted for o in outcomes] == [False, True, False, True, True]
    assert "2 prompts for 'a'" in outcomes[0].error
    assert [o.object_id for o in outcomes[3:]] == ["object_1", "object_2"]


def test_chosen_names_are_not_reused_before_a_reset(rig: SessionRig) -> None:
    assert rig.prompt(click())[0].object_id == "object_1"
    rig.session.clear().result(DEADLINE_S)
    (second,) = rig.prompt(click())
    assert (second.object_id, second.label) == ("object_2", 2)
    rig.session.reset().result(DEADLINE_S)
    (third,) = rig.prompt(click())
    assert (third.object_id, third.label) == ("object_1", 1)


def test_normalized_coordinates(rig: SessionRig) -> None:
    (early,) = rig.prompt(click("a", x=0.5, y=0.5, normalized=True))
    assert not early.accepted and "no image has come yet" in early.error
    rig.offer(1)
    rig.wait_for(1)
    assert rig.prompt(click("a", x=0.5, y=0.5, normalized=True), click("b", x=1, y=1, normalized=True))[1].accepted
    rig.offer(2)
    a, b = rig.wait_for(2).objects
    assert a.tracked.box_xyxy == (4, 3, 7, 6)
    assert b.tracked.box_xyxy == (8, 6, 10, 8)


def test_removal_is_all_or_nothing(rig: SessionRig) -> None:
    rig.prompt(click("a"), click("b"))
    with pytest.raises(PromptError, match=r"unknown object\(s\) 'x'; known: a, b"):
        rig.session.remove(["a", "x"]).result(DEADLINE_S)
    assert rig.tracker.object_ids == ("a", "b")
    assert rig.session.remove(["b"]).result(DEADLINE_S) == ("b",)
    assert [item.tracked.object_id for item in rig.session.view.objects] == ["a"]


def test_while_disabled_images_are_ignored_and_objects_kept(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    assert rig.session.set_enabled(False).result(DEADLINE_S) is False
    rig.offer(1)
    rig.session.set_enabled(True).result(DEADLINE_S)
    rig.offer(2)
    assert rig.wait_for(1).header == "header 2"
    assert rig.tracker.calls == ["prompt a", "step 2"]
    assert rig.session.stats().dropped == 0


@pytest.mark.parametrize("where", ["decode", "step", "publish"])
def test_a_failing_image_is_logged_and_counted_and_the_next_one_goes_on(
    rig: SessionRig, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.prompt(click("a"))
    ticket = rig.session.prompt([click("b")], wait=True)
    if where == "step":
        rig.tracker.fail_next = [RuntimeError("out of memory")]
    if where == "publish":
        rig.publish_error = RuntimeError("no middleware")
    with caplog.at_level(logging.ERROR):
        rig.offer(1, readable=where != "decode")
        rig.session.set_enabled(True).result(DEADLINE_S)  # now the worker has taken the first image out of the mailbox
        rig.offer(2)
        view = rig.wait_for(1)
    assert view.header == "header 2" and len(view.objects) == 2
    assert ticket.first_view.done()
    stats = rig.session.stats()
    assert stats.failed == 1
    assert {"decode": "yuv", "step": "out of memory", "publish": "no middleware"}[where] in stats.last_error
    assert stats.last_error in caplog.text


def test_stamps_that_jump_back_reset_the_tracking_once(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    rig.prompt(click("a"))
    with caplog.at_level(logging.WARNING):
        for count, stamp_s in enumerate((100, 99.9), 1):  # out of order, not a jump
            rig.offer(count, stamp_s=stamp_s)
            assert len(rig.wait_for(count).objects) == 1
        rig.passed_s += 0.9
        for count, stamp_s in enumerate((5, 5.1, 5.2), 3):  # all within the second in which the old time may go on
            rig.offer(count, stamp_s=stamp_s)
            assert len(rig.wait_for(count).objects) == 1, "a jump is not believed yet"
        rig.passed_s += 0.2
        rig.offer(6, stamp_s=5.3)
        view = rig.wait_for(6)
        rig.offer(7, stamp_s=5.4)
        rig.wait_for(7)
    assert view.objects == () and view.frame_index == 0
    assert rig.tracker.calls.count("reset") == 1
    assert caplog.text.count("went back by 94.90 s") == 1


@pytest.mark.parametrize("stamp_s", [90.0, 3700.0])
def test_a_single_stamp_of_another_time_takes_nothing_away(
    rig: SessionRig, stamp_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    rig.prompt(click("a"))
    with caplog.at_level(logging.WARNING):
        for count, each_s in enumerate((100.0, stamp_s, 102.0, 102.1), 1):
            rig.passed_s += 2.0
            rig.offer(count, stamp_s=each_s)
            assert len(rig.wait_for(count).objects) == 1
    assert rig.tracker.calls.count("reset") == 0
    assert "1 image was stamped" in caplog.text and "not believed" in caplog.text


def test_objects_stay_while_two_clocks_alternate_which_is_said(
    rig: SessionRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.prompt(click("a"))
    with caplog.at_level(logging.WARNING):
        for count in range(1, 41):
            rig.passed_s += 0.1
            rig.offer(count, stamp_s=(100 if count % 2 else 5) + count / 10)
            assert len(rig.wait_for(count).objects) == 1
    assert rig.tracker.calls.count("reset") == 0
    assert caplog.text.count("alternate between two times, 94.9 s") == 1
    assert "two publishers" in rig.session.clock_trouble


def test_a_prompt_given_before_a_bag_is_played_again_stays(rig: SessionRig) -> None:
    rig.prompt(click("old"))
    rig.offer(1, stamp_s=100)
    rig.wait_for(1)
    rig.prompt(click("new"))
    rig.passed_s += 5.0
    for count in range(2, 6):
        rig.offer(count, stamp_s=5 + count / 10)
        view = rig.wait_for(count)
    assert [item.tracked.object_id for item in view.objects] == ["new"]
    assert [item.tracked.object_id for item in rig.session.view.objects] == ["new"]
    assert rig.tracker.calls.index("prompt new") < rig.tracker.calls.index("step 2"), "the bag's first image has it"
    (reset,) = [event for event in rig.events if event.type is EventType.RESET]
    assert reset.time_went_back and "new had not seen an image of before and stay" in reset.message
    assert [event.object_id for event in rig.events if event.type is EventType.ENTERED] == ["old", "new"]


def test_a_reset_forgets_the_stamps_of_before(rig: SessionRig) -> None:
    rig.offer(1, stamp_s=100)
    rig.wait_for(1)
    rig.session.reset().result(DEADLINE_S)
    rig.prompt(click("a"))
    for count in range(2, 6):
        rig.passed_s += 1.0
        rig.offer(count, stamp_s=5 + count / 10)
        assert len(rig.wait_for(count).objects) == 1
    assert [event.type for event in rig.events].count(EventType.RESET) == 1, "the one that was asked for"


def test_a_dead_worker_says_so_to_everybody(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    rig.tracker.fail_next = [SystemExit("the worst")]
    rig.tracker.gate.clear()
    rig.offer(1)
    assert rig.tracker.in_step.wait(DEADLINE_S)
    queued = rig.session.clear()
    with caplog.at_level(logging.CRITICAL):
        rig.tracker.gate.set()
        with pytest.raises(SessionStoppedError, match=r"has died \(SystemExit: the worst\)"):
            queued.result(DEADLINE_S)
    with pytest.raises(SessionStoppedError, match="has died"):
        rig.prompt(click("late"))
    assert "the worst" in rig.session.failure and "the worst" in caplog.text


def test_stop_answers_who_still_waits(rig: SessionRig) -> None:
    ticket = rig.session.prompt([click("a")], wait=True)
    ticket.outcomes.result(DEADLINE_S)
    assert rig.session.stop(DEADLINE_S)
    with pytest.raises(SessionStoppedError, match="stopped"):
        ticket.first_view.result(DEADLINE_S)
    with pytest.raises(SessionStoppedError, match="stopped"):
        rig.session.clear().result(DEADLINE_S)


def test_a_publisher_that_is_slow_holds_neither_the_model_nor_commands(rig: SessionRig) -> None:
    """One result is being published, one waits in the slot; further images replace each other before the model."""
    rig.publish_gate.clear()
    rig.offer(1)
    assert rig.publishing.wait(DEADLINE_S)
    rig.offer(2)
    wait_until(lambda: rig.tracker.calls == ["step 1", "step 2"])
    for value in (3, 4):
        rig.offer(value)
    assert rig.prompt(click("mug"))[0].accepted
    assert rig.tracker.calls == ["step 1", "step 2", "prompt mug"]
    rig.publish_gate.set()
    assert [rig.wait_for(count).header for count in (1, 2, 3)] == ["header 1", "header 2", "header 4"]
    assert rig.session.stats().dropped == 1
    rig.settle()
    assert rig.session.waiting_ns == []


def test_results_on_their_way_out_are_still_waited_for(rig: SessionRig) -> None:
    rig.publish_gate.clear()
    for count, stamp_s in enumerate((1.0, 2.0), 1):
        rig.offer(count, stamp_s=stamp_s)
        wait_until(lambda count=count: len(rig.tracker.calls) == count)
    rig.prompt(click("mug"))  # the model has nothing in hand any more
    assert rig.session.waiting_ns == [1_000_000_000, 2_000_000_000]
    rig.publish_gate.set()


def test_stopping_publishes_what_was_tracked_and_does_not_wait_for_a_publisher_that_hangs(rig: SessionRig) -> None:
    rig.publish_gate.clear()
    rig.offer(1)
    assert rig.publishing.wait(DEADLINE_S)
    rig.offer(2)
    wait_until(lambda: len(rig.tracker.calls) == 2)
    assert not rig.session.stop(0.05)
    rig.publish_gate.set()
    assert rig.wait_for(2).header == "header 2"
    assert rig.session.stop(DEADLINE_S)


def test_a_bug_while_publishing_ends_the_session_and_says_so(rig: SessionRig, caplog: pytest.LogCaptureFixture) -> None:
    rig.publish_error = SystemExit("the worst")
    with caplog.at_level(logging.CRITICAL):
        rig.offer(1)
        wait_until(lambda: rig.session.failure != "")
    late = rig.session.prompt([click("b")], wait=True)
    with pytest.raises(SessionStoppedError, match=r"has died \(SystemExit: the worst\)"):
        late.outcomes.result(DEADLINE_S)
    assert "the worst" in caplog.text


def test_sessions_with_one_model_do_not_wait_for_each_others_publishers(fake_tracker: Any) -> None:
    model_thread = TaskThread()
    slow, quick = (SessionRig(type(fake_tracker)(), model_thread) for _ in range(2))
    slow.publish_gate.clear()
    slow.offer(1)
    assert slow.publishing.wait(DEADLINE_S)
    slow.offer(2)
    slow.offer(3)
    quick.offer(7)
    assert quick.wait_for(1).header == "header 7"
    slow.publish_gate.set()
    slow.close()
    quick.close()
