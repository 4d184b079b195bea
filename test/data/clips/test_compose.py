"""Every probability and range of the clip generator does what it says; what is drawn is looked at before rendering."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
from memory_photos import MemoryPhotos

from sam2_ros.data.clips import bodies
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import composite_scene, moving_photo_scene
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.scene import Scene, render
from sam2_ros.data.clips.stage import Stage

SIZE_PX, FRAMES, SEEDS = 48, 3, range(30)
NOTHING_EXTRA = {
    "lookalike_prob": 0.0,
    "occluder_prob": 0.0,
    "backdrop_target_prob": 0.0,
    "solid_prob": 0.0,
    "joint_prob": 0.0,
    "tilt_prob": 0.0,
}


def _photo(gray: int) -> Photo:
    """Two discs of one grey."""
    image = np.full((96, 128, 3), 10, np.uint8)
    index = np.zeros((96, 128), np.uint16)
    for label, center in ((1, (34, 48)), (2, (92, 48))):
        cv2.circle(index, center, 22, label, -1)
    image[index > 0] = gray
    return make_photo(str(gray), image, index)


LIBRARY = MemoryPhotos([_photo(50 * (n + 1)) for n in range(4)])


def scenes(draw: Callable[..., Scene] = composite_scene, max_objects: int = 1, **config: float) -> list[Scene]:
    settings = ClipConfig(**config)
    return [draw(LIBRARY, np.random.default_rng(seed), SIZE_PX, FRAMES, max_objects, settings) for seed in SEEDS]


def test_lookalikes_are_of_their_targets_cutout() -> None:
    def doubles(probability: float) -> list[int]:
        drawn = scenes(**{**NOTHING_EXTRA, "lookalike_prob": probability})
        return [len(scene.layers) - len({id(layer.cutout) for layer in scene.layers}) for scene in drawn]

    assert set(doubles(0.0)) == {0}
    assert set(doubles(1.0)) == {1, 2, 3}


def test_occluders_lie_on_top_and_are_no_targets() -> None:
    without = scenes(**NOTHING_EXTRA)
    with_them = scenes(**{**NOTHING_EXTRA, "occluder_prob": 1.0})
    assert all(not scene.layers[-1].is_target for scene in with_them)
    assert any(scene.layers[-1].is_target for scene in without)
    assert sum(len(scene.layers) for scene in with_them) > sum(len(scene.layers) for scene in without)


def test_objects_of_the_backdrop_are_targets_as_often_as_told() -> None:
    assert not any(scene.backdrop.masks for scene in scenes(**NOTHING_EXTRA))
    with_them = scenes(**{**NOTHING_EXTRA, "backdrop_target_prob": 1.0})
    assert np.mean([len(scene.backdrop.masks) for scene in with_them]) > 0.5  # where the window shows one


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_procedural_cutouts_are_drawn_as_often_as_told(monkeypatch: pytest.MonkeyPatch, probability: float) -> None:
    drawn: list[object] = []
    make = bodies.procedural_cutout
    monkeypatch.setattr(bodies, "procedural_cutout", lambda *args: drawn.append(args) or make(*args))
    layers = sum(len(scene.layers) for scene in scenes(**NOTHING_EXTRA, procedural_prob=probability))
    assert len(drawn) == probability * layers


def test_an_object_can_come_from_the_backdrops_own_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is as grey as the objects behind it; ``jitter``, which changes that, is left out."""
    monkeypatch.setattr(bodies, "jitter", lambda cutout, rng: cutout)

    def share_of_own(probability: float) -> float:
        drawn = scenes(**NOTHING_EXTRA, own_photo_prob=probability, procedural_prob=0.0)
        return float(np.mean([_gray(s.layers[0].cutout.rgba_hwc) == int(s.backdrop.image_hwc.max()) for s in drawn]))

    assert share_of_own(1.0) == 1.0
    assert share_of_own(0.0) < 0.6  # one photograph in four, by chance


def _gray(rgba_hwc: np.ndarray) -> int:
    return int(np.median(rgba_hwc[..., 0][rgba_hwc[..., 3] == 255]))


def test_bending_goes_as_far_as_told() -> None:
    def farthest(**config: float) -> float:
        layers = [layer for scene in scenes(**NOTHING_EXTRA, **config) for layer in scene.layers]
        bends = [layer.deformation for layer in layers if layer.deformation is not None]
        return max((float(np.abs(bend.control_tgg2).max()) for bend in bends), default=0.0)

    assert farthest(deform_prob=0.0) == 0
    assert farthest(deform_prob=1.0, max_deform=0.0) == 0
    assert farthest(deform_prob=1.0, max_deform=0.2) == pytest.approx(10 * farthest(deform_prob=1.0, max_deform=0.02))


def test_targets_are_as_large_as_told() -> None:
    def median_share(low: float, high: float) -> float:
        shares = []
        for scene in scenes(**NOTHING_EXTRA, min_target_share=low, max_target_share=high, motion=0.0, deform_prob=0.0):
            owner = render(scene, 0, SIZE_PX).owner_hw
            shares += [float((owner == target).mean()) for target in scene.target_ids]
        return float(np.median(shares))

    small, large = median_share(0.02, 0.03), median_share(0.2, 0.3)
    assert 0.01 < small < 0.04 and 0.1 < large < 0.4  # some are covered or reach out of the picture


@pytest.mark.parametrize("draw", [composite_scene, moving_photo_scene])
def test_scenes_are_as_wide_as_told(draw: Callable[..., Scene]) -> None:
    assert {scene.aspect for scene in scenes(draw, max_aspect=1.0)} == {1.0}
    wide = [scene.aspect for scene in scenes(draw, max_aspect=2.0)]
    assert 1.6 < max(wide) <= 2.0 and min(wide) >= 1.0


def test_clips_differ_in_their_motion_as_much_as_told() -> None:
    def factors(**config: float) -> list[float]:
        settings = ClipConfig(**config, zoom_prob=0.0, shake_prob=0.0)
        stages = [Stage.draw(LIBRARY, np.random.default_rng(seed), SIZE_PX, FRAMES, settings) for seed in SEEDS]
        assert [stage.camera(0.4).shift for stage in stages] == pytest.approx([0.4 * stage.motion for stage in stages])
        return [stage.motion for stage in stages]

    # Clips of three frames move less in all, so that what is between two frames stays.
    assert factors(motion=0.5, motion_spread=0.0) == pytest.approx([0.5 * (FRAMES / 8) ** 0.5] * len(SEEDS))
    assert 0.2 < np.log(factors(motion=0.5, motion_spread=0.4)).std() < 0.6
    assert all(a != b for a, b in pairwise(factors(motion=0.5, motion_spread=0.4)))
