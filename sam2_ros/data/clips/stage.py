"""What every draw of one synthetic scene shares, and the photograph behind it all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.actors import acting_centers, racing_centers
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.motion import (
    CameraRange,
    Deformation,
    camera_path,
    deformation,
    moving_light,
    parallax,
    smooth_curve,
)
from sam2_ros.data.clips.photos import Instance, Photo, PhotoLibrary
from sam2_ros.data.clips.scene import Backdrop, Shadow

_MAX_OVERFLOW = 0.15  # of the frame's sides; beyond its edge the photograph is repeated
_MAX_CALMER_PATHS = 4
MAX_ENLARGEMENT = 3.0  # a photograph that is enlarged more has no detail


@dataclass(frozen=True)
class Window:
    """The part of a photograph that the camera sees at first."""

    x0_px: float
    y0_px: float
    height_px: float
    width_px: float


@dataclass(frozen=True)
class Stage:
    """The random numbers, the sizes and the amount of motion of one scene."""

    library: PhotoLibrary
    rng: np.random.Generator
    size_px: int
    num_frames: int
    config: ClipConfig
    aspect: float
    motion: float  # factor on all motion of this clip
    shutter: float = 0.0  # share of the time between frames for which the shutter is open
    shadow: Shadow | None = None  # of all objects
    models: ModelLibrary | None = None
    photos: list[Photo] = field(default_factory=list)  # drawn for this scene so far

    @classmethod
    def draw(
        cls,
        library: PhotoLibrary,
        rng: np.random.Generator,
        size_px: int,
        num_frames: int,
        config: ClipConfig,
        models: ModelLibrary | None = None,
    ) -> Stage:
        # Short clips move less in total, so that the steps between frames stay trackable.
        motion = config.motion * np.exp(rng.normal(0, config.motion_spread)) * min(1.0, np.sqrt(num_frames / 8))
        aspect = rng.uniform(1.0, config.max_aspect)
        shutter = rng.uniform(0.15, 0.7) if rng.random() < config.blur_prob and num_frames > 1 else 0.0
        shadow = _draw_shadow(rng) if rng.random() < config.shadow_prob else None
        return cls(library, rng, size_px, num_frames, config, aspect, float(motion), shutter, shadow, models)

    def photo(self, *, with_instances: bool = False) -> Photo:
        """A photograph of the library."""
        self.photos.append(self.library.draw(self.rng, with_instances=with_instances))
        return self.photos[-1]

    def texture_hwc(self) -> NDArray[np.uint8]:
        """A photograph used as texture; mostly one that the scene has already, since decoding costs most."""
        if not self.photos or self.happens(0.3):
            return self.photo().image_hwc
        return self.photos[int(self.rng.integers(len(self.photos)))].image_hwc

    def streaks(self, center_t2: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(T, 2) how far an object on this path moves while the shutter is open; None without motion blur."""
        return self.shutter * np.gradient(center_t2, axis=0) if self.shutter else None

    def camera(self, shift: float) -> CameraRange:
        """How far the camera moves in this clip; shift in scene units for a motion of 1."""
        limits = replace(CameraRange(), shift=shift).scaled(self.motion)
        if self.happens(self.config.zoom_prob):
            limits = replace(limits, log_scale=1.6 * self.motion)
        if self.happens(self.config.shake_prob):
            limits = replace(limits, shake=0.08 * self.motion)
        return limits

    def light(self) -> NDArray[np.float32] | None:
        return moving_light(self.rng, self.num_frames) if self.happens(self.config.light_prob) else None

    def happens(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def centers(self, side: float) -> NDArray[np.float64]:
        """(T, 2) path of an object of that side."""
        if self.happens(self.config.race_prob):
            return racing_centers(self.rng, self.num_frames, self.aspect)
        reach = self.motion * self.rng.uniform(0.3, 1.1) * max(side, 0.12)
        return acting_centers(self.rng, self.num_frames, self.aspect, reach)

    def deformation(self, strength: float) -> Deformation | None:
        if not self.happens(self.config.deform_prob):
            return None
        return deformation(self.rng, self.num_frames, strength * self.rng.uniform(0.25, 1.0))

    def gain(self) -> NDArray[np.float64] | None:
        """Brightness of an object that passes through light and shade."""
        return np.exp(smooth_curve(self.rng, self.num_frames, 0.35)) if self.happens(0.3) else None

    def target_share(self) -> float:
        low, high = np.log(self.config.min_target_share), np.log(self.config.max_target_share)
        return float(np.exp(self.rng.uniform(low, high)))


def _draw_shadow(rng: np.random.Generator) -> Shadow:
    darkness, softness = rng.uniform(0.25, 0.75), rng.uniform(0.004, 0.04)
    if rng.random() < 0.5:  # on the ground
        return Shadow(rng.uniform(0.1, 0.5), rng.uniform(-1.2, 1.2), (0.0, 0.0), darkness, softness)
    return Shadow(1.0, 0.0, (rng.uniform(-0.25, 0.25), rng.uniform(-0.1, 0.25)), darkness, softness)


def window_around(photo: Photo, subject: Instance, stage: Stage) -> Window:
    """A window in which the subject has the size of a target, with the subject somewhere inside."""
    height, width = photo.index_hw.shape
    x0, y0, x1, y1 = subject.box_xyxy
    wanted = np.sqrt(subject.area_px / (stage.target_share() * stage.aspect))
    wanted = max(wanted, 1.1 * (y1 - y0), 1.1 * (x1 - x0) / stage.aspect, stage.size_px / MAX_ENLARGEMENT)
    window_h = float(min(wanted, height, width / stage.aspect))
    window_w = window_h * stage.aspect
    slack = np.maximum(0.0, [window_w - (x1 - x0), window_h - (y1 - y0)])
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + stage.rng.uniform(-0.5, 0.5, 2) * slack
    corner = np.clip(middle - (window_w / 2, window_h / 2), 0, [width - window_w, height - window_h])
    return Window(float(corner[0]), float(corner[1]), window_h, window_w)


def random_window(photo: Photo, stage: Stage) -> Window:
    height, width = photo.index_hw.shape
    window_h = min(height, width / stage.aspect) * stage.rng.uniform(0.55, 1.0)
    window_w = window_h * stage.aspect
    x0, y0 = stage.rng.uniform(0, 1, 2) * (width - window_w, height - window_h)
    return Window(float(x0), float(y0), float(window_h), float(window_w))


def others_in(photo: Photo, window: Window, subject: Instance | None, rng: np.random.Generator) -> list[Instance]:
    """Other objects that the window shows large enough, in random order."""
    found = []
    for item in photo.instances:
        x0, y0, x1, y1 = item.box_xyxy
        x, y = (x0 + x1) / 2 - window.x0_px, (y0 + y1) / 2 - window.y0_px
        inside = 0 < x < window.width_px and 0 < y < window.height_px
        if item is not subject and inside and item.area_px > 0.006 * window.width_px * window.height_px:
            found.append(item)
    return [found[i] for i in rng.permutation(len(found))]


def moving_backdrop(
    photo: Photo, window: Window, targets: list[Instance], limits: CameraRange, stage: Stage
) -> Backdrop:
    """The photograph under a camera path that starts at the window, mirrored at random.

    The camera moves less than ``limits`` allows where it would see far beyond the photograph.
    """
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
    path = camera_path(stage.rng, stage.num_frames, stage.aspect, limits) @ start
    for _ in range(_MAX_CALMER_PATHS):
        if _overflow(path, image.shape[0], image.shape[1], stage.aspect) <= _MAX_OVERFLOW:
            break
        limits = limits.scaled(0.6)
        path = camera_path(stage.rng, stage.num_frames, stage.aspect, limits) @ start
    # Mirroring would continue an object that the photograph's edge cuts; repeating ends it with a straight edge.
    wrap = any(item.touches_edge for item in targets) or stage.rng.random() < 0.3
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REFLECT_101
    bend = stage.deformation(stage.config.max_deform / 2)
    if stage.num_frames > 1 and stage.happens(stage.config.parallax_prob):
        depth = parallax(stage.rng, stage.num_frames, 0.25 * np.sqrt(stage.motion))
        bend = depth if bend is None else bend.with_more(depth)
    return Backdrop(image, tuple(masks), path, bend, (x0, y0, x0 + w, y0 + h), border)


def _overflow(path_t33: NDArray[np.float64], height: int, width: int, aspect: float) -> float:
    """How far a frame's corner gets beyond the photograph, as a share of the first frame's longer side there."""
    corners_43 = np.array([[x, y, 1.0] for x in (0.0, aspect) for y in (0.0, 1.0)])
    seen_t43 = corners_43 @ np.linalg.inv(path_t33).transpose(0, 2, 1)
    seen_t42 = seen_t43[..., :2] / np.maximum(seen_t43[..., 2:], 1e-6)
    beyond = np.maximum(-seen_t42, seen_t42 - (width, height)).max()
    return float(beyond / (seen_t42[0].max(axis=0) - seen_t42[0].min(axis=0)).max())
