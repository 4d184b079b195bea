"""Smooth random motion: curves over time, poses, camera paths and deformation fields.

Coordinates: the *scene* is x in [0, aspect], y in [0, 1] (y down) with square units. The *frame* is the scene
squeezed into size_px x size_px pixels, as a wide camera image is when a model takes a square input.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

_FIELD_TABLE_SIZE = 24  # control points are upsampled to this once per frame; finer changes nothing visible


@dataclass(frozen=True)
class CameraRange:
    """Largest excursions of a camera path."""

    shift: float = 0.25  # scene units
    log_scale: float = 0.34  # exp(0.34) = 1.4
    rotation_rad: float = 0.35
    shear: float = 0.12
    perspective: float = 0.12  # per scene unit
    shake: float = 0.016  # scene units between frames, of a hand that holds the camera

    def scaled(self, factor: float) -> CameraRange:
        """The same proportions, factor times as far."""
        return CameraRange(**{field.name: factor * getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Deformation:
    """A displacement field on the unit square of its carrier, changing over time."""

    control_tgg2: NDArray[np.float32]  # (T, G, G, 2) shares of the carrier's sides, (x, y)

    def with_more(self, other: Deformation) -> Deformation:
        """Both at once, on the same carrier."""
        size = (self.control_tgg2.shape[2], self.control_tgg2.shape[1])
        more = [cv2.resize(field, size, interpolation=cv2.INTER_CUBIC) for field in other.control_tgg2]
        return Deformation(self.control_tgg2 + np.stack(more).astype(np.float32))

    def table(self, t: int) -> NDArray[np.float32]:
        """Displacements of frame t upsampled smoothly to (K, K, 2) float32."""
        size = (_FIELD_TABLE_SIZE, _FIELD_TABLE_SIZE)
        return cv2.resize(self.control_tgg2[t], size, interpolation=cv2.INTER_CUBIC)


def smooth_curve(rng: np.random.Generator, num_frames: int, peak: float) -> NDArray[np.float64]:
    """(T,) smooth curve that starts at 0 and whose largest excursion is a random share of peak."""
    t = np.linspace(0.0, 1.0, num_frames)
    curve = rng.normal(0.0, 1.0) * t
    fastest = 0.3 + 0.08 * num_frames  # cycles per clip: never faster than a sampled path can show
    for _ in range(2):
        curve = curve + rng.normal(0.0, 0.45) * np.sin(2 * np.pi * (rng.uniform(0.15, fastest) * t + rng.uniform()))
    curve = curve - curve[0]
    largest = float(np.abs(curve).max())
    return curve * (peak * rng.uniform(0.25, 1.0) / largest) if largest > 1e-6 else curve


def similarity(center_xy: NDArray[np.float64], scale: float, rotation_rad: float, shear: float) -> NDArray[np.float64]:
    """(3, 3) map that scales, shears and rotates about the origin and then moves it to center_xy."""
    cos, sin = np.cos(rotation_rad), np.sin(rotation_rad)
    linear = scale * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = center_xy
    return matrix


def projected(pose_t33: NDArray[np.float64], points_tv2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, V, 2) points under each frame's map; one row of points serves all frames."""
    points_tv2 = np.broadcast_to(points_tv2, (len(pose_t33), *points_tv2.shape[-2:]))
    seen = points_tv2 @ pose_t33[:, :, :2].transpose(0, 2, 1) + pose_t33[:, None, :, 2]
    return seen[..., :2] / np.maximum(seen[..., 2:], 1e-6)


