"""Drawing scenes at random: what is in a clip and how it moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.actors import covering_offsets, crossing_centers, draw_gap, leaving_centers, swapping_centers
from sam2_ros.data.clips.bodies import Body, cover_body, draw_body
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.cutouts import pick_instance, random_texture
from sam2_ros.data.clips.lifting import Lifted, lifted_layer, without
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.photos import Instance, Photo, PhotoLibrary
from sam2_ros.data.clips.scene import Backdrop, Layer, Scene
from sam2_ros.data.clips.stage import Stage, Window, moving_backdrop, others_in, random_window, window_around

_LESSONS = ("cover", "leave", "vanish")
_LESSON_SHARES = (0.5, 0.35, 0.15)


def moving_photo_scene(
    library: PhotoLibrary,
    rng: np.random.Generator,
    size_px: int,
    num_frames: int,
    max_objects: int,
    config: ClipConfig,
    *,
    absence: bool = False,
) -> Scene:
    """A photograph whose own objects are the targets, seen by a moving camera and bent over time.

    One of them may be lifted off and move by itself; see composite_scene for the arguments.
    """
    stage = Stage.draw(library, rng, size_px, num_frames, config)
    photo = stage.photo(with_instances=True)
    subject = pick_instance(photo, rng)
    window = window_around(photo, subject, stage)
    targets = [subject, *others_in(photo, window, subject, rng)][: int(rng.integers(1, max_objects + 1))]
    side = np.sqrt(subject.area_px) / window.height_px
    # In proportion to the object, but a large object must not get out of view, where the border repeats the photograph.
    limits = stage.camera(float(rng.uniform(0.4, 1.3) * np.clip(side, 0.2, 0.4)))
    if subject.touches_edge or num_frames == 1 or not (absence or stage.happens(config.lift_prob)):
        return Scene(stage.aspect, moving_backdrop(photo, window, targets, limits, stage), (), stage.light())
    backdrop = moving_backdrop(without(photo, subject), window, targets[1:], limits, stage)
    layer = lifted_layer(stage, Lifted(photo, subject), backdrop, absence)
    return Scene(stage.aspect, backdrop, (layer,), stage.light())


def composite_scene(
    library: PhotoLibrary,
    rng: np.random.Generator,
    size_px: int,
    num_frames: int,
    max_objects: int,
    config: ClipConfig,
    *,
    absence: bool = False,
    models: ModelLibrary | None = None,
) -> Scene:
    """Objects on paths of their own over a moving photograph: targets, look-alikes, distractors and occluders.

    Args:
        library: photographs to draw from.
        rng: random numbers.
        size_px: side of the frames that will be rendered.
        num_frames: T.
        max_objects: targets at most.
        config: probabilities and ranges.
        absence: most targets leave, are hidden or gone for a part of the clip.
        models: modelled things to draw from, too.
    """
    stage = Stage.draw(library, rng, size_px, num_frames, config, models)
    photo = stage.photo(with_instances=stage.happens(0.5))
    window = random_window(photo, stage)
    own: list[Instance] = []
    if photo.instances and rng.random() < config.backdrop_target_prob:
        own = others_in(photo, window, None, rng)[:1]
    backdrop = moving_backdrop(photo, window, own, stage.camera(float(rng.uniform(0.0, 0.6))), stage)
    groups: list[list[Layer]] = []
    occluders: list[Layer] = []
    for _ in range(max(1, int(rng.integers(1, max_objects + 1)) - len(own))):
        cast = _target_group(stage, photo, backdrop, absence)
        groups.append(cast.layers)
        occluders += cast.covers
        if rng.random() < config.occluder_prob / (1 + len(occluders)):
            occluders.append(_occluder(stage, photo, cast))
    for _ in range(int(rng.integers(0, 3))):
        body = draw_body(stage, photo, stage.target_share())
        groups.append(
            [body.along(stage, _standing(stage, backdrop) if stage.happens(0.4) else stage.centers(body.side))]
        )
    layers = [layer for i in rng.permutation(len(groups)) for layer in groups[i]]
    return Scene(stage.aspect, backdrop, (*layers, *occluders), stage.light())


def empty_scene(
    library: PhotoLibrary, rng: np.random.Generator, size_px: int, num_frames: int, config: ClipConfig
) -> Scene:
    """A scene with nothing to track in it: a plain surface, a sky, a small piece of a photograph without objects."""
    stage = Stage.draw(library, rng, size_px, num_frames, config)
    photo = stage.photo()
    height, width = photo.index_hw.shape
    if rng.random() < 0.5:
        texture = random_texture(rng, photo.image_hwc, 128)
        photo = Photo("plain", texture, np.zeros((128, 128), np.uint8), ())
        window = random_window(photo, stage)
    else:
        side = 0.3 * min(height, width / stage.aspect)
        corner = rng.uniform(0, 1, 2) * (width - side * stage.aspect, height - side)
        window = Window(float(corner[0]), float(corner[1]), side, side * stage.aspect)
    return Scene(stage.aspect, moving_backdrop(photo, window, [], stage.camera(0.25), stage), (), stage.light())


@dataclass(frozen=True)
class _Cast:
    """A target with its doubles, whose layers stay together, and its occluders."""

    layers: list[Layer]
    covers: list[Layer]
    center_t2: NDArray[np.float64]  # (T, 2) the target's path, scene units
    side: float  # of the target, scene units


def _target_group(stage: Stage, photo: Photo, backdrop: Backdrop, absence: bool) -> _Cast:
    rng, config = stage.rng, stage.config
    body = draw_body(stage, photo, stage.target_share())
    doubles = 0
    if stage.happens(config.lookalike_prob):
        doubles = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    if doubles and stage.num_frames > 1 and not absence and stage.happens(config.swap_prob):
        return _swapping_pair(stage, body)
    center_t2 = _standing(stage, backdrop) if stage.happens(config.standing_prob) else stage.centers(body.side)
    target, covers = _absent(stage, body, center_t2) if absence and rng.random() < 0.8 else (None, [])
    target = target or replace(body.along(stage, center_t2), is_target=True)
    copies = []
    for _ in range(doubles):
        double = body.grown(float(np.exp(rng.normal(0, 0.12))))
        crosses = stage.happens(config.crossing_prob)
        path_t2 = crossing_centers(rng, center_t2, body.side) if crosses else stage.centers(body.side)
        copies.append(double.along(stage, path_t2))
    behind = int(rng.integers(doubles + 1))
    return _Cast([*copies[:behind], target, *copies[behind:]], covers, center_t2, body.side)


def _swapping_pair(stage: Stage, body: Body) -> _Cast:
    swap = swapping_centers(stage.rng, stage.num_frames, stage.aspect, body.side)
    # The target is the lower layer; 1.5 more lifts it over its double.
    raised_t = np.where(swap.first_in_front_t, 1.5, 0.0)
    target = replace(body.along(stage, swap.first_t2), is_target=True, raised_t=raised_t)
    double = body.grown(float(np.exp(stage.rng.normal(0, 0.05)))).along(stage, swap.second_t2)
    return _Cast([target, double], [], swap.first_t2, body.side)


def _absent(stage: Stage, body: Body, center_t2: NDArray[np.float64]) -> tuple[Layer, list[Layer]]:
    """A target that is not visible for a part of the clip, and its occluders, if any."""
    rng, num_frames = stage.rng, stage.num_frames
    gap = draw_gap(rng, num_frames, stage.config.return_prob)
    lesson = str(rng.choice(_LESSONS, p=_LESSON_SHARES))
    if lesson == "leave":
        center_t2 = leaving_centers(rng, center_t2, gap, stage.aspect, body.reach)
        return replace(body.along(stage, center_t2), is_target=True), []
    if lesson == "vanish":
        present_t = gap.outside(num_frames) != 0
        return replace(body.along(stage, center_t2), is_target=True, present_t=present_t), []
    # The occluder must not fill the frame.
    body = body.grown(min(1.0, 0.4 / body.reach))
    target = body.along(stage, center_t2)
    height, width = body.reach * rng.uniform(1.1, 1.7, 2)
    cover = cover_body(stage, height, width)
    offset_t2 = covering_offsets(rng, num_frames, gap, float(np.hypot(height, width)) / 2 + body.reach / 2)
    path_t2 = center_t2 + offset_t2
    if rng.random() < 0.5:  # the target moves behind an occluder that stands still
        place = np.clip(center_t2[gap.start], 0.2, [stage.aspect - 0.2, 0.8])
        path_t2 = np.tile(place, (num_frames, 1))
        target = body.along(stage, path_t2 - offset_t2)
    still = replace(stage, motion=0.3 * stage.motion)
    return replace(target, is_target=True), [cover.along(still, path_t2)]


def _occluder(stage: Stage, photo: Photo, cast: _Cast) -> Layer:
    share = float(np.exp(stage.rng.uniform(np.log(0.02), np.log(0.35))))
    config = replace(stage.config, procedural_prob=max(0.3, stage.config.procedural_prob))
    body = draw_body(replace(stage, config=config), photo, share)
    return body.along(stage, crossing_centers(stage.rng, cast.center_t2, cast.side))


def _standing(stage: Stage, backdrop: Backdrop) -> NDArray[np.float64]:
    """(T, 2) path of an object that stands still: only the camera moves it in the picture, near objects the most."""
    place = np.append(stage.rng.uniform(0.15, 0.85, 2) * (stage.aspect, 1.0), 1.0)
    moved_t3 = backdrop.pose_t33 @ (np.linalg.inv(backdrop.pose_t33[0]) @ place)
    moved_t2 = moved_t3[:, :2] / moved_t3[:, 2:]
    nearness = stage.rng.uniform(1.0, 2.2) if stage.happens(stage.config.parallax_prob) else 1.0
    return moved_t2[0] + nearness * (moved_t2 - moved_t2[0])
