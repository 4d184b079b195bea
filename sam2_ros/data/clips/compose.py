"""Drawing scenes at random: what is in a clip and how it moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.actors import acting_centers, crossing_centers, poses, scale_for, side_of
from sam2_ros.data.clips.cutouts import Cutout, cut_out, jitter, pick_instance, procedural_cutout, shrink
from sam2_ros.data.clips.motion import CameraRange, Deformation, camera_path, deformation, smooth_curve
from sam2_ros.data.clips.photos import Instance, Photo, PhotoLibrary
from sam2_ros.data.clips.scene import Backdrop, Layer, Scene

_MAX_ENLARGEMENT = 3.0  # beyond it a photograph turns to mush
_LARGEST_GROWTH = 1.5  # of a cut-out over a clip; smaller sources are resized before the clip


@dataclass(frozen=True)
class ClipConfig:
    """Probabilities and ranges of the clip generator."""

    moving_photo_prob: float = 0.4
    visible_at_start_prob: float = 0.9  # other clips may show their targets later only
    procedural_prob: float = 0.12  # of cut-outs
    deform_prob: float = 0.65
    max_deform: float = 0.08  # share of the object's sides
    lookalike_prob: float = 0.3
    own_photo_prob: float = 0.12  # paste an object of the backdrop onto its own photograph
    occluder_prob: float = 0.45
    backdrop_target_prob: float = 0.2
    min_target_share: float = 0.018  # of the frame's area
    max_target_share: float = 0.30
    max_aspect: float = 1.78
    motion: float = 0.5  # typical factor on all motion; here the first mask held still overlaps about as on DAVIS
    motion_spread: float = 0.4  # of its logarithm between clips


@dataclass(frozen=True)
class _Window:
    """The part of a photograph that the camera sees at first."""

    x0_px: float
    y0_px: float
    height_px: float
    width_px: float


@dataclass(frozen=True)
class _Stage:
    """What every draw of one scene shares."""

    library: PhotoLibrary
    rng: np.random.Generator
    size_px: int
    num_frames: int
    config: ClipConfig
    aspect: float
    motion: float  # factor on all motion of this clip

    @classmethod
    def draw(
        cls, library: PhotoLibrary, rng: np.random.Generator, size_px: int, num_frames: int, config: ClipConfig
    ) -> _Stage:
        # Short clips move less in total, so that the steps between frames stay trackable.
        motion = config.motion * np.exp(rng.normal(0, config.motion_spread)) * min(1.0, np.sqrt(num_frames / 8))
        return cls(library, rng, size_px, num_frames, config, rng.uniform(1.0, config.max_aspect), float(motion))

    def centers(self, side: float) -> NDArray[np.float64]:
        """(T, 2) path of an object of that side."""
        reach = self.motion * self.rng.uniform(0.3, 1.1) * max(side, 0.12)
        return acting_centers(self.rng, self.num_frames, self.aspect, reach)

    def deformation(self, strength: float) -> Deformation | None:
        if self.rng.random() >= self.config.deform_prob:
            return None
        return deformation(self.rng, self.num_frames, strength * self.rng.uniform(0.25, 1.0))

    def gain(self) -> NDArray[np.float64] | None:
        """Brightness of an object that passes through light and shade."""
        return np.exp(smooth_curve(self.rng, self.num_frames, 0.35)) if self.rng.random() < 0.3 else None

    def target_share(self) -> float:
        low, high = np.log(self.config.min_target_share), np.log(self.config.max_target_share)
        return float(np.exp(self.rng.uniform(low, high)))


def moving_photo_scene(
    library: PhotoLibrary,
    rng: np.random.Generator,
    size_px: int,
    num_frames: int,
    max_objects: int,
    config: ClipConfig,
) -> Scene:
    """A photograph whose own objects are the targets, seen by a moving camera and bent over time."""
    stage = _Stage.draw(library, rng, size_px, num_frames, config)
    photo = library.draw(rng, with_instances=True)
    subject = pick_instance(photo, rng)
    window = _window_around(photo, subject, stage)
    targets = [subject, *_others_in(photo, window, subject, rng)][: int(rng.integers(1, max_objects + 1))]
    side = np.sqrt(subject.area_px) / window.height_px
    # In proportion to the object, but a large one must not leave for the repeated border.
    limits = CameraRange(shift=float(rng.uniform(0.4, 1.3) * np.clip(side, 0.2, 0.4)))
    return Scene(stage.aspect, _backdrop(photo, window, targets, limits, stage), ())


def composite_scene(
    library: PhotoLibrary,
    rng: np.random.Generator,
    size_px: int,
    num_frames: int,
    max_objects: int,
    config: ClipConfig,
) -> Scene:
    """Cut-outs on paths of their own over a moving photograph: targets, look-alikes, distractors and occluders."""
    stage = _Stage.draw(library, rng, size_px, num_frames, config)
    photo = library.draw(rng, with_instances=rng.random() < 0.5)
    window = _random_window(photo, stage)
    own: list[Instance] = []
    if photo.instances and rng.random() < config.backdrop_target_prob:
        own = _others_in(photo, window, None, rng)[:1]
    limits = replace(CameraRange(), shift=float(rng.uniform(0.0, 0.6)))
    backdrop = _backdrop(photo, window, own, limits, stage)
    layers: list[Layer] = []
    occluders: list[Layer] = []
    for _ in range(max(1, int(rng.integers(1, max_objects + 1)) - len(own))):
        target, center_t2 = _actor(stage, photo)
        layers.append(replace(target, is_target=True))
        side = side_of(config.max_target_share, stage.aspect) / 2
        if rng.random() < config.lookalike_prob:
            layers.append(_lookalike(stage, target))
        if rng.random() < config.occluder_prob / (1 + len(occluders)):
            occluders.append(_occluder(stage, photo, center_t2, side))
    for _ in range(int(rng.integers(0, 3))):
        distractor, _ = _actor(stage, photo)
        if rng.random() < 0.4:
            # Standing in the scene: it moves with the backdrop only.
            from_first = backdrop.pose_t33 @ np.linalg.inv(backdrop.pose_t33[0])
            distractor = replace(distractor, pose_t33=from_first @ distractor.pose_t33[0])
        layers.append(distractor)
    order = rng.permutation(len(layers))
    return Scene(stage.aspect, backdrop, (*(layers[i] for i in order), *occluders))


def _actor(stage: _Stage, photo: Photo) -> tuple[Layer, NDArray[np.float64]]:
    """A cut-out on a path of its own, and the (T, 2) path of its middle."""
    cutout = _draw_cutout(stage, photo)
    scale = _limited_scale(scale_for(cutout, stage.target_share(), stage.aspect), stage)
    center_t2 = stage.centers(scale * float(np.sqrt(cutout.area_px)))
    return _layer(stage, cutout, center_t2, scale), center_t2


def _occluder(stage: _Stage, photo: Photo, other_t2: NDArray[np.float64], side: float) -> Layer:
    cutout = _draw_cutout(stage, photo, procedural_prob=0.4)
    share = float(np.exp(stage.rng.uniform(np.log(0.02), np.log(0.35))))
    scale = scale_for(cutout, share, stage.aspect)
    return _layer(stage, cutout, crossing_centers(stage.rng, other_t2, side), scale)


def _lookalike(stage: _Stage, target: Layer) -> Layer:
    """The same cut-out about as large, on another path."""
    rng = stage.rng
    linear_22 = target.pose_t33[0, :2, :2]
    scale = float(np.sqrt(abs(np.linalg.det(linear_22)))) * float(np.exp(rng.normal(0, 0.12)))
    side = scale * float(np.sqrt(target.cutout.area_px))
    pose_t33 = poses(rng, target.cutout, stage.centers(side), scale, stage.motion)
    return Layer(target.cutout, pose_t33, stage.deformation(stage.config.max_deform))


def _layer(stage: _Stage, cutout: Cutout, center_t2: NDArray[np.float64], scale: float) -> Layer:
    shown = scale * stage.size_px * _LARGEST_GROWTH
    small = shrink(cutout, shown)
    scale *= cutout.rgba_hwc.shape[0] / small.rgba_hwc.shape[0]
    bend = stage.deformation(stage.config.max_deform)
    return Layer(small, poses(stage.rng, small, center_t2, scale, stage.motion), bend, gain_t=stage.gain())


def _limited_scale(scale: float, stage: _Stage) -> float:
    return min(scale, _MAX_ENLARGEMENT / stage.size_px)


def _draw_cutout(stage: _Stage, backdrop: Photo, procedural_prob: float | None = None) -> Cutout:
    rng = stage.rng
    if rng.random() < (stage.config.procedural_prob if procedural_prob is None else procedural_prob):
        return procedural_cutout(rng, stage.library.draw(rng).image_hwc)
    if backdrop.instances and rng.random() < stage.config.own_photo_prob:
        return jitter(cut_out(backdrop, pick_instance(backdrop, rng)), rng)
    photo = stage.library.draw(rng, with_instances=True)
    return jitter(cut_out(photo, pick_instance(photo, rng)), rng)


def _window_around(photo: Photo, subject: Instance, stage: _Stage) -> _Window:
    """A window in which the subject has the size of a target, with the subject somewhere inside."""
    height, width = photo.index_hw.shape
    x0, y0, x1, y1 = subject.box_xyxy
    wanted = np.sqrt(subject.area_px / (stage.target_share() * stage.aspect))
    wanted = max(wanted, 1.1 * (y1 - y0), 1.1 * (x1 - x0) / stage.aspect, stage.size_px / _MAX_ENLARGEMENT)
    window_h = float(min(wanted, height, width / stage.aspect))
    window_w = window_h * stage.aspect
    slack = np.maximum(0.0, [window_w - (x1 - x0), window_h - (y1 - y0)])
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + stage.rng.uniform(-0.5, 0.5, 2) * slack
    corner = np.clip(middle - (window_w / 2, window_h / 2), 0, [width - window_w, height - window_h])
    return _Window(float(corner[0]), float(corner[1]), window_h, window_w)


def _random_window(photo: Photo, stage: _Stage) -> _Window:
    height, width = photo.index_hw.shape
    window_h = min(height, width / stage.aspect) * stage.rng.uniform(0.55, 1.0)
    window_w = window_h * stage.aspect
    x0, y0 = stage.rng.uniform(0, 1, 2) * (width - window_w, height - window_h)
    return _Window(float(x0), float(y0), float(window_h), float(window_w))


def _others_in(photo: Photo, window: _Window, subject: Instance | None, rng: np.random.Generator) -> list[Instance]:
    """Other objects that the window shows large enough, in random order."""
    found = []
    for item in photo.instances:
        x0, y0, x1, y1 = item.box_xyxy
        x, y = (x0 + x1) / 2 - window.x0_px, (y0 + y1) / 2 - window.y0_px
        inside = 0 < x < window.width_px and 0 < y < window.height_px
        if item is not subject and inside and item.area_px > 0.006 * window.width_px * window.height_px:
            found.append(item)
    return [found[i] for i in rng.permutation(len(found))]


def _backdrop(photo: Photo, window: _Window, targets: list[Instance], limits: CameraRange, stage: _Stage) -> Backdrop:
    """The photograph under a camera path that starts at the window, mirrored at random."""
    height, width = photo.index_hw.shape
    shrink_by = min(1.0, 1.2 * stage.size_px / window.height_px)
    size = (max(1, round(width * shrink_by)), max(1, round(height * shrink_by)))
    image = photo.image_hwc
    masks = [(photo.index_hw == item.label).astype(np.uint8) * 255 for item in targets]
    if shrink_by < 0.9:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        masks = [cv2.resize(mask, size, interpolation=cv2.INTER_AREA) for mask in masks]
    factor = image.shape[0] / height
    x0, y0, h, w = (factor * v for v in (window.x0_px, window.y0_px, window.height_px, window.width_px))
    start = np.array([[1 / h, 0.0, (0.5 - x0) / h], [0.0, 1 / h, (0.5 - y0) / h], [0.0, 0.0, 1.0]])
    if stage.rng.random() < 0.5:
        start = np.array([[-1.0, 0.0, stage.aspect], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ start
    path = camera_path(stage.rng, stage.num_frames, stage.aspect, limits.scaled(stage.motion)) @ start
    # A mirror would continue an object that the photograph's edge cuts; a repetition ends it with a clean cut.
    wrap = any(item.touches_edge for item in targets) or stage.rng.random() < 0.3
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REFLECT_101
    bend = stage.deformation(stage.config.max_deform / 2)
    return Backdrop(image, tuple(masks), path, bend, (x0, y0, x0 + w, y0 + h), border)
