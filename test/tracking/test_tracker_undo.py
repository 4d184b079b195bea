"""Undo: the object as it would be without its latest prompt, whichever frame that was for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_model import assert_other_logits, assert_same_result, logits_of, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

pytestmark = pytest.mark.numeric

FRAMES = noise_frames(14)
CLICK = {"points": [[20, 20]], "labels": [1]}
NEGATIVE = {"points": [[25, 22]], "labels": [0]}
BOX = {"box": [30, 10, 60, 40]}
RECTANGLE = np.zeros((48, 80), bool)
RECTANGLE[12:36, 20:60] = True
MASK = {"mask": RECTANGLE}
REPLACE = PromptAction.REPLACE


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model(seed=4)


def steps(tracker: Tracker, first: int, last: int) -> None:
    for image in FRAMES[first : last + 1]:
        tracker.step(image)


def assert_same_from(tracker: Tracker, expected: Tracker, first: int, last: int) -> None:
    for image in FRAMES[first : last + 1]:
        assert_same_result(tracker.step(image), expected.step(image))


# The prompt to take back, and the frame it is for when it comes after frame 7; None: the next.
TAKEN_BACK: dict[str, tuple[dict[str, Any], int | None]] = {
    "click": (NEGATIVE, None),
    "box": (BOX, None),
    "mask": (MASK, None),
    "replacement": ({**BOX, "action": REPLACE}, None),
    "mask in the past": (MASK, 4),
    "replacement in the past": ({**BOX, "action": REPLACE}, 4),
}


@pytest.mark.parametrize("others_come", [False, True], ids=["", "other prompts in between"])
@pytest.mark.parametrize(("prompt", "meant"), TAKEN_BACK.values(), ids=TAKEN_BACK)
def test_undo_removes_the_latest_prompt(model: SAM2, prompt: dict, meant: int | None, others_come: bool) -> None:
    tracker, kept, expected = Tracker(model, buffer_frames=10), Tracker(model, buffer_frames=10), Tracker(model)
    for each in (tracker, kept, expected):
        each.add_prompt("mug", **CLICK)
        steps(each, 0, 2)
        if others_come:
            each.add_prompt("mug", **MASK)
        steps(each, 3, 7)
        if each is not expected:
            each.add_prompt("mug", **prompt, frame_index=meant)
        steps(each, 8, 9)
    tracker.undo("mug")
    undone, not_undone, without = ([each.step(image) for image in FRAMES[10:13]] for each in (tracker, kept, expected))
    for ours, theirs in zip(undone, without, strict=True):
        assert_same_result(ours, theirs)
    assert_other_logits(*(logits_of("mug", results) for results in (not_undone, without)))


@pytest.mark.parametrize("frame", [0, 3], ids=["the frame it began in", "a later one"])
def test_undo_leaves_the_other_prompts_of_its_frame(model: SAM2, frame: int) -> None:
    """A click, a look, a mask on the same frame, and that one back."""
    tracker, two, one = Tracker(model, buffer_frames=12), Tracker(model), Tracker(model)
    for index, image in enumerate(FRAMES[:6]):
        for each in (tracker, two, one):
            if index == 0:
                each.add_prompt("mug", **CLICK)
            if index == frame and each is not one:
                each.add_prompt("mug", **BOX)
            each.step(image)
    tracker.add_prompt("mug", **MASK, frame_index=frame)
    with_it, without = (each.step(FRAMES[6])["mug"].low_res_logits for each in (tracker, two))
    assert_other_logits(with_it, without)  # there was something to take back
    one.step(FRAMES[6])
    tracker.undo("mug")
    assert_same_from(tracker, two, 7, 8)
    tracker.undo("mug")
    steps(one, 7, 8)
    assert_same_from(tracker, one, 9, 10)


def test_the_last_conditioning_frame_stays_though_its_prompts_were_cleared(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=12)
    for index, image in enumerate(FRAMES[:8]):
        if index in (0, 5):
            tracker.add_prompt("mug", mask=RECTANGLE if index else ~RECTANGLE)
        tracker.step(image)
    tracker.clear_prompts("mug", 0)
    steps(tracker, 8, 8)
    assert list(tracker._state.tracks["mug"].conditioning) == [5]
    tracker.undo("mug")  # of the mask on frame 5: an object without any memory could not be followed
    assert tracker.step(FRAMES[9])["mug"].state is not ObjectState.PENDING
    assert list(tracker._state.tracks["mug"].conditioning) == [0]


def test_undo_removes_prompts_one_by_one_the_latest_first(model: SAM2) -> None:
    tracker, two, one = Tracker(model, buffer_frames=12), Tracker(model), Tracker(model)
    for index, image in enumerate(FRAMES[:8]):
        for each in (tracker, two, one):
            if index == 0:
                each.add_prompt("mug", **CLICK)
            if index == 5 and each is not one:
                each.add_prompt("mug", **BOX)
            if index == 7 and each is tracker:
                each.add_prompt("mug", **MASK, frame_index=3)  # the latest, though for an earlier frame
            each.step(image)
    tracker.undo("mug")
    assert_same_from(tracker, two, 8, 9)
    tracker.undo("mug")
    one.step(FRAMES[8])
    one.step(FRAMES[9])
    assert_same_from(tracker, one, 10, 11)
    with pytest.raises(PromptError, match=r"^nothing to undo: it has only its first prompt; remove the object"):
        tracker.undo("mug")


def test_undone_prompt_that_still_waits_never_happened(model: SAM2) -> None:
    tracker, expected = Tracker(model), Tracker(model)
    for each in (tracker, expected):
        each.add_prompt("mug", **CLICK)
    tracker.add_prompt("mug", **NEGATIVE)
    tracker.undo("mug")
    assert_same_from(tracker, expected, 0, 1)
    tracker.add_prompt("mug", **BOX)
    tracker.undo("mug")
    assert_same_from(tracker, expected, 2, 3)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_the_first_prompt_cannot_be_undone(model: SAM2, is_waiting: bool) -> None:
    tracker = Tracker(model, buffer_frames=3)
    tracker.add_prompt("mug", **CLICK)
    if not is_waiting:
        tracker.step(FRAMES[0])
    with pytest.raises(PromptError, match="nothing to undo: it has only its first prompt"):
        tracker.undo("mug")
    assert tracker.step(FRAMES[1])["mug"].state is ObjectState.TRACKED


def test_unknown_object_is_a_key_error(model: SAM2) -> None:
    with pytest.raises(KeyError, match="unknown object 'cup'; known objects: none"):
        Tracker(model).undo("cup")


@pytest.mark.parametrize(
    ("buffer_frames", "reach"),
    [(2, "what is kept reaches back 1 frames, to frame 4"), (0, "no past frames are kept")],
)
def test_undo_beyond_the_buffer_is_rejected(model: SAM2, buffer_frames: int, reach: str) -> None:
    tracker, expected = Tracker(model, buffer_frames=buffer_frames), Tracker(model)
    for each in (tracker, expected):
        each.add_prompt("mug", **CLICK)
        steps(each, 0, 2)
        each.add_prompt("mug", **NEGATIVE)
        steps(each, 3, 5)
    with pytest.raises(PromptError, match=f"its latest prompt was for frame 3, and {reach}"):
        tracker.undo("mug")
    assert_same_from(tracker, expected, 6, 7)


def test_a_prompt_in_reach_is_not_undone_in_place_of_a_later_one_that_is_not(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=4)
    tracker.add_prompt("mug", **CLICK)
    steps(tracker, 0, 3)
    tracker.add_prompt("mug", **BOX)  # for frame 4
    tracker.step(FRAMES[4])
    tracker.add_prompt("mug", **NEGATIVE, frame_index=1)  # later, for a frame that goes first
    steps(tracker, 5, 6)
    assert list(tracker._state.past) == [3, 4, 5, 6]
    with pytest.raises(PromptError, match="its latest prompt was for frame 1"):
        tracker.undo("mug")


@pytest.mark.parametrize("caught_up_frames", [0, 1, 2])
def test_undo_while_behind(model: SAM2, caught_up_frames: int) -> None:
    tracker, expected = Tracker(model, buffer_frames=10, catchup_budget_ms=0), Tracker(model)
    for each in (tracker, expected):
        each.add_prompt("mug", **CLICK)
        steps(each, 0, 7)
    tracker.add_prompt("mug", **MASK, frame_index=3)
    for _ in range(caught_up_frames):
        tracker.catch_up(budget_ms=0)
    tracker.undo("mug")
    while tracker.catch_up(budget_ms=0):
        pass
    assert_same_from(tracker, expected, 8, 9)