def camera_path(rng: np.random.Generator, num_frames: int, aspect: float, limits: CameraRange) -> NDArray[np.float64]:
    """(T, 3, 3) scene -> scene maps of a moving camera about the middle of the scene; the first is the identity.

    Half of the paths are shaky, as of a hand-held camera.
    """
    middle = np.array([aspect / 2, 0.5])
    shift_t2 = np.stack([smooth_curve(rng, num_frames, limits.shift) for _ in range(2)], axis=1)
    shift_t2[:, 0] *= np.sqrt(aspect)
    if rng.random() < 0.5:
        shift_t2[1:] += rng.normal(0.0, rng.uniform(0.0, limits.shake), (num_frames - 1, 2))
    log_scale = smooth_curve(rng, num_frames, limits.log_scale)
    rotation = smooth_curve(rng, num_frames, limits.rotation_rad * rng.random())
    shear = smooth_curve(rng, num_frames, limits.shear)
    tilt_t2 = np.stack([smooth_curve(rng, num_frames, limits.perspective) for _ in range(2)], axis=1)
    to_origin = np.eye(3)
    to_origin[:2, 2] = -middle
    path = np.empty((num_frames, 3, 3))
    for t in range(num_frames):
        tilt = np.eye(3)
        tilt[2, :2] = tilt_t2[t]
        pose = similarity(middle + shift_t2[t], float(np.exp(log_scale[t])), rotation[t], shear[t])
        path[t] = pose @ tilt @ to_origin
    return path


def deformation(rng: np.random.Generator, num_frames: int, strength: float) -> Deformation:
    """A random field; strength is the largest displacement as a share of the carrier's sides."""
    grid = int(rng.integers(3, 7))
    control = np.zeros((num_frames, grid, grid, 2))
    t = np.linspace(0.0, 1.0, num_frames)
    for _ in range(2):
        wave = np.sin(2 * np.pi * (rng.uniform(0.2, 0.4 + 0.08 * num_frames) * t + rng.uniform()))
        control += wave[:, None, None, None] * rng.normal(0.0, 1.0, (1, grid, grid, 2))
    # A finer grid bends more sharply for the same displacement, so it gets less of it: no folds.
    largest = float(np.abs(control).max())
    control *= strength * min(1.0, 4.0 / grid) / max(largest, 1e-6)
    return Deformation(control.astype(np.float32))


def parallax(rng: np.random.Generator, num_frames: int, strength: float) -> Deformation:
    """What a camera that moves sideways does to a photograph with depth: near parts move farther than far ones.

    Mostly a ground that comes nearer towards the lower edge, with hills; strength is the largest shift, a share of the
    carrier's sides.
    """
    grid = 6
    near_gg = np.tile(np.linspace(0.0, 1.0, grid)[:, None], (1, grid)) ** rng.uniform(0.7, 2.0)
    near_gg = near_gg + cv2.resize(rng.normal(0, 0.25, (3, 3)), (grid, grid), interpolation=cv2.INTER_CUBIC)
    near_gg = near_gg - near_gg.mean()
    shift_t2 = np.stack(
        [smooth_curve(rng, num_frames, strength), smooth_curve(rng, num_frames, 0.4 * strength)], axis=1
    )
    return Deformation((shift_t2[:, None, None] * near_gg[..., None]).astype(np.float32))


def moving_light(rng: np.random.Generator, num_frames: int) -> NDArray[np.float32]:
    """(T, G, G) brightness over the frame: a lamp, a window or the shade of leaves that wander, 1 on average."""
    grid = int(rng.integers(3, 9))
    fields = rng.normal(0, 1, (3, grid, grid))
    mix_3t = np.stack([np.ones(num_frames), smooth_curve(rng, num_frames, 1.5), smooth_curve(rng, num_frames, 1.5)])
    light_tgg = np.einsum("kt,kyx->tyx", mix_3t, fields)
    if rng.random() < 0.4:  # sharper: the shade of something, not a gradient
        light_tgg = np.tanh(3 * light_tgg)
    light_tgg = light_tgg + 2 * smooth_curve(rng, num_frames, 1.0)[:, None, None]
    return np.exp(rng.uniform(0.05, 0.3) * np.clip(light_tgg, -2.5, 2.5)).astype(np.float32)


def scene_to_frame(size_px: int, aspect: float) -> NDArray[np.float64]:
    """(3, 3) map from the scene to frame pixels, pixel centres at integers."""
    return np.array([[size_px / aspect, 0.0, -0.5], [0.0, size_px, -0.5], [0.0, 0.0, 1.0]])
