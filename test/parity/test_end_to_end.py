"""Our tracker against the official predictor: the same random weights, frames and prompts, over 24 frames."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from official_cases import CASES, NUM_FRAMES, Case, built_alike
from official_play import (
    MIN_IOU,
    TOLERANCE_LOGITS,
    Clip,
    OfficialPlay,
    Setting,
    assert_not_trivial,
    build_pair,
    compare,
    play_ours,
)
from synthetic_frames import synthetic_frames

from sam2_ros.model.prompt_encoder import PointPrompts
from sam2_ros.tracking.memory_bank import BankPolicy

SMALL_PX, RELEASED_PX = 128, 1024
CAMERA_PX = {SMALL_PX: (120, 160), RELEASED_PX: (480, 640)}  # height and width; it is stretched to the model's square
SOME = ("one click", "corrections in a row", "two objects that overlap", "absence and reappearance")
BY_NAME = {case.name: case for case in CASES}


def runs() -> Iterator[tuple[Setting, Case]]:
    """Both versions in both settings at a small size; at the released size both versions, and every size of model."""
    everything = tuple(BY_NAME)
    one = SOME[1:2]  # it has the most kinds of prompts
    table = (
        ("sam2.1_hiera_tiny", SMALL_PX, True, everything),
        ("sam2.1_hiera_tiny", SMALL_PX, False, SOME),
        ("sam2_hiera_tiny", SMALL_PX, True, SOME),
        ("sam2_hiera_tiny", SMALL_PX, False, everything),
        ("sam2.1_hiera_tiny", RELEASED_PX, True, everything),
        ("sam2.1_hiera_tiny", RELEASED_PX, False, one),
        ("sam2_hiera_tiny", RELEASED_PX, False, everything),
        ("sam2_hiera_tiny", RELEASED_PX, True, one),
        *((f"sam2.1_hiera_{size}", RELEASED_PX, True, one) for size in ("small", "base_plus", "large")),
    )
    for model, image_size, postprocess, names in table:
        # The official builder is slow: cases that it builds alike follow each other.
        for case in sorted((BY_NAME[name] for name in names), key=lambda case: repr(built_alike(case))):
            yield Setting(model, image_size, postprocess), case


@lru_cache(maxsize=1)
def clip(image_size: int, model: str) -> Clip:
    height, width = CAMERA_PX[image_size]
    return Clip(synthetic_frames(NUM_FRAMES, height, seed=3, width_px=width), image_size)


@lru_cache(maxsize=1)
def pair(setting: Setting, building: Case):  # type: ignore[no-untyped-def]
    gc.collect()  # the official model before holds itself in circles
    return build_pair(setting, building)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept_for_other_modules() -> Iterator[None]:
    yield
    pair.cache_clear()
    clip.cache_clear()


def as_param(setting: Setting, case: Case):  # type: ignore[no-untyped-def]
    marks = [pytest.mark.long] if setting.image_size == RELEASED_PX else []
    if case.name in SOME and setting.postprocess:
        marks.append(pytest.mark.numeric)
    return pytest.param(setting, case, marks=marks, id=f"{setting}-{case.name.replace(' ', '_')}")


@pytest.mark.parametrize(("setting", "case"), [as_param(*run) for run in runs()])
def test_tracking(add_row, setting: Setting, case: Case) -> None:  # type: ignore[no-untyped-def]
    frames = clip(setting.image_size, setting.model)
    official, ours = pair(setting, built_alike(case))
    expected = OfficialPlay(official, setting, case, frames).play()
    actual = play_ours(ours, setting, case, frames)
    assert_not_trivial(expected, case.seen_frames)
    difference = compare(actual, expected)
    add_row(
        case.name,
        setting.model,
        setting.image_size,
        setting.postprocess,
        max(difference.worst_logit, difference.worst_score_logit),
        difference.min_iou,
    )
    assert difference.worst_logit < TOLERANCE_LOGITS
    assert difference.worst_score_logit < TOLERANCE_LOGITS
    assert difference.min_iou >= MIN_IOU


def test_random_weights_make_much_of_a_prompt_and_little_of_the_last_bit() -> None:
    """Else it would be luck whether two right implementations agree within the tolerance."""
    model = "sam2.1_hiera_tiny"
    _, ours = pair(Setting(model, SMALL_PX, True), built_alike(BY_NAME["one click"]))
    (image, *_) = clip(SMALL_PX, model).inputs
    left, right = (PointPrompts(torch.tensor([[[x, 64.0]]]), torch.tensor([[1]])) for x in (35.0, 100.0))
    with torch.inference_mode():
        features = ours.encode_image(image)
        top = ours.without_memory(features)
        noise = torch.randn(top.shape, generator=torch.Generator().manual_seed(0))
        rounded = top + torch.finfo(top.dtype).eps * top.abs().max() * noise
        first, again, other = (
            ours.decode_masks(conditioned, features, points, multimask=False).logits_b1hw
            for conditioned, points in ((top, left), (rounded, left), (top, right))
        )
    assert (again - first).abs().max() < TOLERANCE_LOGITS / 50
    assert (other - first).abs().max() > TOLERANCE_LOGITS * 500


class OnePointerLess(BankPolicy):
    def select(self, frame, conditioning, recent):  # type: ignore[no-untyped-def]
        selection = super().select(frame, conditioning, recent)
        return replace(selection, pointers=tuple(p for p in selection.pointers if p.age != self.max_pointers - 1))


class SlotsSwapped(BankPolicy):
    def select(self, frame, conditioning, recent):  # type: ignore[no-untyped-def]
        selection = super().select(frame, conditioning, recent)
        swapped = tuple(replace(s, slot={0: 1, 1: 0}.get(s.slot, s.slot)) for s in selection.spatial)
        return replace(selection, spatial=swapped)


class CorrectionsForgotten(BankPolicy):
    def select(self, frame, conditioning, recent):  # type: ignore[no-untyped-def]
        return super().select(frame, conditioning, [f for f in recent if f != 6])


@pytest.mark.parametrize("wrong", [OnePointerLess, SlotsSwapped, CorrectionsForgotten])
def test_comparison_above_would_notice_a_wrong_memory(monkeypatch: pytest.MonkeyPatch, wrong: type[BankPolicy]) -> None:
    setting = Setting("sam2.1_hiera_tiny", SMALL_PX, True)
    case, frames = BY_NAME["positive correction"], clip(SMALL_PX, setting.model)
    _, ours = pair(setting, built_alike(case))
    right = play_ours(ours, setting, case, frames)
    monkeypatch.setattr("sam2_ros.tracking.tracker.bank_policy", lambda config, selection: wrong.of(config))
    worst = max(
        abs(a.objects[1].low_res_hw - b.objects[1].low_res_hw).max()
        for a, b in zip(play_ours(ours, setting, case, frames), right, strict=True)
    )
    assert worst > 5 * TOLERANCE_LOGITS
