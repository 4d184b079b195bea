"""What can be put into a scene: cut-outs that bend or turn like cards, bodies with limbs, and solids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.actors import card_poses, poses, size_curve
from sam2_ros.data.clips.articulation import JointedBody, find_joints, placed, swing
from sam2_ros.data.clips.cutouts import (
    Cutout,
    cut_out,
    jitter,
    pick_instance,
    procedural_cutout,
    random_texture,
    shrink,
)
from sam2_ros.data.clips.models import repainted
from sam2_ros.data.clips.photos import Photo
from sam2_ros.data.clips.scene import Layer
from sam2_ros.data.clips.solids import Solid, Turning, moving_solid, random_solid
from sam2_ros.data.clips.stage import MAX_ENLARGEMENT, Stage

_LARGEST_GROWTH = 1.5  # of a cut-out over a clip; smaller sources are resized before the clip
_SOLID_AREA = 1.1  # of a solid's picture, in squares of its radius; typical, as solids differ


class Body(Protocol):
    """An object with a size, before it has a path."""

    @property
    def side(self) -> float:
        """Side of the square as large as the object, in scene units."""

    @property
    def reach(self) -> float:
        """Scene units from one end of the object to the other, however it turns."""

    def grown(self, factor: float) -> Body:
        """The same object at another size."""

    def along(self, stage: Stage, center_t2: NDArray[np.float64]) -> Layer:
        """The object on a (T, 2) path in scene units, with random motion of its own."""


@dataclass(frozen=True)
class FlatBody:
    """A cut-out."""

    cutout: Cutout
    scale: float  # scene units per cut-out px
    joints: JointedBody | None = None

    @property
    def side(self) -> float:
        return self.scale * float(np.sqrt(self.cutout.area_px))

    @property
    def reach(self) -> float:
        return self.scale * float(np.hypot(*self.cutout.rgba_hwc.shape[:2]))

    def grown(self, factor: float) -> FlatBody:
        return replace(self, scale=self.scale * factor)

    def along(self, stage: Stage, center_t2: NDArray[np.float64]) -> Layer:
        rng, shape_hw = stage.rng, (self.cutout.rgba_hwc.shape[0], self.cutout.rgba_hwc.shape[1])
        scale_t = self.scale * size_curve(rng, stage.num_frames, stage.motion, stage.config.growth_prob)
        if self.joints is not None:
            pose_t33 = poses(rng, shape_hw, center_t2, scale_t, 0.7 * stage.motion)
            strength = rng.uniform(0.5, 2.2) * np.sqrt(stage.motion)
            mesh = placed(self.joints, swing(rng, self.joints, stage.num_frames, strength), pose_t33)
            return _lit(stage, center_t2, Layer(self.cutout, pose_t33, mesh=mesh, gain_t=stage.gain()))
        make = card_poses if stage.happens(stage.config.tilt_prob) else poses
        pose_t33 = make(rng, shape_hw, center_t2, scale_t, stage.motion)
        bend = stage.deformation(stage.config.max_deform)
        return _lit(stage, center_t2, Layer(self.cutout, pose_t33, bend, gain_t=stage.gain()))


@dataclass(frozen=True)
class SolidBody:
    """A solid that turns."""

    solid: Solid
    radius: float  # scene units

    @property
    def side(self) -> float:
        return self.radius * float(np.sqrt(_SOLID_AREA))

    @property
    def reach(self) -> float:
        return 2 * self.radius

    def grown(self, factor: float) -> SolidBody:
        return replace(self, radius=self.radius * factor)

    def along(self, stage: Stage, center_t2: NDArray[np.float64]) -> Layer:
        rng = stage.rng
        radius_t = self.radius * size_curve(rng, stage.num_frames, stage.motion, stage.config.growth_prob)
        turning = Turning(4.0 * stage.motion, 0.8 * stage.motion, 1.6 * np.sqrt(stage.motion))
        mesh = moving_solid(rng, self.solid, center_t2, radius_t, turning)
        pose_t33 = np.tile(np.eye(3), (stage.num_frames, 1, 1))
        return _lit(stage, center_t2, Layer(self.solid.texture, pose_t33, mesh=mesh))


def draw_body(stage: Stage, backdrop: Photo, share: float) -> Body:
    """An object that covers about that share of the frame's area.

    Args:
        stage: what the scene shares.
        backdrop: the photograph behind it, which may lend an object.
        share: of the frame; small sources are not enlarged to it beyond what their pixels allow.
    """
    rng, config = stage.rng, stage.config
    if stage.happens(config.procedural_prob):
        return _flat(stage, procedural_cutout(rng, stage.texture_hwc()), share)
    if stage.happens(config.solid_prob):
        radius = float(np.sqrt(share * stage.aspect / _SOLID_AREA))
        if stage.models is not None and stage.happens(config.model_prob):
            solid = repainted(stage.models.draw(rng), rng, stage.texture_hwc())
        else:
            solid = random_solid(rng, stage.texture_hwc())
        return SolidBody(solid, min(radius, 0.6))
    if backdrop.instances and stage.happens(config.own_photo_prob):
        return photo_body(stage, backdrop, share)
    # A photograph that the scene has already: its other objects are often of the same kind, and decoding a new one is
    # the most expensive part.
    known = [photo for photo in stage.photos if photo.instances and photo is not backdrop]
    if known and stage.happens(config.same_photo_prob):
        return photo_body(stage, known[int(rng.integers(len(known)))], share)
    return photo_body(stage, stage.photo(with_instances=True), share)


def photo_body(stage: Stage, photo: Photo, share: float) -> FlatBody:
    """One of the photograph's objects, with limbs where it has some."""
    body = _flat(stage, cut_out(photo, pick_instance(photo, stage.rng)), share)
    if not stage.happens(stage.config.joint_prob) or stage.num_frames == 1:
        return body
    return replace(body, joints=find_joints(body.cutout, stage.rng))


