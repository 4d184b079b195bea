"""ADD, REFINE and REPLACE on the next frame: what each starts, keeps and forgets, and how prompts add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TINY, assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.prompts import make_prompt, to_model_points
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.transforms import image_to_input
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(12, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
NEGATIVE = {"points": [[60, 30]], "labels": [0]}
BOX = {"box": [30, 10, 60, 40]}
RECTANGLE = np.zeros((HEIGHT, WIDTH), bool)
RECTANGLE[12:36, 20:60] = True
MASK = {"mask": RECTANGLE}
ADD, REFINE, REPLACE, UNDO = PromptAction


@pytest.fixture
def model() -> SAM2:
    return tiny_model(seed=4)


@pytest.fixture
def tracker(model: SAM2) -> Tracker:
    return Tracker(model, lost_after_frames=2)


def test_without_an_action_an_unknown_object_is_added_and_a_known_one_refined(tracker: Tracker, model: SAM2) -> None:
    other = Tracker(model)
    for index, frame in enumerate(FRAMES[:4]):
        if index in (0, 2):
            prompt = CLICK if index == 0 else NEGATIVE
            tracker.add_prompt("mug", **prompt)
            other.add_prompt("mug", **prompt, action=ADD if index == 0 else REFINE)
        assert_same_result(tracker.step(frame), other.step(frame))


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "tracked"])
@pytest.mark.parametrize(
    ("object_id", "action", "message"),
    [
        ("mug", ADD, "object 'mug' exists already; REFINE or REPLACE it"),
        ("cup", REFINE, "no object 'cup' to refine; known: mug"),
        ("cup", REPLACE, "no object 'cup' to replace; known: mug"),
        ("mug", UNDO, "UNDO takes no prompt: call undo"),
        ("mug", 2, "action: expected a PromptAction, got 2"),
        ("cup", "ADD", "action: expected a PromptAction, got 'ADD'"),
    ],
)
def test_rejected_actions(tracker: Tracker, waits: bool, object_id: str, action: PromptAction, message: str) -> None:
    tracker.add_prompt("mug", **CLICK)
    if not waits:
        tracker.step(FRAMES[0])
    with pytest.raises(PromptError, match=message):
        tracker.add_prompt(object_id, **CLICK, action=action)
    assert tracker.object_ids == ("mug",)


@pytest.mark.parametrize("is_tracked", [False, True], ids=["new", "tracked"])
def test_clicks_on_one_frame_add_up_and_each_sees_the_mask_before_it(model: SAM2, is_tracked: bool) -> None:
    """Against the same written out with the network's functions."""
    tracker = Tracker(model)
    if is_tracked:
        tracker.add_prompt("mug", **BOX)
        tracker.step(FRAMES[0])
        before = tracker._state.tracks["mug"]
    tracker.add_prompt("mug", **CLICK)
    tracker.add_prompt("mug", **NEGATIVE)
    actual = tracker.step(FRAMES[1])["mug"].low_res_logits

    with torch.inference_mode():
        features = model.encode_image(image_to_input(FRAMES[1], TINY.image_size, torch.device("cpu")))
        conditioned, logits = model.without_memory(features), None
        if is_tracked:
            from sam2_ros.tracking.memory_bank import gather_tokens

            tokens = gather_tokens(model, before.select(tracker._engine.policy, 1), before.frames)
            conditioned = model.attend_to_memory(features, tokens)
            logits = model.decode_masks(conditioned, features).logits_b1hw
        for points, labels, multimask in (([[20, 20]], [1], True), ([[20, 20], [60, 30]], [1, 0], False)):
            clicks = to_model_points(make_prompt(points, labels), HEIGHT, WIDTH, TINY.image_size, torch.device("cpu"))
            fed_back = None if logits is None else logits.clamp(-32, 32)
            logits = model.decode_masks(conditioned, features, clicks, fed_back, multimask).logits_b1hw
    assert logits is not None
    assert_same_logits(actual, logits[0, 0].numpy())


def test_a_box_clears_the_clicks_before_it_but_sees_their_mask(
    tracker: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, bool]] = []
    decode = model.decode_masks

    def recording(conditioned, features, points=None, mask_logits=None, multimask=True):  # type: ignore[no-untyped-def]
        calls.append((points.labels_bn.shape[1], mask_logits is not None))
        return decode(conditioned, features, points, mask_logits, multimask)

    monkeypatch.setattr(model, "decode_masks", recording)
    for prompt in (CLICK, NEGATIVE, BOX, NEGATIVE):
        tracker.add_prompt("mug", **prompt)
    tracker.step(FRAMES[0])
    assert calls == [(1, False), (2, True), (2, True), (3, True)]


