"""Absence is a lesson: cuts, leaving, hiding, vanishing; and doubles change places in front of and behind a target."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from memory_photos import MemoryPhotos

from sam2_ros.data.clips import synthetic
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import composite_scene, empty_scene
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.scene import render
from sam2_ros.data.clips.synthetic import SyntheticClips

SIZE_PX, FRAMES = 48, 6


def discs(gray: int) -> Photo:
    image = np.full((96, 128, 3), 10 + gray // 8, np.uint8)
    index = np.zeros((96, 128), np.uint16)
    for label, center in ((1, (34, 48)), (2, (92, 48))):
        cv2.circle(index, center, 22, label, -1)
    image[index > 0] = gray
    return make_photo(str(gray), image, index)


LIBRARY = MemoryPhotos([discs(60), discs(120), discs(180), discs(240)])
CALM = {"lookalike_prob": 0.0, "occluder_prob": 0.0, "motion": 0.1, "race_prob": 0.0, "visible_at_start_prob": 1.0}


def absent_share(frames: int = FRAMES, count: int = 25, **config: float) -> float:
    """Of the object-frames after the first, over objects that the first frame shows."""
    make = SyntheticClips(LIBRARY, SIZE_PX, frames, 3, ClipConfig(**{**CALM, **config}))
    shares = []
    for seed in range(count):
        masks = make(seed).masks_tnhw
        shown = masks[0].any(axis=(1, 2))
        shares.append(np.mean(~masks[1:, shown].any(axis=(2, 3))))
    return float(np.mean(shares))


def test_one_probability_controls_the_share_of_absent_objects() -> None:
    assert absent_share(absence_prob=0.0) < 0.1
    assert 0.2 < absent_share(absence_prob=1.0) < 0.5
    assert 0.25 < absent_share(frames=4, absence_prob=1.0) < 0.6


@pytest.mark.parametrize("moving_photo_prob", [0.0, 1.0])
def test_after_a_cut_all_targets_are_gone_and_back_with_the_first_scene(moving_photo_prob: float) -> None:
    config = ClipConfig(**CALM, absence_prob=1.0, cut_share=1.0, moving_photo_prob=moving_photo_prob)
    make = SyntheticClips(LIBRARY, SIZE_PX, FRAMES, 3, config)
    returned = 0
    for seed in range(20):
        masks = make(seed).masks_tnhw
        assert masks[0, 0].any()
        gone_t = ~masks.any(axis=(1, 2, 3))
        assert gone_t.any()
        returned += bool(masks[np.flatnonzero(gone_t)[0] :, 0].any())
    assert 2 < returned < 16


def test_the_other_scene_of_a_cut_is_another_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "apply_look", lambda look, t, image, rng: image)
    config = ClipConfig(**CALM, absence_prob=1.0, cut_share=1.0, return_prob=0.0)
    make = SyntheticClips(LIBRARY, SIZE_PX, FRAMES, 1, config)
    steps = [np.abs(np.diff(make(seed).images_thwc.astype(int), axis=0)).mean(axis=(1, 2, 3)) for seed in range(20)]
    assert np.median([step_t.max() / (np.sort(step_t)[-2] + 1) for step_t in steps]) > 2


@pytest.mark.parametrize("returns", [0.0, 1.0])
def test_in_other_lessons_targets_go_and_come_back_as_often_as_told(returns: float) -> None:
    config = ClipConfig(**CALM, return_prob=returns, standing_prob=1.0, backdrop_target_prob=0.0)
    gone = back = 0
    for seed in range(25):
        scene = composite_scene(LIBRARY, np.random.default_rng(seed), SIZE_PX, 8, 1, config, absence=True)
        target = scene.target_ids[0]
        shown_t = np.array([(render(scene, t, SIZE_PX).owner_hw == target).any() for t in range(8)])
        if shown_t[0] and not shown_t.all():
            gone += 1
            back += bool(shown_t[-1])
    assert gone > 8
    assert back <= 0.25 * gone if returns == 0 else back > 0.5 * gone


def test_an_empty_scene_has_nothing_to_track() -> None:
    for seed in range(10):
        scene = empty_scene(LIBRARY, np.random.default_rng(seed), SIZE_PX, 3, ClipConfig())
        assert not scene.target_ids and not scene.layers
        assert render(scene, 2, SIZE_PX).image_hwc.shape == (SIZE_PX, SIZE_PX, 3)


def test_a_target_that_swaps_with_its_double_is_now_over_and_now_under_it() -> None:
    config = ClipConfig(**{**CALM, "lookalike_prob": 1.0}, swap_prob=1.0, backdrop_target_prob=0.0)
    orders = set()
    for seed in range(20):
        scene = composite_scene(LIBRARY, np.random.default_rng(seed), SIZE_PX, FRAMES, 1, config)
        pairs = [layer for layer in scene.layers if layer.raised_t is not None]
        assert len(pairs) == 1 and pairs[0].is_target
        orders |= set(np.unique(pairs[0].raised_t))
    assert orders == {0.0, 1.5}
