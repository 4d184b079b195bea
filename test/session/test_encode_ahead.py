"""A session that encodes the next image while it works on one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from session_rig import DEADLINE_S, SessionRig, click


@pytest.fixture
def rig(fake_tracker: Any) -> Iterator[SessionRig]:
    rig = SessionRig(fake_tracker, encode_ahead=True)
    yield rig
    fake_tracker.gate.set()
    assert rig.session.stop(DEADLINE_S)


def hold_second_of_two(rig: SessionRig, first: int, second: int) -> threading.Event:
    """Two images, the second of which had to wait and is at work now, until the gate that is returned is set."""
    tracker = rig.tracker
    tracker.gates = {value: threading.Event() for value in (first, second)}
    tracker.in_step.clear()
    rig.offer(first)
    assert tracker.in_step.wait(DEADLINE_S)
    tracker.in_step.clear()
    rig.offer(second)
    tracker.gates[first].set()
    assert tracker.in_step.wait(DEADLINE_S)
    return tracker.gates[second]


def test_the_image_behind_one_that_had_to_wait_is_encoded_ahead(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3)
    assert rig.tracker.encoded.wait(DEADLINE_S)
    rig.offer(4)  # does not take its place
    gate.set()
    assert [rig.wait_for(count).header for count in (1, 2, 3, 4)] == [f"header {value}" for value in (1, 2, 3, 4)]
    calls = [call for call in rig.tracker.calls if call.startswith("step") or call == "encode 3"]
    assert calls[:4] == ["step 1", "encode 3", "step 2", "step 3 ahead"]


def test_without_the_parameter_nothing_is(fake_tracker: Any) -> None:
    rig = SessionRig(fake_tracker)
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3)
    gate.set()
    rig.wait_for(3)
    rig.close()
    assert not fake_tracker.encoded.is_set()


def test_while_the_model_keeps_up_and_while_nothing_is_tracked_nothing_is(rig: SessionRig) -> None:
    hold_second_of_two(rig, 1, 2).set()  # nothing is tracked yet
    rig.wait_for(2)
    rig.prompt(click("a"))
    for count in (3, 4, 5):
        rig.offer(count)
        rig.wait_for(count)
        rig.settle()
    assert not rig.tracker.encoded.is_set()


def test_an_image_that_cannot_be_read_is_told_once_and_the_next_one_is_processed(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3, readable=False)
    assert rig.refused.wait(DEADLINE_S)  # ahead of its turn
    gate.set()
    rig.wait_for(2)
    rig.settle()
    rig.offer(4)
    assert rig.wait_for(3).header == "header 4"
    assert rig.session.stats().failed == 1
    assert "yuv" in rig.session.stats().last_error


def test_prompts_between_are_for_the_image_that_was_encoded_ahead(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3)
    assert rig.tracker.encoded.wait(DEADLINE_S)
    ticket = rig.session.prompt([click("b")], wait=True)
    gate.set()
    assert ticket.first_view.result(DEADLINE_S).header == "header 3"
    assert rig.tracker.calls[-2:] == ["prompt b", "step 3 ahead"]


def test_it_ends_when_nothing_waits_behind_the_image_that_was_encoded_ahead(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3)
    assert rig.tracker.encoded.wait(DEADLINE_S)
    rig.tracker.gates[3] = threading.Event()
    rig.tracker.in_step.clear()
    gate.set()
    assert rig.tracker.in_step.wait(DEADLINE_S)
    rig.tracker.encoded.clear()
    rig.offer(4)  # while 3 is at work, by itself
    rig.tracker.gates[3].set()
    rig.wait_for(4)
    assert "step 3 ahead" in rig.tracker.calls and "step 4" in rig.tracker.calls
    assert not rig.tracker.encoded.is_set()


def test_time_that_jumps_back_forgets_the_image_that_was_encoded_ahead(rig: SessionRig) -> None:
    rig.prompt(click("a"))
    gate = hold_second_of_two(rig, 1, 2)
    rig.offer(3)
    assert rig.tracker.encoded.wait(DEADLINE_S)
    rig.offer(4, stamp_s=-100.0)
    gate.set()
    rig.wait_for(3)
    assert rig.published[2].header == "header 4"
    assert "step 3 ahead" not in rig.tracker.calls


def test_every_frame_in_order(fake_tracker: Any) -> None:
    rig = SessionRig(fake_tracker, encode_ahead=True, process_every_frame=True)
    rig.prompt(click("a"))
    fake_tracker.gate.clear()
    rig.offer(1, stamp_s=1)
    assert fake_tracker.in_step.wait(DEADLINE_S)
    for value in range(2, 9):
        rig.offer(value, stamp_s=value)
    late = rig.session.prompt([click("b", stamp_ns=5_000_000_000)])
    fake_tracker.gate.set()
    assert rig.wait_for(8).header == "header 8"
    assert late.outcomes.result(DEADLINE_S)[0].accepted
    rig.close()
    done = [call.removesuffix(" ahead") for call in fake_tracker.calls if call.startswith(("step", "prompt"))]
    steps = [f"step {value}" for value in range(1, 9)]
    assert done == ["prompt a", *steps[:4], "prompt b at 5 s", *steps[4:]]
    assert rig.session.stats().dropped == 0
