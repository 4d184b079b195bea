"""Each probability of the generator switches its thing: none at 0, all of what can have it at 1."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from memory_photos import MemoryPhotos

from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.compose import composite_scene, moving_photo_scene
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.photos import Photo, make_photo
from sam2_ros.data.clips.scene import Layer, Scene
from sam2_ros.data.clips.solids import Solid, random_solid
from sam2_ros.data.clips.stage import Stage

SIZE_PX, FRAMES, SEEDS = 48, 6, range(16)
_SWITCHES = """lookalike occluder backdrop_target procedural solid joint tilt deform parallax standing race growth swap
zoom shake light shadow blur lift own_photo same_photo"""
OFF = {f"{name}_prob": 0.0 for name in _SWITCHES.split()}


def lanterns(gray: int) -> Photo:
    """Two discs on long legs."""
    image = np.full((96, 128, 3), 10, np.uint8)
    index = np.zeros((96, 128), np.uint16)
    for label, x in ((1, 34), (2, 92)):
        cv2.circle(index, (x, 30), 18, label, -1)
        cv2.rectangle(index, (x - 3, 40), (x + 3, 88), label, -1)
    image[index > 0] = gray
    return make_photo(str(gray), image, index)


LIBRARY = MemoryPhotos([lanterns(50 * (n + 1)) for n in range(4)])


def scenes(draw: Callable[..., Scene] = composite_scene, **config: float) -> list[Scene]:
    settings = ClipConfig(**{**OFF, "motion_spread": 0.0, **config})
    return [draw(LIBRARY, np.random.default_rng(seed), SIZE_PX, FRAMES, 1, settings) for seed in SEEDS]


def target(scene: Scene) -> Layer:
    return next(layer for layer in scene.layers if layer.is_target)


def turns_like_a_card(scene: Scene) -> bool:
    return bool(np.abs(target(scene).pose_t33[:, 2, :2]).max() > 1e-6)


def swings(scene: Scene) -> bool:
    mesh = target(scene).mesh
    return mesh is not None and mesh.shade_tv is None


def is_solid(scene: Scene) -> bool:
    mesh = target(scene).mesh
    return mesh is not None and mesh.shade_tv is not None


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("solid_prob", is_solid),
        ("joint_prob", swings),
        ("tilt_prob", turns_like_a_card),
        ("light_prob", lambda scene: scene.light_tgg is not None),
        ("shadow_prob", lambda scene: target(scene).shadow is not None),
        ("blur_prob", lambda scene: target(scene).streak_t2 is not None),
        ("parallax_prob", lambda scene: scene.backdrop.deformation is not None),
        ("occluder_prob", lambda scene: not scene.layers[-1].is_target and len(scene.layers) > 1),
    ],
)
def test_a_probability_switches_its_thing(name: str, has: Callable[[Scene], bool]) -> None:
    without, with_it = ([has(scene) for scene in scenes(**{name: share})] for share in (0.0, 1.0))
    if name != "occluder_prob":  # without one a distractor may be the last
        assert not any(without)
    assert np.mean(with_it) > 0.8


def test_an_object_comes_off_its_photograph_as_often_as_told() -> None:
    assert not any(scene.layers for scene in scenes(moving_photo_scene))
    assert all(scene.layers for scene in scenes(moving_photo_scene, lift_prob=1.0))


def centers(scene: Scene) -> np.ndarray:
    """(T, 2) path of the middle of the target's cut-out."""
    layer = target(scene)
    height, width = layer.cutout.rgba_hwc.shape[:2]
    seen = layer.pose_t33 @ [(width - 1) / 2, (height - 1) / 2, 1.0]
    return seen[:, :2] / seen[:, 2:]


def test_racers_go_as_far_as_the_frame_is_wide() -> None:
    def far(probability: float) -> float:
        return float(np.median([np.ptp(centers(scene), axis=0).max() for scene in scenes(race_prob=probability)]))

    assert far(0.0) < 0.35
    assert far(1.0) > 0.5


