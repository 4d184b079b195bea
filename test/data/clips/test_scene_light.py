"""Shadows, wandering light, motion blur and parallax, on scenes of one square."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from memory_photos import MemoryPhotos

from sam2_ros.data.clips import images, synthetic
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import moving_photo_scene
from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.motion import CameraRange, camera_path, moving_light, parallax
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.scene import Backdrop, Layer, Scene, Shadow, render
from sam2_ros.data.clips.synthetic import SyntheticClips

SIZE_PX = 64


def scene_of_a_square(**extra: object) -> Scene:
    """A white square of 16 px at (24, 24) on grey."""
    rgba = np.full((20, 20, 4), 250, np.uint8)
    rgba[..., 3] = 0
    rgba[2:-2, 2:-2, 3] = 255
    pose = np.array([[1, 0, 22.5], [0, 1, 22.5], [0, 0, SIZE_PX]]) / SIZE_PX
    still = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, SIZE_PX]]) / SIZE_PX
    grey = np.full((SIZE_PX, SIZE_PX, 3), 100, np.uint8)
    backdrop = Backdrop(grey, (), still[None], None, (0.0, 0.0, float(SIZE_PX), float(SIZE_PX)))
    return Scene(1.0, backdrop, (replace(Layer(Cutout(rgba), pose[None], is_target=True), **extra),))


def test_a_shadow_darkens_beside_the_object_and_nothing_else() -> None:
    plain = render(scene_of_a_square(), 0, SIZE_PX)
    beside = render(scene_of_a_square(shadow=Shadow(1.0, 0.0, (0.5, 0.0), 0.5, 0.01)), 0, SIZE_PX)
    np.testing.assert_array_equal(plain.owner_hw, beside.owner_hw)
    assert beside.image_hwc[32, 32, 0] == 250
    assert 45 <= beside.image_hwc[32, 44, 0] <= 60  # half as bright
    assert beside.image_hwc[32, 16, 0] == 100 and beside.image_hwc[32, 56, 0] == 100
    ground = render(scene_of_a_square(shadow=Shadow(0.5, 1.0, (0.0, 0.0), 0.5, 0.01)), 0, SIZE_PX).image_hwc[..., 0]
    assert ground[35, 45] < 70 and ground[26, 45] > 95  # slanted to the right, half as high as the object
    assert ground[44, 32] > 90  # nothing below its foot


def test_light_falls_on_everything_and_moves_no_mask() -> None:
    scene = scene_of_a_square()
    light = np.array([[[0.5, 0.5], [0.8, 0.8]]], np.float32)
    lit = render(replace(scene, light_tgg=light), 0, SIZE_PX)
    np.testing.assert_array_equal(lit.owner_hw, render(scene, 0, SIZE_PX).owner_hw)
    assert lit.image_hwc[2, 2, 0] == 50 and lit.image_hwc[61, 2, 0] == 80
    assert 125 < lit.image_hwc[30, 30, 0] < 200


def test_light_wanders() -> None:
    fields = [moving_light(np.random.default_rng(seed), 6) for seed in range(20)]
    assert all(field.min() > 0.4 and field.max() < 2.2 for field in fields)
    assert np.mean([np.abs(field[0] - field[-1]).mean() for field in fields]) > 0.03


def test_what_moves_while_the_shutter_is_open_is_smeared_along_its_way() -> None:
    still = render(scene_of_a_square(), 0, SIZE_PX)
    smeared = render(scene_of_a_square(streak_t2=np.array([[16 / SIZE_PX, 0.0]])), 0, SIZE_PX)
    row = smeared.image_hwc[32, :, 0].astype(int)
    assert row[32] > 230 and 130 < row[24] < 220 and 130 < row[40] < 220
    assert row[12] == 100 and row[52] == 100
    assert (smeared.image_hwc[:23] == 100).all() and (smeared.image_hwc[42:] == 100).all()
    # As long and as far to the left as to the right.
    overlap = (smeared.owner_hw == 0) & (still.owner_hw == 0)
    assert overlap.sum() > 0.9 * (still.owner_hw == 0).sum()


def test_parallax_moves_the_near_edge_more_than_the_far_one_and_folds_nothing() -> None:
    for seed in range(20):
        field_tgg2 = parallax(np.random.default_rng(seed), 6, 0.2).control_tgg2
        assert not field_tgg2[0].any()
        assert np.abs(field_tgg2).max() > 0.02
        steps = np.diff(field_tgg2[..., 1], axis=1)
        assert np.abs(steps).max() < 1 / (field_tgg2.shape[1] - 1)
    depths = [parallax(np.random.default_rng(seed), 2, 0.2).control_tgg2[1, ..., 0].mean(axis=1) for seed in range(20)]
    assert np.mean([np.ptp(depth) > 0.5 * np.abs(depth).max() for depth in depths]) > 0.9


def test_a_hand_in_a_hurry_shakes_more() -> None:
    def jerk(shake: float) -> float:
        limits = CameraRange(0.0, 0.0, 0.0, 0.0, 0.0, shake)
        paths = [camera_path(np.random.default_rng(seed), 8, 1.0, limits) for seed in range(40)]
        return float(np.mean([np.abs(np.diff(path[:, :2, 2], axis=0)).mean() for path in paths]))

    assert jerk(0.0) < 1e-9
    assert jerk(0.04) > 2 * jerk(0.01) > 0


def photo() -> Photo:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (96, 128, 3), dtype=np.uint8)
    index = np.zeros((96, 128), np.uint16)
    index[30:70, 40:90] = 1
    return make_photo("noise", image, index)


def test_backdrops_bend_and_have_depth_as_often_as_told() -> None:
    def bent(**config: float) -> list[bool]:
        settings = ClipConfig(**{"deform_prob": 0.0, "parallax_prob": 0.0, "lift_prob": 0.0, **config})
        library = MemoryPhotos([photo()])
        scenes = [moving_photo_scene(library, np.random.default_rng(s), 48, 4, 1, settings) for s in range(10)]
        return [
            scene.backdrop.deformation is not None and bool(np.abs(scene.backdrop.deformation.table(3)).max() > 1e-3)
            for scene in scenes
        ]

    assert not any(bent())
    assert all(bent(deform_prob=1.0))
    assert all(bent(parallax_prob=1.0))


def test_a_bent_backdrop_moves_the_outlines_of_its_objects() -> None:
    """With the camera still, only bending and depth are left to change a mask."""

    def change(**config: float) -> float:
        settings = ClipConfig(
            **{"deform_prob": 0.0, "parallax_prob": 0.0, "shake_prob": 0.0, "zoom_prob": 0.0, **config}
        )
        make = SyntheticClips(
            MemoryPhotos([photo()]),
            SIZE_PX,
            4,
            1,
            replace(settings, moving_photo_prob=1.0, lift_prob=0.0, motion=0.0, motion_spread=0.0, absence_prob=0.0),
        )
        masks = [make(seed).masks_tnhw[:, 0] for seed in range(8)]
        return float(np.mean([(mask[0] ^ mask[-1]).mean() for mask in masks]))

    assert change() < 0.005
    assert change(deform_prob=1.0, max_deform=0.16) > 0.01


def test_synthetic_clips_have_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera's colours, noise and blur are on what is rendered; images and clips alike."""
    library = MemoryPhotos([photo()])
    for num_frames in (1, 3):
        make = SyntheticClips(library, SIZE_PX, num_frames, 1, ClipConfig(absence_prob=0.0))
        with_look = [make(seed).images_thwc for seed in range(6)]
        with monkeypatch.context() as patch:
            for module in (synthetic, images):
                patch.setattr(module, "apply_look", lambda look, t, image, rng: image)
            plain = [make(seed).images_thwc for seed in range(6)]
        assert sum(not np.array_equal(a, b) for a, b in zip(with_look, plain, strict=True)) >= 5
