"""Policies that doubt: what they select, that nothing dropped would have been selected, that bad frames stay out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import assert_same_result, noise_frames, shift_object_score, tiny_model

from sam2_ros.model.config import MODELS, model_config
from sam2_ros.saved_values import SavedStateError
from sam2_ros.tracking.memory_bank import BankPolicy, FrameScore, MemorySelection
from sam2_ros.tracking.rules.memory_selection import ConfidentPolicy, DistractorPolicy, bank_policy
from sam2_ros.tracking.rules.rivals import rival_box_iou
from sam2_ros.tracking.tracker import Tracker

BAD, EMPTY, ANCHOR = FrameScore(0.0), FrameScore(0.0, is_empty=True), FrameScore(is_anchor=True)
RECENT = BankPolicy(num_spatial=4, max_pointers=6)
CONFIDENT = ConfidentPolicy(num_spatial=4, max_pointers=6)
DISTRACTOR = DistractorPolicy(num_spatial=4, max_pointers=6)


def scored(frames: Iterable[int], scores: Mapping[int, FrameScore]) -> dict[int, FrameScore]:
    return {frame: scores.get(frame, FrameScore()) for frame in frames}


def maps(selection: MemorySelection) -> list[tuple[int, int]]:
    return [(choice.frame, choice.slot) for choice in selection.spatial]


def ages(selection: MemorySelection) -> list[tuple[int, int]]:
    return [(choice.frame, choice.age) for choice in selection.pointers]


@pytest.mark.parametrize("conditioning", [[0], [0, 3], [0, 7, 8], [2, 9]])
@pytest.mark.parametrize("frame", [1, 2, 5, 10, 30])
def test_where_every_frame_is_good_the_confident_selection_is_that_of_sam_2(
    conditioning: list[int], frame: int
) -> None:
    known = [f for f in conditioning if f < frame] or [0]
    tracked = [f for f in range(1, frame) if f not in known]
    assert CONFIDENT.select(frame, known, tracked) == RECENT.select(frame, known, tracked)


def test_a_doubtful_frame_is_attended_to_once_and_those_before_it_move_up() -> None:
    scores = {6: BAD, 7: BAD, 9: BAD}
    selection = CONFIDENT.select(10, [0], scored(range(1, 10), scores))
    assert maps(selection) == [(0, 3), (5, 2), (8, 1), (9, 0)]
    assert ages(selection) == [(0, 10), (9, 1), (8, 2), (5, 3), (4, 4), (3, 5)]
    assert maps(CONFIDENT.select(11, [0], scored(range(1, 11), scores))) == [(0, 3), (5, 2), (8, 1), (10, 0)]


def test_after_a_long_absence_the_last_good_frames_are_still_there() -> None:
    scores = dict.fromkeys(range(10, 200), EMPTY)
    selection = CONFIDENT.select(200, [0], scored(range(1, 200), scores))
    assert maps(selection) == [(0, 3), (8, 2), (9, 1), (199, 0)]


def test_a_distractor_memory_takes_frames_further_apart_and_none_without_a_mask() -> None:
    scores = {10: EMPTY, 18: EMPTY, 19: EMPTY}
    selection = DISTRACTOR.select(20, [0], scored(range(1, 20), scores))
    assert maps(selection) == [(0, 3), (5, 2), (15, 1), (17, 0)]
    assert ages(selection) == [(0, 20), (17, 3), (16, 4), (15, 5)]


def test_at_most_three_anchors_stay_and_all_that_the_user_gave() -> None:
    scores = dict.fromkeys((6, 12, 18, 24), ANCHOR)
    assert DISTRACTOR.surplus_conditioning(scored([0, 6, 10, 12, 18, 24], scores)) == [6]
    assert DISTRACTOR.surplus_conditioning(scored([0, 6, 10, 12, 18], scores)) == []
    assert DISTRACTOR.surplus_conditioning(range(9)) == BankPolicy(4, 6).surplus_conditioning(range(9))


@pytest.mark.parametrize(
    ("frame", "iou", "area_px", "areas_px", "may"),
    [
        (20, 0.9, 100, [90, 100, 110], True),
        (20, 0.8, 100, [90, 100, 110], False),
        (20, 0.9, 79, [90, 100, 110], False),
        (20, 0.9, 121, [90, 100, 110], False),
        (20, 0.9, 0, [90, 100, 110], False),
        (20, 0.9, 100, [], False),
        (15, 0.9, 100, [100], False),
        (16, 0.9, 100, [100], True),
    ],
)
def test_an_anchor_is_sure_of_usual_size_and_not_too_soon(
    frame: int, iou: float, area_px: int, areas_px: list[int], may: bool
) -> None:
    assert DISTRACTOR.may_anchor(frame, [0, 10], iou, area_px, areas_px) is may
    assert not RECENT.may_anchor(frame, [0, 10], iou, area_px, areas_px)


def test_a_rival_is_the_largest_part_outside_of_the_mask() -> None:
    mask = np.zeros((8, 12), bool)
    mask[2:6, 1:5] = True
    same, far, speck = mask.copy(), mask.copy(), mask.copy()
    far[2:6, 7:11] = True  # the box of both is 10 wide, that of the mask 4
    speck[2:4, 5:6] = True  # 5 wide
    assert rival_box_iou(mask, np.stack([same, mask])) == 1.0
    assert rival_box_iou(mask, np.stack([same, speck])) == pytest.approx(4 / 5)
    assert rival_box_iou(mask, np.stack([same, speck, far | speck])) == pytest.approx(4 / 10)
    assert DISTRACTOR.shows_rival(0.7)
    assert not DISTRACTOR.shows_rival(0.71)


@pytest.mark.parametrize("policy", [CONFIDENT, DISTRACTOR], ids=lambda policy: policy.name)
@pytest.mark.parametrize("seed", range(6))
def test_a_bounded_bank_selects_what_an_unbounded_one_does(policy: BankPolicy, seed: int) -> None:
    rng = random.Random(seed)
    conditioning, everything, kept, with_map = {0}, {}, {}, set()
    for frame in range(1, 120):
        selection = policy.select(frame, conditioning, kept)
        assert selection == policy.select(frame, conditioning, everything)
        assert {choice.frame for choice in selection.spatial} <= with_map | conditioning
        if rng.random() < 0.05:
            conditioning.add(frame)
        else:
            everything[frame] = kept[frame] = rng.choice([FrameScore(), FrameScore(), BAD, EMPTY])
            with_map.add(frame)
        for old in policy.expired(frame + 1, kept):
            del kept[old]
        with_map = (with_map & set(kept)) - set(policy.without_spatial(frame + 1, kept))
        assert len(kept) <= policy.max_pointers + policy.reach + 1
        assert len(with_map) <= policy.reach + 1


def test_an_unknown_selection_is_rejected() -> None:
    with pytest.raises(
        ValueError, match="memory_selection: expected one of auto, recent, confident, distractor, got 'best'"
    ):
        Tracker(tiny_model(), memory_selection="best")
    assert type(bank_policy(tiny_model().config)) is BankPolicy


@pytest.mark.parametrize("name", MODELS)
def test_only_nano_remembers_other_frames_than_its_paper(name: str) -> None:
    assert bank_policy(model_config(name)).name == ("distractor" if name == "nano" else "recent")


def blink(memory_selection: str, **options: Any) -> tuple[Tracker, torch.nn.Module]:
    """A tracker whose object was visible for ten frames and then absent in twelve."""
    model = tiny_model(seed=4)
    tracker = Tracker(model, memory_selection=memory_selection, **options)
    tracker.add_prompt("a", points=[(40, 24)], labels=[1])
    frames = noise_frames(22)
    for frame in frames[:10]:
        tracker.step(frame)
    shift_object_score(model, -100.0)
    for frame in frames[10:]:
        tracker.step(frame)
    shift_object_score(model, 100.0)
    return tracker, model


@pytest.mark.parametrize(
    ("memory_selection", "kept"),
    [
        ("recent", [*range(15, 22)]),  # nothing but frames that say "absent"
        ("confident", [*range(3, 10), 21]),
        ("distractor", [5, 9]),
    ],
)
def test_what_a_tracker_remembers_of_an_absence(memory_selection: str, kept: list[int]) -> None:
    tracker, _ = blink(memory_selection)
    assert sorted(tracker._state.tracks["a"].recent) == kept


@pytest.mark.parametrize("memory_selection", ["confident", "distractor"])
def test_a_saved_state_goes_on_with_its_scores_and_another_selection_rejects_it(memory_selection: str) -> None:
    tracker, model = blink(memory_selection)
    saved = tracker.save_state()
    loaded = Tracker(model, memory_selection=memory_selection)
    loaded.load_state(saved)
    for frame in noise_frames(8, seed=1):
        assert_same_result(loaded.step(frame), tracker.step(frame))
    assert loaded._state.tracks["a"].areas_px == tracker._state.tracks["a"].areas_px
    with pytest.raises(SavedStateError, match=f"memory_selection {memory_selection}"):
        Tracker(model).load_state(saved)
    with pytest.raises(SavedStateError, match="model: expected that of this tracker"):
        loaded.load_state(blink("recent")[0].save_state())


@pytest.mark.parametrize("score", [[2.0, False, False], [0.5, 0.0, False], [0.5], [float("nan"), False, False], "x"])
def test_damaged_scores_are_rejected(score: object) -> None:
    tracker, _ = blink("confident")
    saved = tracker.save_state()
    saved["objects"][0]["recent"][21]["score"] = score
    with pytest.raises(SavedStateError, match="score"):
        tracker.load_state(saved)


@pytest.mark.numeric
@pytest.mark.parametrize("memory_selection", ["confident", "distractor"])
def test_a_late_prompt_selects_what_one_in_time_would_have(memory_selection: str) -> None:
    def run(late: bool) -> Tracker:
        model = tiny_model(seed=4)
        tracker = Tracker(model, memory_selection=memory_selection, buffer_frames=12)
        tracker.add_prompt("a", points=[(40, 24)], labels=[1])
        for index, frame in enumerate(noise_frames(14)):
            if index == 6 and not late:
                tracker.add_prompt("a", points=[(20, 20)], labels=[0])
            tracker.step(frame)
        if late:
            tracker.add_prompt("a", points=[(20, 20)], labels=[0], frame_index=6)
        tracker.catch_up()
        return tracker

    in_time, late = run(late=False), run(late=True)
    for frame in noise_frames(4, seed=2):
        assert_same_result(late.step(frame), in_time.step(frame))