def test_sizes_grow_as_often_as_told() -> None:
    def growth(probability: float) -> float:
        scales = [
            np.log(np.abs(np.linalg.det(target(s).pose_t33[:, :2, :2]))) / 2 for s in scenes(growth_prob=probability)
        ]
        return float(np.mean([np.ptp(scale_t) for scale_t in scales]))

    assert growth(1.0) > 1.5 * growth(0.0)


def test_what_stands_moves_with_the_camera_only() -> None:
    def apart(probability: float) -> list[float]:
        """How far the target is, in the end, from where the camera takes its first place."""
        distances = []
        for scene in scenes(standing_prob=probability):
            path_t2 = centers(scene)
            place = np.linalg.inv(scene.backdrop.pose_t33[0]) @ np.append(path_t2[0], 1.0)
            carried = scene.backdrop.pose_t33[-1] @ place
            distances.append(float(np.hypot(*(carried[:2] / carried[2] - path_t2[-1]))))
        return distances

    assert max(apart(1.0)) < 1e-6
    assert np.median(apart(0.0)) > 0.05


def test_doubles_cross_their_targets_as_often_as_told() -> None:
    def nearest(probability: float) -> float:
        distances = []
        for scene in scenes(lookalike_prob=1.0, crossing_prob=probability, motion=0.05):
            path_t2, cutout = centers(scene), target(scene).cutout
            for layer in scene.layers:
                if layer.cutout is cutout and not layer.is_target:
                    other = Scene(scene.aspect, scene.backdrop, (Layer(cutout, layer.pose_t33, is_target=True),))
                    distances.append(np.hypot(*(centers(other) - path_t2).T).min())
        return float(np.median(distances))

    assert nearest(1.0) < 0.7 * nearest(0.0)


def test_cameras_zoom_and_shake_as_often_as_told() -> None:
    def cameras(**config: float) -> list[tuple[float, float]]:
        settings = ClipConfig(**{**OFF, **config})
        stages = [Stage.draw(LIBRARY, np.random.default_rng(seed), SIZE_PX, 8, settings) for seed in SEEDS]
        limits = [(stage.camera(0.2), stage.motion) for stage in stages]
        return [(limit.log_scale / motion, limit.shake / motion) for limit, motion in limits]

    calm = set(np.round(cameras(), 6).ravel())
    assert len(calm) == 2
    assert min(scale for scale, _ in cameras(zoom_prob=1.0)) > 3 * max(scale for scale, _ in cameras())
    assert min(shake for _, shake in cameras(shake_prob=1.0)) > 3 * max(shake for _, shake in cameras())


def test_further_cutouts_come_from_a_photograph_that_is_there_as_often_as_told() -> None:
    def photographs(probability: float) -> float:
        drawn: list[Photo] = []

        class Counting(MemoryPhotos):
            def draw(self, rng: np.random.Generator, *, with_instances: bool = False) -> Photo:
                drawn.append(super().draw(rng, with_instances=with_instances))
                return drawn[-1]

        settings = ClipConfig(**{**OFF, "same_photo_prob": probability})
        library = Counting(LIBRARY.photos)
        for seed in SEEDS:
            composite_scene(library, np.random.default_rng(seed), SIZE_PX, 2, 4, settings)
        return len(drawn) / len(SEEDS)

    assert photographs(1.0) < 0.7 * photographs(0.0)


def test_solids_are_modelled_things_as_often_as_told() -> None:
    class OneModel(ModelLibrary):
        def __init__(self) -> None:
            self.solid = random_solid(np.random.default_rng(0), LIBRARY.photos[0].image_hwc)

        def draw(self, rng: np.random.Generator) -> Solid:
            return self.solid

    models = OneModel()

    def share(probability: float) -> float:
        settings = ClipConfig(**{**OFF, "solid_prob": 1.0, "model_prob": probability})
        drawn = [
            composite_scene(LIBRARY, np.random.default_rng(seed), SIZE_PX, 2, 1, settings, models=models)
            for seed in SEEDS
        ]
        meshes = [layer.mesh for scene in drawn for layer in scene.layers if layer.mesh is not None]
        return float(np.mean([moving.mesh is models.solid.mesh for moving in meshes]))

    assert share(0.0) == 0 and share(1.0) == 1
