"""What goes wrong around a prompt for a past frame: removals, resets, other image sizes, and a model that raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_model import assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking import results
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(14, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
NEGATIVE = {"points": [[25, 22]], "labels": [0]}
BOX = {"box": [30, 10, 60, 40]}


@pytest.fixture
def model() -> SAM2:
    return tiny_model(seed=4)


@pytest.fixture
def behind(model: SAM2) -> Tracker:
    """After frame 6: "mug", refined in frame 3 and "new", added in frame 4, are two frames on their way to now."""
    tracker = Tracker(model, lost_after_frames=2, buffer_frames=10, catchup_budget_ms=0)
    run_first_frames(tracker)
    tracker.add_prompt("mug", **NEGATIVE, frame_index=3)
    tracker.add_prompt("new", **BOX, frame_index=4)
    tracker.catch_up(budget_ms=0)
    assert tracker.frames_behind == {"mug": 3, "new": 3}
    return tracker


def run_first_frames(tracker: Tracker) -> None:
    tracker.add_prompt("mug", **CLICK)
    for image in FRAMES[:7]:
        tracker.step(image)


def without_the_prompts(model: SAM2) -> Tracker:
    tracker = Tracker(model, lost_after_frames=2)
    run_first_frames(tracker)
    return tracker


def test_removed_while_behind(behind: Tracker, model: SAM2) -> None:
    behind.remove("new")
    behind.remove("mug")
    assert behind.object_ids == () and behind.frames_behind == {}
    assert behind.catch_up() == 0
    assert len(behind.step(FRAMES[7])) == 0
    assert behind.add_prompt("mug", **BOX, frame_index=5) == 3, "another object of that name, with another past"
    behind.step(FRAMES[8])
    behind.catch_up()
    assert sorted(behind._state.tracks["mug"].frames) == [5, 6, 7, 8]


def test_one_of_two_removed_while_behind(behind: Tracker, model: SAM2) -> None:
    behind.remove("mug")
    behind.catch_up()
    expected = Tracker(model)
    for index, image in enumerate(FRAMES[:9]):
        if index == 4:
            expected.add_prompt("new", **BOX)
        result = expected.step(image)
        if index >= 7:
            ours = behind.step(image)
            assert_same_logits(ours["new"].low_res_logits, result["new"].low_res_logits)


def test_cleared_while_behind_past_frames_can_still_be_prompted(behind: Tracker) -> None:
    behind.clear()
    assert behind.frames_behind == {} and len(behind.step(FRAMES[7])) == 0
    assert behind.add_prompt("mug", **CLICK, frame_index=2) == 3
    behind.catch_up()
    assert behind.step(FRAMES[8])["mug"].state is ObjectState.TRACKED


def test_reset_while_behind_forgets_the_past(behind: Tracker, model: SAM2) -> None:
    behind.reset()
    assert behind.frames_behind == {}
    with pytest.raises(PromptError, match="expected a frame from 0 to 0"):
        behind.add_prompt("mug", **CLICK, frame_index=3)
    new = Tracker(model, lost_after_frames=2)
    for each in (behind, new):
        each.add_prompt("mug", **CLICK)
    assert_same_result(behind.step(FRAMES[0]), new.step(FRAMES[0]))


def test_prompts_cannot_be_cleared_while_behind(behind: Tracker) -> None:
    for object_id in ("mug", "new"):
        with pytest.raises(PromptError, match=f"{object_id} is still being replayed: call catch_up first"):
            behind.clear_prompts(object_id, 4)


def test_a_prompt_is_checked_against_the_size_of_its_own_frame(model: SAM2) -> None:
    sizes = [(48, 80), (48, 80), (24, 40), (24, 40), (60, 100)]
    images = [noise_frames(1, height, width, seed)[0] for seed, (height, width) in enumerate(sizes)]
    results = []
    for late in (False, True):
        tracker = Tracker(model, buffer_frames=5)
        for index, image in enumerate(images):
            for meant, place in ((1, (70, 40)), (2, (30, 20))):
                if index == (4 if late else meant):
                    tracker.add_prompt("mug", points=[place], labels=[1], frame_index=meant)
            result = tracker.step(image)
        results.append(result)
        with pytest.raises(PromptError, match="the image is 40x24"):
            tracker.add_prompt("mug", points=[[70, 40]], labels=[1], frame_index=2)
    assert_same_result(*results)


class ModelError(RuntimeError):
    """Stands for what the model or the device may raise."""


def fail(*_: object, **__: object) -> None:
    raise ModelError("out of luck")


@pytest.mark.parametrize("where", ["encode_image", "describe"])
def test_failing_step_leaves_those_behind_where_they_were(
    behind: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*((results, "logits_in_image") if where == "describe" else (model, where)), fail)
        with pytest.raises(ModelError):
            behind.step(FRAMES[7])
    assert behind.frames_behind == {"mug": 3, "new": 3}
    assert list(behind._state.past) == list(range(7))
    behind.catch_up()
    in_time = Tracker(model, lost_after_frames=2)
    for index, image in enumerate(FRAMES[:9]):
        if index in (0, 3):
            in_time.add_prompt("mug", **(NEGATIVE if index else CLICK))
        expected = in_time.step(image)
        if index >= 7:
            result = behind.step(image)
            assert_same_logits(result["mug"].low_res_logits, expected["mug"].low_res_logits)


def fail_with_boxes(model: SAM2) -> Callable:
    decode = model.decode_masks

    def failing(conditioned, features, points=None, mask_logits=None, multimask=True):  # type: ignore[no-untyped-def]
        if points is not None and (points.labels_bn == 2).any():
            raise ModelError("no boxes today")
        return decode(conditioned, features, points, mask_logits, multimask)

    return failing


@pytest.mark.parametrize("in_step", [True, False], ids=["in step", "in catch_up"])
def test_prompt_for_the_past_that_makes_the_model_fail_is_rejected(
    model: SAM2, monkeypatch: pytest.MonkeyPatch, in_step: bool
) -> None:
    tracker, undisturbed = Tracker(model, lost_after_frames=2, buffer_frames=10), without_the_prompts(model)
    run_first_frames(tracker)
    monkeypatch.setattr(model, "decode_masks", fail_with_boxes(model))
    tracker.add_prompt("mug", **BOX, frame_index=3)
    tracker.add_prompt("new", **BOX, frame_index=4)
    if not in_step:
        tracker.catch_up()
        assert tracker.object_ids == ("mug",)
    result, expected = tracker.step(FRAMES[7]), undisturbed.step(FRAMES[7])
    why = "the model could not apply the prompt: ModelError: no boxes today"
    assert result.rejected == (("mug", why), ("new", why))
    assert [o.object_id for o in result] == ["mug"]
    assert_same_logits(result["mug"].low_res_logits, expected["mug"].low_res_logits)
    assert_same_result(tracker.step(FRAMES[8]), undisturbed.step(FRAMES[8]))
    with pytest.raises(PromptError, match="nothing to undo: it has only its first prompt"):
        tracker.undo("mug")


def test_a_failed_replay_does_not_stop_the_stream(
    behind: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model, "attend_to_memory", fail)
        behind.catch_up()
    assert behind.frames_behind == {}
    undisturbed = without_the_prompts(model)
    result, expected = behind.step(FRAMES[7]), undisturbed.step(FRAMES[7])
    assert [object_id for object_id, _ in result.rejected] == ["mug", "new"]
    assert "frame 4 could not be replayed: ModelError: out of luck" in result.rejected[0][1]
    assert_same_logits(result["mug"].low_res_logits, expected["mug"].low_res_logits)
    assert_same_result(behind.step(FRAMES[8]), undisturbed.step(FRAMES[8]))


def test_a_prompt_dropped_after_its_frame_was_let_go_does_not_stand_in_the_way_of_undo(
    model: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, expected = Tracker(model, buffer_frames=4, catchup_budget_ms=0), Tracker(model)
    for each in (tracker, expected):
        each.add_prompt("mug", **CLICK)
        for index, image in enumerate(FRAMES[:7]):
            if each is tracker and index == 5:
                each.add_prompt("mug", **BOX)
            if each is tracker and index == 6:
                each.add_prompt("mug", **NEGATIVE, frame_index=2)
            each.step(image)
    assert tracker.frames_behind == {"mug": 3} and 2 not in tracker._state.past
    with pytest.raises(PromptError, match="its latest prompt was for frame 2"):
        tracker.undo("mug")
    with monkeypatch.context() as patch:
        patch.setattr(model, "attend_to_memory", fail)
        tracker.catch_up()
    tracker.undo("mug")
    result, theirs = tracker.step(FRAMES[7]), expected.step(FRAMES[7])
    assert [object_id for object_id, _ in result.rejected] == ["mug"]
    assert_same_logits(result["mug"].low_res_logits, theirs["mug"].low_res_logits)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_prompts_fault(
    behind: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise interrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_memory", stop)
        with pytest.raises(interrupt):
            behind.catch_up()
    assert behind.frames_behind == {"mug": 3, "new": 3}


def out_of_memory(monkeypatch: pytest.MonkeyPatch, model: SAM2, name: str, times: int) -> None:
    """Let the first calls of a part of the model raise."""
    real, left = getattr(model, name), [MemoryError("no more") for _ in range(times)]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(model, name, call)


@pytest.mark.parametrize(("times", "stays"), [(1, True), (2, False)])
def test_a_prompt_without_memory_is_tried_again_before_its_object_goes(
    model: SAM2, monkeypatch: pytest.MonkeyPatch, times: int, stays: bool
) -> None:
    tracker = Tracker(model)
    tracker.add_prompt("mug", **CLICK)
    out_of_memory(monkeypatch, model, "decode_masks", times)
    result = tracker.step(FRAMES[0])
    assert tracker.object_ids == (("mug",) if stays else ())
    assert [why for _, why in result.rejected] == (
        [] if stays else ["the model could not apply the prompt: MemoryError: no more"]
    )


@pytest.mark.parametrize(("times", "given_up"), [(1, []), (2, ["mug"])])
def test_a_replay_without_memory_is_tried_again_before_it_is_given_up(
    behind: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, times: int, given_up: list[str]
) -> None:
    out_of_memory(monkeypatch, model, "attend_to_memory", times)
    behind.catch_up()
    assert [object_id for object_id, _ in behind.step(FRAMES[7]).rejected] == given_up
    assert behind.object_ids == ("mug", "new")
