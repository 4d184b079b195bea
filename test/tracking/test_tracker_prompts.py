"""What prompts do to a tracker: new objects, corrections, and refusals that change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import assert_other_logits, assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(12, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
BOX = {"box": [30, 10, 60, 40]}
RECTANGLE = np.zeros((HEIGHT, WIDTH), bool)
RECTANGLE[12:36, 20:60] = True


@pytest.fixture
def model() -> SAM2:
    return tiny_model(seed=4)


@pytest.fixture
def tracker(model: SAM2) -> Tracker:
    return Tracker(model, lost_after_frames=2)


@pytest.mark.parametrize(
    ("object_id", "prompt"),
    [
        ("mug", {}),
        ("mug", {"points": [[20, 20]], "labels": [3]}),
        ("mug", {"points": [[WIDTH, 20]], "labels": [1]}),
        ("mug", {"box": [WIDTH, 0, WIDTH + 9, 5]}),
        ("mug", {"mask": RECTANGLE[1:]}),
        ("new", {"points": [[WIDTH, 20]], "labels": [1]}),
        ("new", {"points": [[20, 20]], "labels": [0]}),
        ("", CLICK),
        (7, CLICK),
    ],
)
def test_rejected_prompt_changes_nothing(tracker: Tracker, model: SAM2, object_id: str, prompt: dict) -> None:
    undisturbed = Tracker(model, lost_after_frames=2)
    for each in (tracker, undisturbed):
        each.add_prompt("mug", **CLICK)
        each.step(FRAMES[0])
        each.add_prompt("mug", points=[[25, 20]], labels=[0])  # waits while the other is refused
    with pytest.raises(PromptError):
        tracker.add_prompt(object_id, **prompt)
    assert tracker.object_ids == ("mug",)
    for frame in FRAMES[1:3]:
        assert_same_result(tracker.step(frame), undisturbed.step(frame))
    assert tracker.add_prompt("next", **CLICK) == 2


def test_a_prompt_is_checked_against_the_image_it_is_for(tracker: Tracker) -> None:
    tracker.step(FRAMES[0])
    larger = 2 * HEIGHT, 2 * WIDTH
    beyond = {"points": [[WIDTH + 5, HEIGHT + 5]], "labels": [1]}
    with pytest.raises(PromptError, match="80x48"):
        tracker.add_prompt("mug", **beyond)
    tracker.add_prompt("mug", **beyond, frame_size=larger)
    result = tracker.step(np.zeros((*larger, 3), np.uint8))
    assert "mug" in result and result.rejected == ()


@pytest.mark.parametrize("action", [None, PromptAction.ADD, PromptAction.REPLACE])
def test_an_object_does_not_start_from_a_negative_click_alone(tracker: Tracker, action: PromptAction | None) -> None:
    if action is PromptAction.REPLACE:
        tracker.add_prompt("mug", **CLICK)
        tracker.step(FRAMES[0])
    with pytest.raises(PromptError, match=r"the object is .*: expected at least one point labelled 1, a box or a mask"):
        tracker.add_prompt("mug", points=[[5, 5]], labels=[0], action=action)


@pytest.mark.parametrize(
    "misfit",
    [
        {"points": [[WIDTH, 5]], "labels": [1]},
        {"box": [WIDTH, 0, 500, 500]},
        {"mask": np.ones((HEIGHT, WIDTH + 1), bool)},
    ],
    ids=["point", "box", "mask"],
)
def test_prompt_outside_the_first_image_is_reported_with_it(tracker: Tracker, misfit: dict) -> None:
    tracker.add_prompt("good", **CLICK)
    tracker.add_prompt("misfit", **misfit)
    result = tracker.step(FRAMES[0])
    assert [object_id for object_id, _ in result.rejected] == ["misfit"]
    assert "expected" in result.rejected[0][1]
    assert tracker.object_ids == ("good",)
    assert [o.object_id for o in result] == ["good"]
    assert tracker.step(FRAMES[1]).rejected == ()


@pytest.mark.parametrize("shown", [0, 1], ids=["before the first image", "after it"])
def test_a_box_that_reaches_outside_is_as_the_clipped_one(tracker: Tracker, model: SAM2, shown: int) -> None:
    clipped = Tracker(model, lost_after_frames=2)
    for each, box in ((tracker, [-5, 10, WIDTH + 40, 40]), (clipped, [0, 10, WIDTH, 40])):
        for frame in FRAMES[:shown]:
            each.step(frame)
        each.add_prompt("mug", box=box)
    for frame in FRAMES[shown : shown + 2]:
        assert_same_result(tracker.step(frame), clipped.step(frame))


def test_correction_that_a_smaller_image_has_no_place_for_leaves_the_object(tracker: Tracker) -> None:
    tracker.add_prompt("mug", **CLICK)
    tracker.step(FRAMES[0])
    tracker.add_prompt("mug", points=[[70, 40]], labels=[1])
    result = tracker.step(FRAMES[1][:24, :40])
    assert [object_id for object_id, _ in result.rejected] == ["mug"]
    assert result["mug"].state == ObjectState.TRACKED
    assert tracker.object_ids == ("mug",)


@pytest.mark.parametrize(
    "correction", [{"points": [[60, 30]], "labels": [0]}, BOX, {"mask": RECTANGLE}], ids=["click", "box", "mask"]
)
def test_correction_changes_this_mask_and_later_ones(tracker: Tracker, model: SAM2, correction: dict) -> None:
    uncorrected = Tracker(model)
    for each in (tracker, uncorrected):
        each.add_prompt("mug", **CLICK)
        for frame in FRAMES[:2]:
            each.step(frame)
    assert tracker.add_prompt("mug", **correction) == 1
    for frame in FRAMES[2:5]:
        ours, theirs = tracker.step(frame)["mug"], uncorrected.step(frame)["mug"]
        assert ours.label == theirs.label == 1
        assert np.abs(ours.low_res_logits - theirs.low_res_logits).max() > 1e-3


@pytest.mark.parametrize(
    ("prompt", "is_ambiguous"),
    [
        (CLICK, True),
        ({"points": [[20, 20], [40, 30]], "labels": [1, 0]}, False),
        (BOX, False),
        ({**BOX, **CLICK}, False),
    ],
    ids=["click", "two clicks", "box", "box and click"],
)
def test_only_a_lone_click_is_taken_as_ambiguous(
    tracker: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, prompt: dict, is_ambiguous: bool
) -> None:
    candidates: list[int] = []
    decode = model.decode_masks

    def counting(*args, **kwargs):  # type: ignore[no-untyped-def]
        prediction = decode(*args, **kwargs)
        candidates.append(prediction.candidates_bmhw.shape[1])
        return prediction

    monkeypatch.setattr(model, "decode_masks", counting)
    tracker.add_prompt("mug", **prompt)
    tracker.step(FRAMES[0])
    tracker.step(FRAMES[1])
    assert candidates == [3 if is_ambiguous else 1, 3], "the prompted frame, then a tracked one"


def test_corrections_pass_like_tracked_frames_and_given_masks_stay(tracker: Tracker) -> None:
    for frame, prompt in enumerate([CLICK, None, BOX, {"mask": RECTANGLE}, None]):
        if prompt is not None:
            tracker.add_prompt("mug", **prompt)
        tracker.step(FRAMES[frame])
    assert list(tracker._state.tracks["mug"].conditioning) == [0, 3]
    assert list(tracker._state.tracks["mug"].recent) == [1, 2, 4]


def test_corrections_can_be_kept_as_conditioning_frames(model: SAM2) -> None:
    results = []
    for keep in (False, True):
        tracker = Tracker(model, corrections_are_conditioning=keep)
        tracker.add_prompt("mug", **CLICK)
        tracker.step(FRAMES[0])
        tracker.add_prompt("mug", points=[[60, 30]], labels=[1])
        results.append([tracker.step(frame)["mug"].low_res_logits for frame in FRAMES[1:3]])
    assert_same_logits(results[0][0], results[1][0])
    assert_other_logits(results[0][1], results[1][1])


def test_mask_is_returned_as_given(tracker: Tracker) -> None:
    tracker.add_prompt("mug", mask=RECTANGLE)
    tracked = tracker.step(FRAMES[0])["mug"]
    assert (tracked.mask & RECTANGLE).sum() / (tracked.mask | RECTANGLE).sum() > 0.9
    assert tracked.score > 0.99
    assert tracked.mask_quality == 1


def test_cleared_frame_counts_as_tracked_from_then_on(tracker: Tracker) -> None:
    for frame, prompt in enumerate([CLICK, {"mask": RECTANGLE}, None]):
        if prompt is not None:
            tracker.add_prompt("mug", **prompt)
        tracker.step(FRAMES[frame])
    memory = tracker._state.tracks["mug"].conditioning[0]
    tracker.clear_prompts("mug", 0)
    assert list(tracker._state.tracks["mug"].conditioning) == [1]
    assert tracker._state.tracks["mug"].recent[0] is memory, "what was seen is kept"
    with pytest.raises(PromptError, match=r"expected a conditioning frame of it \(1\), got frame 0"):
        tracker.clear_prompts("mug", 0)
    with pytest.raises(PromptError, match="frame 1 is its only conditioning frame"):
        tracker.clear_prompts("mug", 1)
    with pytest.raises(KeyError, match="unknown object 'cup'"):
        tracker.clear_prompts("cup", 0)
    assert list(tracker._state.tracks["mug"].conditioning) == [1]


def test_cleared_frame_that_is_too_old_to_count_as_tracked_is_let_go(tracker: Tracker) -> None:
    for index, frame in enumerate(FRAMES[:11]):
        if index in (0, 6):
            tracker.add_prompt("mug", mask=RECTANGLE)
        tracker.step(frame)
    tracker.clear_prompts("mug", 0)
    assert 0 not in tracker._state.tracks["mug"].frames
    tracker.add_prompt("mug", mask=~RECTANGLE)
    tracker.step(FRAMES[11])
    tracker.clear_prompts("mug", 6)
    memory = tracker._state.tracks["mug"].recent[6]
    assert memory.spatial_bchw is None, "at frame 12 only maps of frames 9 to 11 are attended to"


def test_a_clipped_box_is_noted_when_it_is_clipped_and_in_the_next_result(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=4)
    tracker.add_prompt("early", box=[-5, 10, 40, 40])
    assert tracker.notes == ()  # the image's size is not known yet
    (early,) = tracker.step(FRAMES[0]).notes
    assert early[0] == "early" and "is clipped to [0.0, 10.0, 40.0, 40.0]" in early[1]
    tracker.add_prompt("next", box=[10, 10, 20, 20])
    assert tracker.notes == ()
    tracker.add_prompt("late", box=[10, 10, 900, 40], frame_index=0)
    assert [object_id for object_id, _ in tracker.notes] == ["late"]
    assert tracker.step(FRAMES[1]).notes != () and tracker.notes == ()
    assert tracker.step(FRAMES[2]).notes == ()
