"""Cut an object out of its photograph and move it over the filled background, in its original light and size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.actors import draw_gap, leaving_centers
from sam2_ros.data.clips.articulation import find_joints, placed, swing
from sam2_ros.data.clips.cutouts import corner_of, cut_out, shrink
from sam2_ros.data.clips.motion import projected, similarity, smooth_curve
from sam2_ros.data.clips.photos import Instance, Photo
from sam2_ros.data.clips.scene import Backdrop, Layer
from sam2_ros.data.clips.stage import Stage

_MARGIN_PX = 4  # beyond the mask: outlines of people are seldom exact
_COARSE_PX = 72  # longer side of the piece in which the colours behind the object are guessed


def without(photo: Photo, instance: Instance) -> Photo:
    """The photograph with the object replaced by what may be behind it; its mask stays.

    Colours flow in from around the hole; the fine texture is that of a place beside it.
    """
    height, width = photo.index_hw.shape
    x0, y0, x1, y1 = instance.box_xyxy
    pad = _MARGIN_PX + max(8, (max(x1 - x0, y1 - y0)) // 4)
    rows, columns = slice(max(0, y0 - pad), min(height, y1 + pad)), slice(max(0, x0 - pad), min(width, x1 + pad))
    hole_hw = (photo.index_hw[rows, columns] == instance.label).astype(np.uint8)
    hole_hw = cv2.dilate(hole_hw, np.ones((2 * _MARGIN_PX + 1, 2 * _MARGIN_PX + 1), np.uint8))
    piece = photo.image_hwc[rows, columns]
    scale = min(1.0, _COARSE_PX / max(hole_hw.shape))
    size = (max(4, round(hole_hw.shape[1] * scale)), max(4, round(hole_hw.shape[0] * scale)))
    coarse = cv2.resize(piece, size, interpolation=cv2.INTER_AREA)
    coarse_hole = (cv2.resize(hole_hw, size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    coarse = cv2.inpaint(coarse, cv2.dilate(coarse_hole, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(coarse, hole_hw.shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    filled += _texture_beside(photo, instance, rows, columns, 1.0 / scale)
    weight_hw1 = cv2.GaussianBlur(hole_hw.astype(np.float32), (0, 0), 1.5)[..., None]
    mixed = piece * (1 - weight_hw1) + np.clip(filled, 0, 255) * weight_hw1
    image = photo.image_hwc.copy()
    image[rows, columns] = np.round(mixed).astype(np.uint8)
    return replace(photo, image_hwc=image)


def _texture_beside(
    photo: Photo, instance: Instance, rows: slice, columns: slice, coarseness_px: float
) -> NDArray[np.int16]:
    """The texture finer than coarseness_px of the neighbouring piece that contains the least of the object."""
    height, width = photo.index_hw.shape
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    best, least = (rows, columns), 1.0
    for down, right in ((0, -1), (0, 1), (1, 0), (-1, 0)):
        y = int(np.clip(rows.start + down * high, 0, height - high))
        x = int(np.clip(columns.start + right * wide, 0, width - wide))
        place = slice(y, y + high), slice(x, x + wide)
        share = float((photo.index_hw[place] == instance.label).mean())
        if share < least:
            best, least = place, share
    piece = photo.image_hwc[best]
    smooth = cv2.GaussianBlur(piece, (0, 0), max(1.0, 0.7 * coarseness_px))
    fine = piece.astype(np.int16) - smooth
    # Edges of other things are not texture.
    return np.clip(fine, -24, 24)


@dataclass(frozen=True)
class Lifted:
    """The object of a photograph, and where it was."""

    photo: Photo  # with the object still in it
    instance: Instance


def lifted_layer(stage: Stage, lifted: Lifted, backdrop: Backdrop, absence: bool) -> Layer:
    """The object as a target in front of its filled photograph: it walks, sways and swings its limbs.

    Args:
        stage: what the scene shares.
        lifted: the object.
        backdrop: the photograph without it, under the camera.
        absence: it leaves or vanishes for a part of the clip.
    """
    rng, num_frames = stage.rng, stage.num_frames
    whole = cut_out(lifted.photo, lifted.instance)
    factor = backdrop.image_hwc.shape[0] / lifted.photo.index_hw.shape[0]
    cutout = shrink(whole, factor)
    height, width = cutout.rgba_hwc.shape[:2]
    per_px = factor * whole.rgba_hwc.shape[0] / height  # backdrop px of a cut-out px
    corner = corner_of(lifted.instance)
    centre = factor * (np.array(corner) + np.array(whole.rgba_hwc.shape[1::-1]) / 2)
    side = per_px * float(np.sqrt(cutout.area_px))
    shift_t2 = _walk(stage, side)
    turn_t = smooth_curve(rng, num_frames, 0.5 * stage.motion)
    size_t = np.exp(smooth_curve(rng, num_frames, 0.4 * stage.motion))
    to_origin = np.eye(3)
    to_origin[:2, 2] = -(width - 1) / 2, -(height - 1) / 2
    pose_t33 = np.stack(
        [
            backdrop.pose_t33[t] @ similarity(centre + shift_t2[t], per_px * size_t[t], turn_t[t], 0.0) @ to_origin
            for t in range(num_frames)
        ]
    )
    path_t2 = projected(pose_t33, np.array([[(width - 1) / 2, (height - 1) / 2]]))[:, 0]
    present_t = None
    if absence:
        gap = draw_gap(rng, num_frames, stage.config.return_prob)
        if rng.random() < 0.5:
            present_t = gap.outside(num_frames) != 0
        else:
            reach = float(np.hypot(height, width)) * float(np.sqrt(abs(np.linalg.det(pose_t33[0, :2, :2]))))
            gone_t2 = leaving_centers(rng, path_t2, gap, stage.aspect, reach)
            move_t33 = np.tile(np.eye(3), (num_frames, 1, 1))
            move_t33[:, :2, 2] = gone_t2 - path_t2
            pose_t33, path_t2 = move_t33 @ pose_t33, gone_t2
    joints = find_joints(cutout, rng) if stage.happens(stage.config.joint_prob) else None
    mesh = None if joints is None else placed(joints, swing(rng, joints, num_frames, np.sqrt(stage.motion)), pose_t33)
    bend = None if mesh else stage.deformation(stage.config.max_deform)
    return Layer(cutout, pose_t33, bend, True, mesh=mesh, present_t=present_t, streak_t2=stage.streaks(path_t2))


def _walk(stage: Stage, side: float) -> NDArray[np.float64]:
    """(T, 2) px of the backdrop: to and fro near its original position, or away from it, mostly horizontally."""
    reach = side * stage.motion * np.array([1.0, 0.35])
    to_and_fro = np.stack([smooth_curve(stage.rng, stage.num_frames, extent) for extent in reach], axis=1)
    if stage.happens(0.5):
        return to_and_fro
    away = reach * stage.rng.uniform(-2.5, 2.5, 2)
    return 0.3 * to_and_fro + np.linspace(0.0, 1.0, stage.num_frames)[:, None] * away
