"""Paths of single objects: drifting, leaving, returning, entering, jumping, or crossing in front of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.motion import similarity, smooth_curve

_KINDS = ("drift", "still", "leave", "return", "enter", "jump")
_KIND_SHARES = (0.60, 0.07, 0.07, 0.11, 0.06, 0.09)


def side_of(area_share: float, aspect: float) -> float:
    """Typical side, in scene units, of an object that covers area_share of the frame."""
    return float(np.sqrt(area_share * aspect))


def scale_for(cutout: Cutout, area_share: float, aspect: float) -> float:
    """Scale, scene units per cut-out px, at which the cut-out covers area_share of the frame."""
    height, width = cutout.rgba_hwc.shape[:2]
    by_area = side_of(area_share, aspect) / np.sqrt(max(cutout.area_px, 1.0))
    return float(min(by_area, 0.9 / height, 0.9 * aspect / width))


def acting_centers(rng: np.random.Generator, num_frames: int, aspect: float, reach: float) -> NDArray[np.float64]:
    """(T, 2) path by one of several kinds of motion; reach is its usual excursion in scene units."""
    kind = str(rng.choice(_KINDS, p=_KIND_SHARES))
    center_t2 = np.tile(rng.uniform(0.18, 0.82, 2) * (aspect, 1.0), (num_frames, 1))
    if kind != "still":
        center_t2 += np.stack([smooth_curve(rng, num_frames, reach) for _ in range(2)], axis=1)
    t = np.linspace(0.0, 1.0, num_frames)
    if kind in ("leave", "return", "enter"):
        turn = rng.uniform(0, 2 * np.pi)
        away = np.array([np.cos(turn), np.sin(turn)]) * (0.75 * max(aspect, 1.0) + reach)
        start = rng.uniform(0.0, 0.5)
        ramp = np.clip((t - start) / rng.uniform(0.3, 0.6), 0, 1)
        if kind == "return":
            ramp = np.sin(np.pi * np.clip((t - 0.1 * start) / rng.uniform(0.6, 1.0), 0, 1)) ** 0.7
        elif kind == "enter":
            ramp = np.clip(1 - t / rng.uniform(0.3, 0.7), 0, 1)
        center_t2 += ramp[:, None] * away
    elif kind == "jump" and num_frames > 1:
        moment = int(rng.integers(1, num_frames))
        center_t2[moment:] += rng.uniform(0.15, 0.5) * rng.choice([-1.0, 1.0], 2)
        # Jumps test re-finding, not leaving, so the landing place is inside.
        center_t2 = np.clip(center_t2, 0.05, [aspect - 0.05, 0.95])
    return center_t2


def crossing_centers(rng: np.random.Generator, other_t2: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """(T, 2) path that passes over the path other_t2 once, seldom at the start."""
    num_frames = len(other_t2)
    t = np.linspace(0.0, 1.0, num_frames)
    moment = rng.uniform(0.25, 1.0)
    meet = other_t2[round(moment * (num_frames - 1))] + rng.normal(0, 0.3 * side, 2)
    turn = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(turn), np.sin(turn)]) * rng.uniform(0.7, 3.0)
    return meet + (t - moment)[:, None] * velocity


def poses(
    rng: np.random.Generator, cutout: Cutout, center_t2: NDArray[np.float64], scale: float, motion: float
) -> NDArray[np.float64]:
    """(T, 3, 3) cut-out px -> scene: along center_t2 with changing size, rotation, shear and proportions.

    scale is in scene units per cut-out px, motion multiplies every change.
    """
    num_frames = len(center_t2)
    height, width = cutout.rgba_hwc.shape[:2]
    to_origin = np.eye(3)
    to_origin[:2, 2] = -(width - 1) / 2, -(height - 1) / 2
    log_scale = smooth_curve(rng, num_frames, motion * rng.choice([0.15, 0.5]))
    spin = np.deg2rad(rng.choice([6.0, 25.0, 70.0], p=[0.4, 0.45, 0.15]))
    rotation = rng.normal(0, 0.2) + smooth_curve(rng, num_frames, motion * spin)
    shear = rng.normal(0, 0.05) + smooth_curve(rng, num_frames, 0.2 * motion)
    # Turning out of the image plane narrows one direction.
    narrow = rng.normal(0, 0.08) + smooth_curve(rng, num_frames, motion * rng.choice([0.1, 0.4]))
    path = np.empty((num_frames, 3, 3))
    for t in range(num_frames):
        squeeze = np.diag([np.exp(narrow[t]), np.exp(-narrow[t] / 2), 1.0])
        pose = similarity(center_t2[t], scale * float(np.exp(log_scale[t])), rotation[t], shear[t])
        path[t] = pose @ squeeze @ to_origin
    return path
