"""A prompt for a past frame gives what it would have given in time; meanwhile the object goes on as it was."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_model import assert_other_logits, assert_same_logits, assert_same_result, logits_of, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking import replay
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptAction, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(16, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
POSITIVE = {"points": [[60, 30]], "labels": [1]}
NEGATIVE = {"points": [[25, 22]], "labels": [0]}
BOX = {"box": [30, 10, 60, 40]}
RECTANGLE = np.zeros((HEIGHT, WIDTH), bool)
RECTANGLE[12:36, 20:60] = True
MASK = {"mask": RECTANGLE}
REPLACE = PromptAction.REPLACE

# Frame at which the prompt comes, object, the frame it is for (None: the next), and the prompt.
Entry = tuple[int, str, int | None, dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model(seed=4)


def play(tracker: Tracker, script: Sequence[Entry], count: int = 13) -> list[FrameResult]:
    results = []
    for index, image in enumerate(FRAMES[:count]):
        for frame, object_id, meant, prompt in script:
            if frame == index:
                tracker.add_prompt(object_id, **prompt, frame_index=meant)
        results.append(tracker.step(image))
    return results


def in_time(script: Sequence[Entry]) -> list[Entry]:
    """The same prompts, each given just before its frame."""
    return [(frame if meant is None else meant, object_id, None, prompt) for frame, object_id, meant, prompt in script]


FIRST: Entry = (0, "mug", None, CLICK)
LATE = {
    "add": [(7, "mug", 3, CLICK)],
    "add in the first frame": [(7, "mug", 0, BOX)],
    "add a mask": [(9, "mug", 4, MASK)],
    "refine, positive": [FIRST, (7, "mug", 4, POSITIVE)],
    "refine, negative": [FIRST, (7, "mug", 4, NEGATIVE)],
    "refine, box": [FIRST, (7, "mug", 4, BOX)],
    "refine, mask": [FIRST, (7, "mug", 4, MASK)],
    "refine the latest frame": [FIRST, (7, "mug", 6, NEGATIVE)],
    "refine the frame it began in": [FIRST, (7, "mug", 0, NEGATIVE)],
    "replace": [FIRST, (7, "mug", 4, {**BOX, "action": REPLACE})],
    "refine twice, the earlier one first": [FIRST, (6, "mug", 3, POSITIVE), (9, "mug", 5, NEGATIVE)],
    "refine between others": [FIRST, (5, "mug", None, BOX), (8, "mug", None, MASK), (9, "mug", 4, NEGATIVE)],
    "refine twice in one frame": [FIRST, (7, "mug", 4, POSITIVE), (7, "mug", 4, NEGATIVE)],
    "refine and go on in the next frame": [FIRST, (7, "mug", 4, POSITIVE), (7, "mug", None, NEGATIVE)],
    "refine two frames at once, the later one first": [FIRST, (8, "mug", 5, NEGATIVE), (8, "mug", 2, POSITIVE)],
    "add, then refine what was added": [(7, "mug", 3, CLICK), (7, "mug", 5, NEGATIVE), (7, "mug", None, POSITIVE)],
}


@pytest.mark.parametrize("script", LATE.values(), ids=LATE)
def test_prompt_for_a_past_frame_gives_what_it_would_have_given_in_time(model: SAM2, script: list[Entry]) -> None:
    late = play(Tracker(model, lost_after_frames=2, buffer_frames=10), script)
    expected = play(Tracker(model, lost_after_frames=2), in_time(script))
    last = max(frame for frame, _, _, _ in script)
    for ours, theirs in zip(late[last:], expected[last:], strict=True):
        assert_same_result(ours, theirs)
    without = play(Tracker(model), [entry for entry in script if entry[2] is None])
    if "mug" in without[-1]:
        assert_other_logits(*(logits_of("mug", results[last:]) for results in (without, late)))  # the prompt does it


def test_a_refinement_before_a_replacement_changes_nothing(model: SAM2) -> None:
    replaced: list[Entry] = [FIRST, (6, "mug", None, {**BOX, "action": REPLACE})]
    ours = play(Tracker(model, buffer_frames=10), [*replaced, (9, "mug", 4, NEGATIVE)], 12)
    for result, expected in zip(ours, play(Tracker(model), replaced, 12), strict=True):
        assert_same_result(result, expected)


def test_prompts_come_later_for_earlier_frames(model: SAM2) -> None:
    """The order in which they come does not matter where each is for a frame of its own."""
    script: list[Entry] = [FIRST, (7, "mug", 5, NEGATIVE), (9, "mug", 2, POSITIVE)]
    late = play(Tracker(model, buffer_frames=10), script)
    expected = play(Tracker(model), in_time(script))
    for ours, theirs in zip(late[9:], expected[9:], strict=True):
        assert_same_result(ours, theirs)


@pytest.mark.parametrize("prompt", [NEGATIVE, BOX, MASK, {**BOX, "action": REPLACE}])
def test_of_two_objects_the_other_does_not_notice(model: SAM2, prompt: dict) -> None:
    """In time they are followed in one batch, later each in its own."""
    script: list[Entry] = [FIRST, (0, "box", None, BOX), (8, "mug", 4, prompt)]
    late, expected, undisturbed = (
        play(Tracker(model, corrections_are_conditioning=True, buffer_frames=10), entries)
        for entries in (script, in_time(script), script[:2])
    )
    for ours, theirs, other in zip(late[8:], expected[8:], undisturbed[8:], strict=True):
        assert_same_logits(ours["mug"].low_res_logits, theirs["mug"].low_res_logits)
        assert_same_logits(ours["box"].low_res_logits, other["box"].low_res_logits)
        assert_other_logits(ours["mug"].low_res_logits, other["mug"].low_res_logits)


def test_several_objects_may_be_prompted_in_the_past_at_once(model: SAM2) -> None:
    script: list[Entry] = [FIRST, (8, "mug", 4, NEGATIVE), (8, "box", 2, BOX), (8, "rectangle", 6, MASK)]
    late, expected = play(Tracker(model, buffer_frames=10), script), play(Tracker(model), in_time(script))
    for ours, theirs in zip(late[8:], expected[8:], strict=True):
        assert [o.object_id for o in ours] == ["mug", "box", "rectangle"]
        for tracked in ours:
            assert_same_logits(tracked.low_res_logits, theirs[tracked.object_id].low_res_logits)


def test_cleared_prompts_are_cleared_when_their_frames_are_replayed(model: SAM2) -> None:
    results = []
    for meant in (None, 3):
        tracker = Tracker(model, buffer_frames=10)
        for index, image in enumerate(FRAMES[:12]):
            if index in (0, 5):
                tracker.add_prompt("mug", mask=RECTANGLE if index else ~RECTANGLE)
            if index == (3 if meant is None else 9):
                tracker.add_prompt("mug", **NEGATIVE, frame_index=meant)
            if index == 7:
                tracker.clear_prompts("mug", 0)
            result = tracker.step(image)
            if index >= 9:
                results.append(result)
        assert list(tracker._state.tracks["mug"].conditioning) == [5]
    for ours, theirs in zip(results[3:], results[:3], strict=True):
        assert_same_result(ours, theirs)


def test_prompts_cleared_since_the_latest_frame_stay_cleared_in_a_replay(model: SAM2) -> None:
    results = []
    for meant in (None, 3):
        tracker = Tracker(model, buffer_frames=10)
        for index, image in enumerate(FRAMES[:9]):
            if index in (0, 5):
                tracker.add_prompt("mug", mask=RECTANGLE if index else ~RECTANGLE)
            if index == 7:
                tracker.clear_prompts("mug", 0)
            if index == (3 if meant is None else 7):
                tracker.add_prompt("mug", **NEGATIVE, frame_index=meant)
            results.append(tracker.step(image))
        assert list(tracker._state.tracks["mug"].conditioning) == [5]
    for ours, theirs in zip(results[16:], results[7:9], strict=True):
        assert_same_result(ours, theirs)


@pytest.mark.parametrize("budget_ms", [0.0, 1e-9])
@pytest.mark.parametrize("script", [LATE["refine, negative"], LATE["replace"]], ids=["refine", "replace"])
def test_while_behind_a_known_object_continues_on_its_old_track(
    model: SAM2, script: list[Entry], budget_ms: float
) -> None:
    tracker = Tracker(model, buffer_frames=10, catchup_budget_ms=budget_ms)
    expected, undisturbed = play(Tracker(model), in_time(script)), play(Tracker(model), script[:1])
    behind = []
    for index, image in enumerate(FRAMES[:13]):
        for frame, object_id, meant, prompt in script:
            if frame == index:
                tracker.add_prompt(object_id, **prompt, frame_index=meant)
        result = tracker.step(image)
        behind.append(tracker.frames_behind.get("mug", 0))
        assert_same_result(result, undisturbed[index] if index < 7 or behind[-1] else expected[index])
    # Frames 4 to 6 are missing when the prompt comes; two are made good before each new one.
    assert behind == [0] * 7 + [2] + [0] * 5


def test_while_behind_a_new_object_is_pending_with_an_empty_mask(model: SAM2) -> None:
    script = LATE["add, then refine what was added"]
    tracker = Tracker(model, buffer_frames=10, catchup_budget_ms=0)
    ours, expected = play(tracker, script), play(Tracker(model), in_time(script))
    states = [result["mug"].state for result in ours[7:]]
    arrived = states.index(ObjectState.TRACKED)
    assert arrived > 1
    for result in ours[7 : 7 + arrived]:
        pending = result["mug"]
        assert pending.state is ObjectState.PENDING
        assert pending.mask.shape == (HEIGHT, WIDTH) and not pending.mask.any() and not result.label_image.any()
        assert (pending.score, pending.area_px, pending.box_xyxy) == (0, 0, None)
    for result, theirs in zip(ours[7 + arrived :], expected[7 + arrived :], strict=True):
        assert_same_result(result, theirs)


def test_a_prompt_for_now_counts_also_while_its_object_is_behind(model: SAM2) -> None:
    """On the old track, so that the user sees it at once, and on the new one."""
    script: list[Entry] = [FIRST, (8, "mug", 2, MASK), (8, "mug", None, BOX)]
    tracker = Tracker(model, buffer_frames=10, catchup_budget_ms=0)
    old, new = play(Tracker(model), [FIRST, script[2]], 14), play(Tracker(model), in_time(script), 14)
    arrived = False
    for index, image in enumerate(FRAMES[:14]):
        for frame, object_id, meant, prompt in script:
            if frame == index:
                tracker.add_prompt(object_id, **prompt, frame_index=meant)
        result = tracker.step(image)
        arrived = index > 8 and not tracker.frames_behind
        assert_same_result(result, (new if arrived else old)[index])
    assert arrived
    assert_other_logits(*(logits_of("mug", results[9:]) for results in (old, new)))


def test_a_prompt_for_now_that_does_not_fit_leaves_a_new_object_on_its_way(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=10, catchup_budget_ms=0)
    play(tracker, [], 8)
    tracker.add_prompt("mug", **CLICK, frame_index=1)
    tracker.add_prompt("mug", **POSITIVE)
    result = tracker.step(noise_frames(1, 24, 40)[0])  # a camera that has changed its size
    assert [object_id for object_id, _ in result.rejected] == ["mug"]
    assert result["mug"].state is ObjectState.PENDING
    tracker.catch_up()
    assert tracker.step(FRAMES[9])["mug"].state is not ObjectState.PENDING


@pytest.mark.parametrize(
    ("budget_ms", "behind"), [(0.0, 6), (15.0, 6), (35.0, 5), (1e6, 0), (None, 0)], ids=lambda value: str(value)
)
def test_the_budget_is_in_milliseconds(
    model: SAM2, monkeypatch: pytest.MonkeyPatch, budget_ms: float | None, behind: int
) -> None:
    """With a clock that goes on by 10 ms at every look: one at the start, one before each frame."""
    ticks = itertools.count()
    monkeypatch.setattr(replay, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 0.01))
    tracker = Tracker(model, buffer_frames=10, catchup_budget_ms=budget_ms)
    play(tracker, [(8, "mug", 1, CLICK)], 9)  # it has missed frames 1 to 7, and 8 comes meanwhile
    assert tracker.frames_behind.get("mug", 0) == behind


def test_an_object_is_replayed_between_images(model: SAM2) -> None:
    script = LATE["add"]
    tracker, expected = Tracker(model, buffer_frames=10, catchup_budget_ms=0), play(Tracker(model), in_time(script))
    for image in FRAMES[:7]:
        tracker.step(image)
    tracker.add_prompt("mug", **CLICK, frame_index=3)
    assert tracker.frames_behind == {"mug": 4}
    assert [tracker.catch_up(budget_ms=0) for _ in range(2)] == [3, 2]
    assert tracker.catch_up() == 0 and tracker.frames_behind == {}
    assert tracker.catch_up() == 0
    for image, theirs in zip(FRAMES[7:13], expected[7:], strict=True):
        assert_same_result(tracker.step(image), theirs)


@pytest.mark.parametrize("buffer_frames", [1, 2, 3, 9])
def test_an_object_that_is_behind_arrives_before_the_frames_run_out(model: SAM2, buffer_frames: int) -> None:
    """With the smallest budget, several objects and a full buffer."""
    tracker = Tracker(model, buffer_frames=buffer_frames, catchup_budget_ms=0)
    for image in FRAMES[:10]:
        tracker.step(image)
    for number in range(3):
        tracker.add_prompt(str(number), **CLICK, frame_index=10 - buffer_frames + min(number, buffer_frames - 1))
    for count in range(3 * buffer_frames):
        result = tracker.step(FRAMES[count % len(FRAMES)])
        if not tracker.frames_behind:
            break
        tracker.add_prompt("0", **NEGATIVE, frame_index=result.frame_index)
    assert not tracker.frames_behind
    assert [tracked.state for tracked in result] == [ObjectState.TRACKED] * 3


def test_the_buffer_is_bounded_also_while_an_object_is_behind(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=3, catchup_budget_ms=0)
    play(tracker, [FIRST, (8, "mug", 6, NEGATIVE)])
    assert list(tracker._state.past) == [10, 11, 12]
    assert len(tracker._state.tracks["mug"].recent) <= 7


STAMPS_S = [10.0, 10.1, 10.2, 10.6, 10.7]  # the camera lost some images


@pytest.mark.parametrize(
    ("stamp_s", "frame"),
    [(10.0, 0), (10.1, 1), (10.13, 1), (10.18, 2), (10.3, 2), (10.5, 3), (10.69, 4), (10.7, 4), (10.71, 5), (11.2, 5)],
)
def test_the_frame_nearest_in_time_is_meant(model: SAM2, stamp_s: float, frame: int) -> None:
    results = []
    for meant in ({"stamp_s": stamp_s}, {"frame_index": frame}):
        tracker = Tracker(model, buffer_frames=5)
        for image, each_s in zip(FRAMES, STAMPS_S, strict=False):
            tracker.step(image, each_s)
        tracker.add_prompt("mug", **CLICK, **meant)
        results.append(tracker.step(FRAMES[5], 10.8))
    assert_same_result(*results)
    assert list(tracker._state.tracks["mug"].conditioning) == [frame]


@pytest.mark.parametrize(
    ("meant", "message"),
    [
        (
            {"frame_index": 1},
            r"frame 1 is too old: it came 3 frames before the latest \(4\), .* \(prompt_buffer_s of",
        ),
        ({"frame_index": -1}, r"expected a frame from 0 to 5 \(the next\), got -1"),
        ({"frame_index": 6}, r"expected a frame from 0 to 5 \(the next\), got 6"),
        ({"frame_index": 2.0}, "expected a frame from 0 to 5"),
        (
            {"stamp_s": 10.1},
            "taken 0.60 s before the latest, and what is kept reaches back 2 frames, to frame 2, 0.50 s",
        ),
        ({"stamp_s": float("nan")}, "expected a finite time in seconds, got nan"),
        ({"stamp_s": 10.2, "frame_index": 2}, "expected a frame_index or a stamp, got both"),
        ({"frame_index": 2, "points": [[WIDTH, 0]]}, "the image is 80x48"),
        ({"frame_index": 2, "action": PromptAction.REFINE}, "no object 'new' to refine"),
        ({"frame_index": 2, "labels": [0]}, "the object is new: expected at least one point labelled 1"),
        ({"frame_index": 2, "object_id": "mug"}, "it did not exist yet in frame 2: expected a later frame"),
        ({"frame_index": 2, "object_id": "mug", "action": REPLACE}, "it did not exist yet in frame 2"),
    ],
)
def test_rejected_prompt_for_the_past_changes_nothing(model: SAM2, meant: dict, message: str) -> None:
    tracker, undisturbed = Tracker(model, buffer_frames=3), Tracker(model, buffer_frames=3)
    for each in (tracker, undisturbed):
        for index, (image, each_s) in enumerate(zip(FRAMES, STAMPS_S, strict=False)):
            if index == 3:
                each.add_prompt("mug", **BOX)
            each.step(image, each_s)
    with pytest.raises(PromptError, match=message):
        tracker.add_prompt(**{"object_id": "new", **CLICK, **meant})
    assert tracker.frames_behind == {}
    assert_same_result(tracker.step(FRAMES[5]), undisturbed.step(FRAMES[5]))
    assert tracker.add_prompt("next", **CLICK) == 2


@pytest.mark.parametrize(
    ("stamp_s", "said"),
    [
        (14.9, r"stamp: the nearest image was taken 4.90 s earlier than the one it names, at most 0.5 s"),
        (17.0, r"stamp: the nearest image was taken 2.80 s later than the one it names"),
    ],
)
def test_a_stamp_that_is_far_from_every_image_is_rejected(model: SAM2, stamp_s: float, said: str) -> None:
    tracker = Tracker(model, buffer_frames=5)
    for image, each_s in zip(FRAMES, (9.9, 10.0, 19.8), strict=False):  # the camera stood still for a while
        tracker.step(image, each_s)
    with pytest.raises(PromptError, match=said):
        tracker.add_prompt("mug", **CLICK, stamp_s=stamp_s)
    assert tracker.object_ids == ()
    assert tracker.add_prompt("mug", **CLICK, stamp_s=19.5) == 1, "this one is near enough"


def test_a_stamp_of_the_future_that_the_next_image_does_not_have_is_rejected_by_it(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=5)
    tracker.step(FRAMES[0], 10.0)
    for name, stamp_s in (("far", 14.9), ("near", 10.4)):
        tracker.add_prompt(name, **CLICK, stamp_s=stamp_s)
    result = tracker.step(FRAMES[1], 10.1)
    ((object_id, why),) = result.rejected
    assert object_id == "far" and "the next image was taken 4.80 s earlier than the one it names" in why
    assert tracker.object_ids == ("near",)


def test_a_stamp_means_an_image_of_its_own_clock_where_two_take_turns(model: SAM2) -> None:
    tracker = Tracker(model, buffer_frames=5)
    for image, each_s in zip(FRAMES, (100.0, 5.0, 100.1, 5.1), strict=False):
        tracker.step(image, each_s)
    tracker.add_prompt("mug", **CLICK, stamp_s=100.02)
    tracker.step(FRAMES[4], 100.2)
    assert list(tracker._state.tracks["mug"].conditioning) == [0]


def test_without_a_buffer_or_stamps_there_is_no_past(model: SAM2) -> None:
    tracker = Tracker(model)
    tracker.add_prompt("early", **CLICK, stamp_s=3.8)  # nothing has been seen: the first image is meant
    assert tracker.step(FRAMES[0], 4.0)["early"].state is ObjectState.TRACKED
    with pytest.raises(PromptError, match=r"taken 0.50 s before the latest, and no past frames are kept"):
        tracker.add_prompt("mug", **CLICK, stamp_s=3.5)
    with pytest.raises(PromptError, match="and no past frames are kept"):
        tracker.add_prompt("mug", **CLICK, frame_index=0)
    tracker.step(FRAMES[1])
    with pytest.raises(PromptError, match="the latest image came without one"):
        tracker.add_prompt("mug", **CLICK, stamp_s=4.0)
    with pytest.raises(ValueError, match="buffer_frames: expected 0 or more, got -1"):
        Tracker(model, buffer_frames=-1)