def cover_body(stage: Stage, height: float, width: float) -> FlatBody:
    """An occluder of this size in scene units and without holes: a board, a door, a cloth, a blob."""
    rng = stage.rng
    photo_hwc = stage.texture_hwc()
    long = max(height, width)
    side_px = max(16, round(min(256.0, long * stage.size_px)))
    shape = (max(8, round(side_px * height / long)), max(8, round(side_px * width / long)))
    texture = cv2.resize(random_texture(rng, photo_hwc, side_px), shape[::-1], interpolation=cv2.INTER_AREA)
    alpha = np.zeros(shape, np.uint8)
    if rng.random() < 0.35:  # an ellipse around the rectangle that has to be covered would be far larger
        cv2.ellipse(alpha, (shape[1] // 2, shape[0] // 2), (shape[1] // 2 - 2, shape[0] // 2 - 2), 0, 0, 360, 255, -1)
    else:
        alpha[2:-2, 2:-2] = 255
    return FlatBody(jitter(Cutout(np.dstack([texture, alpha])), rng), height / shape[0])


def _lit(stage: Stage, center_t2: NDArray[np.float64], layer: Layer) -> Layer:
    """The layer with the shadow and the motion blur that all objects of this clip have."""
    return replace(layer, shadow=stage.shadow, streak_t2=stage.streaks(center_t2))


def _flat(stage: Stage, cutout: Cutout, share: float) -> FlatBody:
    """The cut-out at the resolution that the clip will show, recoloured."""
    height, width = cutout.rgba_hwc.shape[:2]
    scale = np.sqrt(share * stage.aspect / max(cutout.area_px, 1.0))
    scale = min(scale, 0.9 / height, 0.9 * stage.aspect / width, MAX_ENLARGEMENT / stage.size_px)
    small = shrink(cutout, scale * stage.size_px * _LARGEST_GROWTH)
    return FlatBody(jitter(small, stage.rng), float(scale * height / small.rgba_hwc.shape[0]))