def test_a_mask_on_the_same_frame_discards_the_clicks_before_it(tracker: Tracker, model: SAM2) -> None:
    other = Tracker(model)
    tracker.add_prompt("mug", **CLICK)
    for each in (tracker, other):
        each.add_prompt("mug", **MASK)
        each.add_prompt("mug", **NEGATIVE)
    for frame in FRAMES[:2]:
        assert_same_result(tracker.step(frame), other.step(frame))


@pytest.mark.parametrize("prompt", [CLICK, BOX, MASK], ids=["click", "box", "mask"])
def test_replaced_object_is_as_a_new_one_but_for_its_name(tracker: Tracker, model: SAM2, prompt: dict) -> None:
    tracker.add_prompt("other", **BOX)
    tracker.add_prompt("mug", **CLICK)
    for frame in FRAMES[:5]:
        tracker.step(frame)
    assert tracker.add_prompt("mug", **prompt, action=REPLACE) == 2
    new = Tracker(model)
    for frame in FRAMES[:5]:
        new.step(frame)
    new.add_prompt("new", **prompt)
    for frame in FRAMES[5:9]:
        replaced, expected = tracker.step(frame)["mug"], new.step(frame)["new"]
        assert_same_logits(replaced.low_res_logits, expected.low_res_logits)
        assert (replaced.label, replaced.state) == (2, ObjectState.TRACKED)
    assert list(tracker._state.tracks["mug"].conditioning) == [5]
    assert min(tracker._state.tracks["mug"].recent) == 6


def test_a_waiting_replacement_discards_the_prompts_before_it(tracker: Tracker, model: SAM2) -> None:
    other = Tracker(model)
    for each in (tracker, other):
        each.add_prompt("mug", **CLICK)
        each.step(FRAMES[0])
    tracker.add_prompt("mug", **NEGATIVE)
    for each in (tracker, other):
        each.add_prompt("mug", **BOX, action=REPLACE)
        each.add_prompt("mug", **NEGATIVE)
    for frame in FRAMES[1:4]:
        assert_same_result(tracker.step(frame), other.step(frame))


def test_prompts_for_one_frame_are_limited(tracker: Tracker) -> None:
    for _ in range(64):
        tracker.add_prompt("mug", **CLICK)
    with pytest.raises(PromptError, match="frame 0 already has 64 prompts"):
        tracker.add_prompt("mug", **CLICK)
    tracker.undo("mug")
    tracker.add_prompt("mug", **BOX)


class ModelError(RuntimeError):
    """Stands for what the model may make of a prompt."""


def fail_for_boxes(model: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = model.decode_masks

    def failing(conditioned, features, points=None, mask_logits=None, multimask=True):  # type: ignore[no-untyped-def]
        if points is not None and (points.labels_bn == 2).any():
            raise ModelError("no boxes today")
        return decode(conditioned, features, points, mask_logits, multimask)

    monkeypatch.setattr(model, "decode_masks", failing)


@pytest.mark.parametrize("action", [ADD, REFINE, REPLACE])
def test_prompt_that_makes_the_model_fail_is_rejected(
    tracker: Tracker, model: SAM2, monkeypatch: pytest.MonkeyPatch, action: PromptAction
) -> None:
    undisturbed = Tracker(model, lost_after_frames=2)
    for each in (tracker, undisturbed):
        each.add_prompt("mug", **CLICK)
        if action is not ADD:
            each.add_prompt("bad", **CLICK)
        each.step(FRAMES[0])
        each.add_prompt("mug", **NEGATIVE)
    tracker.add_prompt("bad", **BOX, action=action)
    fail_for_boxes(model, monkeypatch)
    result, expected = tracker.step(FRAMES[1]), undisturbed.step(FRAMES[1])
    ((object_id, why),) = result.rejected
    assert (object_id, why) == ("bad", "the model could not apply the prompt: ModelError: no boxes today")
    assert [o.object_id for o in result] == [o.object_id for o in expected]
    for ours, theirs in zip(result, expected, strict=True):
        assert_same_logits(ours.low_res_logits, theirs.low_res_logits)
    for frame in FRAMES[2:4]:  # and it does not come again
        assert_same_result(tracker.step(frame), undisturbed.step(frame))
