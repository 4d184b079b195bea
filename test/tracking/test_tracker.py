"""The tracker as its callers see it: who is who, what happens to objects, and that errors change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import assert_same_logits, assert_same_result, noise_frames, shift_object_score, tiny_model

from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking import results
from sam2_ros.tracking.prediction import is_visible
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(12, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
BOX = {"box": [30, 10, 60, 40]}


@pytest.fixture
def model() -> SAM2:
    return tiny_model(seed=4)


@pytest.fixture
def tracker(model: SAM2) -> Tracker:
    return Tracker(model, lost_after_frames=2)


def test_result_describes_each_object(tracker: Tracker) -> None:
    assert tracker.add_prompt("mug", **CLICK) == 1
    assert tracker.add_prompt("box", **BOX) == 2
    for index in range(3):
        result = tracker.step(FRAMES[index])
        assert result.frame_index == index
        assert [(o.object_id, o.label) for o in result] == [("mug", 1), ("box", 2)]
        assert result.label_image.shape == (HEIGHT, WIDTH)
        assert result.inference_ms > 0
        for tracked in result:
            assert tracked.state == ObjectState.TRACKED
            assert tracked.score > 0.99
            assert 0 <= tracked.mask_quality <= 1
            assert tracked.mask.shape == (HEIGHT, WIDTH)
            assert 0 < tracked.area_px == tracked.mask.sum() < HEIGHT * WIDTH
        assert set(np.unique(result.label_image)) <= {0, 1, 2}
        assert np.array_equal(result.label_image > 0, result["mug"].mask | result["box"].mask)
    assert tracker.frame_size == (HEIGHT, WIDTH)
    assert tracker.model_name == "tiny-test"


def test_without_objects_nothing_is_found_and_frames_count_on(tracker: Tracker) -> None:
    for index in range(2):
        result = tracker.step(FRAMES[0])
        assert (result.frame_index, len(result), int(result.label_image.max())) == (index, 0, 0)


def test_labels_are_not_given_twice_until_reset(tracker: Tracker) -> None:
    assert [tracker.add_prompt(name, **CLICK) for name in ("a", "b")] == [1, 2]
    tracker.step(FRAMES[0])
    tracker.remove("b")
    assert tracker.add_prompt("b", **CLICK) == 3
    tracker.step(FRAMES[1])
    tracker.clear()
    assert tracker.object_ids == ()
    assert tracker.add_prompt("a", **CLICK) == 4
    result = tracker.step(FRAMES[2])
    assert (result.frame_index, result["a"].label) == (2, 4)
    tracker.reset()
    assert tracker.object_ids == ()
    assert tracker.frame_size is None
    assert tracker.add_prompt("c", **CLICK) == 1
    assert tracker.step(FRAMES[0]).frame_index == 0


def test_labels_end_where_the_label_image_ends(tracker: Tracker) -> None:
    tracker._state.next_label = 65535  # rather than that many objects
    assert tracker.add_prompt("last", **CLICK) == 65535
    with pytest.raises(PromptError, match=r"all labels up to 65535 .* reset"):
        tracker.add_prompt("one more", **CLICK)
    assert tracker.step(FRAMES[0]).label_image.dtype == np.uint16
    tracker.reset()
    assert tracker.add_prompt("one more", **CLICK) == 1


def test_after_reset_all_is_as_new(tracker: Tracker, model: SAM2) -> None:
    new = Tracker(model, lost_after_frames=2)
    tracker.add_prompt("old", **BOX)
    for frame in FRAMES[5:8]:
        tracker.step(frame)
    tracker.reset()
    for each in (tracker, new):
        each.add_prompt("a", **CLICK)
    for frame in FRAMES[:4]:
        assert_same_result(tracker.step(frame), new.step(frame))


def test_new_object_may_come_at_any_time(tracker: Tracker) -> None:
    tracker.add_prompt("first", **CLICK)
    for frame in FRAMES[:3]:
        tracker.step(frame)
    tracker.add_prompt("late", **BOX)
    assert tracker.object_ids == ("first", "late")
    for frame in FRAMES[3:6]:
        result = tracker.step(frame)
        assert [o.state for o in result] == [ObjectState.TRACKED] * 2


def test_removed_object_is_gone_and_the_others_do_not_notice(tracker: Tracker, model: SAM2) -> None:
    alone = Tracker(model)
    for each in (tracker, alone):
        each.add_prompt("stays", **CLICK)
    tracker.add_prompt("goes", **BOX)
    for index, frame in enumerate(FRAMES[:6]):
        if index == 3:
            tracker.remove("goes")
        result, expected = tracker.step(frame), alone.step(frame)
        assert ("goes" in result) is (index < 3)
        assert_same_logits(result["stays"].low_res_logits, expected["stays"].low_res_logits)


def test_an_object_that_flickers_has_no_mask_until_it_is_believed_or_prompted() -> None:
    model = tiny_model()
    tracker = Tracker(model, recover_after_frames=2)
    tracker.add_prompt("a", **CLICK)
    seen = [tracker.step(FRAMES[0])]
    for shift in (-40.0, +40.0, 0.0, -40.0):
        shift_object_score(model, shift)
        seen.append(tracker.step(FRAMES[len(seen)]))
    shift_object_score(model, +40.0)
    tracker.add_prompt("a", points=[(20, 20)], labels=[1])
    seen.append(tracker.step(FRAMES[len(seen)]))
    states = [result["a"].state.name for result in seen]
    assert states == ["TRACKED", "OCCLUDED", "OCCLUDED", "TRACKED", "OCCLUDED", "TRACKED"]
    assert [result["a"].mask.any() for result in seen] == [True, False, False, True, False, True]
    assert [result.label_image.any() for result in seen] == [True, False, False, True, False, True]
    assert seen[2]["a"].score > 0.5  # the model does see it


@pytest.mark.parametrize("call", ["remove", "label_of"])
def test_unknown_id_is_a_key_error_that_lists_the_known(tracker: Tracker, call: str) -> None:
    tracker.add_prompt("mug", **CLICK)
    with pytest.raises(KeyError, match="unknown object 'cup'; known objects: mug"):
        getattr(tracker, call)("cup")
    assert tracker.label_of("mug") == 1


def test_object_that_disappears_is_occluded_then_lost_and_can_come_back(tracker: Tracker, model: SAM2) -> None:
    tracker.add_prompt("mug", **CLICK)
    states = [tracker.step(FRAMES[0])["mug"].state]
    shift_object_score(model, -40.0)
    for frame in FRAMES[1:5]:
        result = tracker.step(frame)
        tracked = result["mug"]
        states.append(tracked.state)
        assert not tracked.mask.any()
        assert (tracked.area_px, tracked.box_xyxy, tracked.centroid_xy) == (0, None, None)
        assert tracked.score < 0.01
        assert not result.label_image.any()
    shift_object_score(model, +40.0)
    states.append(tracker.step(FRAMES[5])["mug"].state)
    assert [state.name for state in states] == ["TRACKED", "OCCLUDED", "OCCLUDED", "LOST", "LOST", "TRACKED"]


def test_an_empty_mask_is_not_visible_whatever_the_score(model: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(model, lost_after_frames=2)
    tracker.add_prompt("mug", **CLICK)
    assert tracker.step(FRAMES[0])["mug"].state is ObjectState.TRACKED
    decode = model.decode_masks

    def decode_an_empty_mask(*args: Any, **kwargs: Any) -> MaskPrediction:
        prediction = decode(*args, **kwargs)
        empty = torch.full_like(prediction.logits_b1hw, -10.0)
        return replace(prediction, logits_b1hw=empty, object_score_logits_b1=torch.full((1, 1), 8.0))

    monkeypatch.setattr(model, "decode_masks", decode_an_empty_mask)
    tracked = [tracker.step(frame)["mug"] for frame in FRAMES[1:5]]
    assert [each.state.name for each in tracked] == ["OCCLUDED", "OCCLUDED", "LOST", "LOST"]
    assert all(each.score > 0.99 and each.area_px == 0 and each.box_xyxy is None for each in tracked)
    monkeypatch.undo()
    assert tracker.step(FRAMES[5])["mug"].state is ObjectState.TRACKED


def test_a_pixel_that_the_images_size_loses_is_an_empty_mask() -> None:
    logits_b1hw = torch.full((1, 1, 16, 16), -10.0)
    logits_b1hw[..., 5, 5] = 1e-3
    one, score = torch.zeros(1, 1), torch.full((1, 1), 8.0)
    prediction = MaskPrediction(logits_b1hw, one, score, one[0], logits_b1hw, one)
    assert is_visible(prediction, 16, 16)
    assert not is_visible(prediction, 64, 64)


def test_a_doubtful_object_is_not_shown_and_not_forgotten(
    tracker: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model's ``visible_above_logit`` keeps back is OCCLUDED; its memories are the network's own."""
    plain = [result["mug"] for result in _steps(tracker)]
    tracker.reset()
    assert all(each.state is ObjectState.TRACKED for each in plain)
    monkeypatch.setattr(model, "config", replace(model.config, visible_above_logit=1e6))
    doubtful = [result["mug"] for result in _steps(tracker)]
    assert doubtful[0].state is ObjectState.TRACKED  # the user has just prompted it
    for seen, hidden in zip(plain[1:], doubtful[1:], strict=True):
        assert hidden.state is not ObjectState.TRACKED and hidden.score < 0.5 and not hidden.mask.any()
        np.testing.assert_allclose(hidden.low_res_logits, seen.low_res_logits, atol=1e-4)


