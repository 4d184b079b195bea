"""A saved and loaded tracker continues unchanged; a damaged state is rejected."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TINY, assert_same_result, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.saved_values import SavedStateError
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptAction, PromptError

pytestmark = pytest.mark.numeric

FRAMES = noise_frames(14)
CLICK = {"points": [[20, 20]], "labels": [1]}
NEGATIVE = {"points": [[25, 22]], "labels": [0]}
BOX = {"box": [30, 10, 60, 40]}
RECTANGLE = np.zeros((48, 80), bool)
RECTANGLE[12:36, 20:60] = True


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model(seed=4)


def saved(tracker: Tracker) -> Any:
    """Through a file, as strictly as it will be read."""
    file = io.BytesIO()
    torch.save(tracker.save_state(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def busy_tracker(model: SAM2, **options: Any) -> Tracker:
    """Nine frames, two objects left of three, a correction and a second conditioning frame."""
    tracker = Tracker(model, **options)
    mask = {"mask": RECTANGLE}
    prompts = {0: ("mug", CLICK), 1: ("gone", BOX), 2: ("box", BOX), 4: ("mug", NEGATIVE), 6: ("mug", mask)}
    for index, image in enumerate(FRAMES[:9]):
        if index in prompts:
            object_id, prompt = prompts[index]
            tracker.add_prompt(object_id, **prompt)
        tracker.step(image, 10.0 + index)
    tracker.remove("gone")
    return tracker


def test_loaded_tracker_goes_on_as_the_one_that_was_saved(model: SAM2) -> None:
    tracker, loaded = busy_tracker(model), Tracker(model)
    loaded.add_prompt("other", **CLICK)  # gives way
    loaded.load_state(saved(tracker))
    assert loaded.object_ids == ("mug", "box")
    assert (loaded.label_of("mug"), loaded.label_of("box")) == (1, 3)
    assert loaded.frame_size == (48, 80)
    for image in FRAMES[9:11]:
        assert_same_result(loaded.step(image), tracker.step(image))
    for each in (tracker, loaded):
        assert each.add_prompt("new", **BOX) == 4
        each.add_prompt("mug", **NEGATIVE)
    for image in FRAMES[11:13]:
        assert_same_result(loaded.step(image), tracker.step(image))


def test_prompts_that_wait_are_saved_too(model: SAM2) -> None:
    tracker, loaded = busy_tracker(model), Tracker(model)
    tracker.add_prompt("mug", mask=~RECTANGLE, action=PromptAction.REPLACE)
    tracker.add_prompt("new", **BOX)
    tracker.add_prompt("new", **NEGATIVE)
    loaded.load_state(saved(tracker))
    for each in (tracker, loaded):
        each.undo("new")
    for image in FRAMES[9:11]:
        assert_same_result(loaded.step(image), tracker.step(image))


def test_an_object_that_is_behind_is_replayed_before_it_is_saved(model: SAM2) -> None:
    tracker, loaded = busy_tracker(model, buffer_frames=9, catchup_budget_ms=0), Tracker(model)
    tracker.add_prompt("late", **BOX, frame_index=3)
    loaded.load_state(saved(tracker))
    assert tracker.frames_behind == loaded.frames_behind == {}
    assert sorted(loaded._state.tracks["late"].frames) == [3, 4, 5, 6, 7, 8]
    assert_same_result(loaded.step(FRAMES[9]), tracker.step(FRAMES[9]))


def test_past_frames_are_not_saved(model: SAM2) -> None:
    tracker = busy_tracker(model, buffer_frames=9)
    tracker.load_state(saved(tracker))
    with pytest.raises(PromptError, match="nothing to undo: none of its prompts is known any more"):
        tracker.undo("mug")
    with pytest.raises(PromptError, match=r"taken 0.50 s before the latest, and no past frames are kept"):
        tracker.add_prompt("mug", **NEGATIVE, stamp_s=17.5)
    tracker.add_prompt("mug", **NEGATIVE, stamp_s=18.5)
    assert len(tracker.step(FRAMES[9], 19.0)) == 2


def test_an_empty_tracker_can_be_saved(model: SAM2) -> None:
    loaded = Tracker(model)
    loaded.load_state(saved(Tracker(model)))
    assert loaded.step(FRAMES[0]).frame_index == 0


@pytest.mark.parametrize("stamp_s", [10, np.float64(10.5), np.float32(10.5), np.int64(10)])
def test_whatever_number_a_time_was_its_state_can_be_loaded(model: SAM2, stamp_s: float) -> None:
    tracker, loaded = Tracker(model), Tracker(model)
    tracker.step(FRAMES[0], stamp_s)
    loaded.load_state(saved(tracker))
    assert loaded.add_prompt("mug", **CLICK, stamp_s=stamp_s + 1.0) == 1


def test_saved_state_is_independent_of_the_tracker(model: SAM2) -> None:
    tracker = busy_tracker(model)
    state = tracker.save_state()
    before = copy.deepcopy(state)
    loaded = Tracker(model)
    loaded.load_state(state)
    for each in (tracker, loaded):
        each.step(FRAMES[9])
    kept, expected = (each["objects"][0]["conditioning"][0] for each in (state, before))
    assert torch.equal(kept["spatial"], expected["spatial"]) and torch.equal(kept["pointer"], expected["pointer"])


def test_state_of_another_model_is_rejected(model: SAM2) -> None:
    state = saved(busy_tracker(model))
    rounded = tiny_model(seed=4)
    rounded.compute_in(torch.bfloat16, torch.bfloat16)
    Tracker(rounded).load_state(state)  # the same weights on a machine that computes in another type
    other_weights = Tracker(tiny_model(seed=5))
    with pytest.raises(SavedStateError, match="weights: expected that of this tracker"):
        other_weights.load_state(state)
    tuned = tiny_model(seed=4)
    tuned.get_parameter("sam_mask_decoder.iou_token.weight").data.add_(0.1)
    with pytest.raises(SavedStateError, match="weights: expected that of this tracker"):
        Tracker(tuned).load_state(state)
    other_size = Tracker(tiny_model(replace(TINY, image_size=96)))
    with pytest.raises(SavedStateError, match=r"model: expected .* 'tiny-test at 96 px.* got 'tiny-test at 64 px"):
        other_size.load_state(state)


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def damage(state: Any) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return damage


def drop(*path: Any) -> Callable[[Any], None]:
    def damage(state: Any) -> None:
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return damage


def twice(state: Any) -> None:
    state["objects"].append(state["objects"][0])


FIRST = ("objects", 0)
MAP = (*FIRST, "conditioning", 0, "spatial")
GOOD = {"spatial": torch.zeros(1, 16, 4, 4, dtype=torch.bfloat16), "pointer": torch.zeros(1, 32)}
DAMAGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "format that is no text": (put("format", value=np.zeros(2)), "format: expected that of this tracker"),
    "frame number beyond all streams": (put("next_frame", value=10**400), "next_frame: expected at most"),
    "prompt without values": (
        put(*FIRST, "waiting", 0, "points_xy", value=torch.zeros(1, 2, device="meta")),
        "points_xy: expected a dense tensor",
    ),
    "prompt that would fill all memory": (
        put(*FIRST, "waiting", 0, "points_xy", value=torch.zeros(1).expand(10**12, 2)),
        "points_xy: expected a tensor with all its values",
    ),
    "other format": (put("format", value="sam2_ros tracker 9"), "format: expected"),
    "key missing": (drop("next_label"), r"missing \['next_label'\], unexpected nothing"),
    "key too many": (put("extra", value=1), r"unexpected \[\"'extra'\"\]"),
    "frame number": (put("next_frame", value="9"), "next_frame: expected a whole number from 0 on, got '9'"),
    "flag for a number": (put("next_label", value=True), "next_label: expected a whole number"),
    "labels used up twice": (put("next_label", value=70000), "next_label: expected at most 65536, got 70000"),
    "size": (put("frame_size", value=[48]), "frame_size: expected height and width"),
    "time": (put("latest_s", value=float("nan")), "latest_s: expected a finite time"),
    "objects": (put("objects", value={}), "objects: expected a list, got dict"),
    "same object twice": (twice, r"objects\[2\]: expected an object_id that is a text of its own, got 'mug'"),
    "label too high": (put(*FIRST, "label", value=9), r"objects\[0\]: label: expected at most 3, got 9"),
    "label not ascending": (
        put("objects", 1, "label", value=1),
        r"objects\[1\]: label: expected a whole number from 2",
    ),
    "state": (put(*FIRST, "state", value=7), r"objects\[0\]: expected a state of an object, got 7"),
    "seen in the future": (put(*FIRST, "last_seen_frame", value=9), "last_seen_frame: expected at most 8, got 9"),
    "nothing remembered": (put(*FIRST, "conditioning", value={}), "expected either a memory or a first prompt"),
    "memory of the future": (put(*FIRST, "recent", 9, value=GOOD), "recent: expected at most 8, got 9"),
    "memory that is not kept": (
        put("objects", 1, "recent", 0, value=GOOD),
        "the frames that this tracker keeps, got more",
    ),
    "map is no tensor": (put(*MAP, value=[1.0]), "spatial: expected a dense tensor, got list"),
    "map of other kind": (put(*MAP, value=torch.zeros(1, 16, 4, 4)), r"bfloat16 \(1, 16, 4, 4\), got torch.float32"),
    "map of other size": (put(*MAP, value=GOOD["spatial"][..., :2]), r"got torch.bfloat16 \(1, 16, 4, 2\)"),
    "map missing": (put(*MAP, value=None), "expected a spatial memory of every conditioning frame"),
    "latest map missing": (put("objects", 1, "recent", 8, "spatial", value=None), r"latest frames, got none for \[8\]"),
    "sparse map": (
        put(*MAP, value=GOOD["spatial"].float().to_sparse()),
        "expected a dense tensor, got torch.sparse_coo",
    ),
    "pointer not finite": (
        put(*FIRST, "conditioning", 0, "pointer", value=torch.full((1, 32), torch.nan)),
        "pointer: expected finite numbers",
    ),
    "bad prompt": (put(*FIRST, "waiting", 0, "labels", value=torch.tensor([3])), "waiting: labels: expected only 1"),
    "prompt of other kind": (
        put(*FIRST, "waiting", 0, "points_xy", value=torch.zeros(1, 2, dtype=torch.bfloat16)),
        "waiting: points_xy: expected torch.float32",
    ),
    "prompt of the future": (put(*FIRST, "waiting", 0, "number", value=99), "number: expected at most 6, got 99"),
    "prompt that adds what is there": (
        put(*FIRST, "waiting", 0, "action", value=0),
        "either a memory or a first prompt",
    ),
    "prompt that undoes": (put(*FIRST, "waiting", 0, "action", value=3), "action: expected at most 2, got 3"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_state_is_rejected_and_nothing_changes(
    model: SAM2, damage: Callable[[Any], None], message: str
) -> None:
    tracker, undisturbed = busy_tracker(model), busy_tracker(model)
    for each in (tracker, undisturbed):
        each.add_prompt("mug", **NEGATIVE)
    state = copy.deepcopy(saved(tracker))
    damage(state)
    with pytest.raises(SavedStateError, match=message):
        tracker.load_state(state)
    assert_same_result(tracker.step(FRAMES[9]), undisturbed.step(FRAMES[9]))


@pytest.mark.parametrize("state", [None, [], "state", 7])
def test_anything_else_is_rejected(model: SAM2, state: object) -> None:
    with pytest.raises(SavedStateError, match="state: expected a dict, got"):
        Tracker(model).load_state(state)