def _steps(tracker: Tracker) -> list[FrameResult]:
    tracker.add_prompt("mug", **CLICK)
    return [tracker.step(frame) for frame in FRAMES[:4]]


def test_size_of_the_image_may_change_in_the_stream(tracker: Tracker) -> None:
    tracker.add_prompt("mug", **CLICK)
    tracker.step(FRAMES[0])
    for height, width in ((24, 40), (100, 30), (HEIGHT, WIDTH)):
        result = tracker.step(noise_frames(1, height, width)[0])
        assert result.label_image.shape == result["mug"].mask.shape == (height, width)
        assert tracker.frame_size == (height, width)
        tracker.add_prompt("mug", points=[[width - 1, height - 1]], labels=[0])
        with pytest.raises(PromptError, match=f"{width}x{height}"):
            tracker.add_prompt("mug", points=[[width, 0]], labels=[1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (FRAMES[0].astype(np.float32), "expected a uint8 array of shape .* got float32"),
        (FRAMES[0][..., 0], r"expected shape \(H, W, 3\), RGB, got \(48, 80\)"),
        (np.zeros((4, 5, 4), np.uint8), r"got \(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), "expected a uint8 array"),
        (None, "expected a uint8 array .* got NoneType"),
        (FRAMES[0].tolist(), "expected a uint8 array .* got list"),
    ],
)
def test_other_things_than_images_are_rejected(tracker: Tracker, image: object, message: str) -> None:
    tracker.add_prompt("mug", **CLICK)
    with pytest.raises(ValueError, match=message):
        tracker.step(image)  # type: ignore[arg-type]
    result = tracker.step(FRAMES[0])
    assert (result.frame_index, result["mug"].state) == (0, ObjectState.TRACKED)


def test_a_sighting_takes_at_least_one_frame() -> None:
    with pytest.raises(ValueError, match="recover_after_frames: expected 1 or more, got 0"):
        Tracker(tiny_model(), recover_after_frames=0)


@pytest.mark.parametrize("stamp_s", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_rejected(tracker: Tracker, stamp_s: float) -> None:
    with pytest.raises(ValueError, match="stamp_s: expected a finite time in seconds or None, got"):
        tracker.step(FRAMES[0], stamp_s)
    assert tracker.step(FRAMES[0]).frame_index == 0


def test_images_are_not_written_to_and_need_not_be_contiguous(tracker: Tracker, model: SAM2) -> None:
    other = Tracker(model)
    for each in (tracker, other):
        each.add_prompt("mug", **CLICK)
    bgr = FRAMES[0][..., ::-1].copy()
    bgr.flags.writeable = False
    assert_same_result(tracker.step(bgr[..., ::-1]), other.step(FRAMES[0]))


class OutOfMemoryError(RuntimeError):
    """Stands for what a device may raise anywhere."""


@pytest.mark.parametrize("where", ["encode_image", "attend_to_memory", "decode_masks", "encode_memory", "describe"])
def test_failing_step_changes_nothing(
    tracker: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    undisturbed = Tracker(model, lost_after_frames=2)
    for each in (tracker, undisturbed):
        each.add_prompt("mug", **CLICK)
        each.step(FRAMES[0])
        each.add_prompt("mug", points=[[60, 30]], labels=[1])
        each.add_prompt("new", **BOX)
        each.add_prompt("misfit", points=[[70, 40]], labels=[1])
    small = [frame[:40, :70] for frame in FRAMES]

    def fail(*_: object, **__: object) -> None:
        raise OutOfMemoryError

    with monkeypatch.context() as patch:
        if where == "describe":
            patch.setattr(results, "logits_in_image", fail)
        else:
            patch.setattr(model, where, fail)
        for _ in range(2):
            with pytest.raises(OutOfMemoryError):
                tracker.step(small[1])
    assert tracker.object_ids == ("mug", "new", "misfit")
    assert tracker.frame_size == (HEIGHT, WIDTH)
    for frame in small[1:4]:
        result = tracker.step(frame)
        assert_same_result(result, undisturbed.step(frame))
        assert bool(result.rejected) is (result.frame_index == 1)
