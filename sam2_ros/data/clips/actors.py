"""Paths of single objects: drifting, leaving, returning, entering, jumping, racing, crossing or swapping places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.motion import similarity, smooth_curve

_KINDS = ("drift", "still", "leave", "return", "enter", "jump")
_KIND_SHARES = (0.60, 0.07, 0.07, 0.11, 0.06, 0.09)
_CARD_DISTANCE = 2.5  # of the camera from a card that turns, in the card's longer sides


@dataclass(frozen=True)
class Gap:
    """Frames start..end - 1, in which an object is not visible; if it ends with the clip, the object stays away."""

    start: int
    end: int

    def outside(self, num_frames: int) -> NDArray[np.int64]:
        """(T,) how many frames lie between each frame and the gap; 0 inside, negative before it."""
        t = np.arange(num_frames)
        return np.where(t < self.start, t - self.start, np.where(t < self.end, 0, t - self.end + 1))


def draw_gap(rng: np.random.Generator, num_frames: int, return_prob: float) -> Gap:
    """A gap that does not include frame 0; num_frames is 2 or more."""
    # Late gaps are more frequent: an early one without return would leave few frames of a short clip.
    start = 1 + int(rng.uniform(0.0, 1.0) ** 0.6 * (num_frames - 1))
    if rng.random() >= return_prob or start == num_frames - 1:
        return Gap(start, num_frames)
    return Gap(start, int(rng.integers(start + 1, num_frames)))


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


def racing_centers(rng: np.random.Generator, num_frames: int, aspect: float) -> NDArray[np.float64]:
    """(T, 2) path across the frame from one place inside it to another far away, perhaps back, perhaps bent."""
    start, end = rng.uniform(0.1, 0.9, 2), rng.uniform(0.1, 0.9, 2)
    axis = int(rng.integers(2))
    start[axis], end[axis] = rng.permutation([rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95)])
    way_t = np.linspace(0.0, rng.choice([1.0, 2.0]), num_frames)
    way_t = np.where(way_t > 1, 2 - way_t, way_t)
    bend_t2 = np.sin(np.pi * way_t)[:, None] * rng.normal(0, 0.2, 2)
    return (start + way_t[:, None] * (end - start) + bend_t2) * (aspect, 1.0)


def crossing_centers(rng: np.random.Generator, other_t2: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """(T, 2) path that crosses the path other_t2 once, seldom at the start."""
    num_frames = len(other_t2)
    t = np.linspace(0.0, 1.0, num_frames)
    moment = rng.uniform(0.25, 1.0)
    meet = other_t2[round(moment * (num_frames - 1))] + rng.normal(0, 0.3 * side, 2)
    turn = rng.uniform(0, 2 * np.pi)
    velocity = np.array([np.cos(turn), np.sin(turn)]) * rng.uniform(0.7, 3.0)
    return meet + (t - moment)[:, None] * velocity


@dataclass(frozen=True)
class Swap:
    """Two objects that change places along a flat ellipse, one passing in front of the other."""

    first_t2: NDArray[np.float64]  # (T, 2) path, scene units
    second_t2: NDArray[np.float64]
    first_in_front_t: NDArray[np.bool_]  # (T,)


def swapping_centers(rng: np.random.Generator, num_frames: int, aspect: float, side: float) -> Swap:
    """Paths of two objects with this side length that change places once or more."""
    apart = min(side * rng.uniform(0.55, 1.3), 0.4)
    turn = rng.normal(0, 0.4)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    rounds = rng.uniform(0.7, max(1.0, num_frames / 5)) * rng.choice([-1.0, 1.0])
    phase_t = np.pi * rounds * np.linspace(0.0, 1.0, num_frames)
    if rng.random() < 0.5:  # they rest between the swaps
        phase_t = phase_t - 0.5 * np.sin(2 * phase_t)
    middle = rng.uniform(0.3, 0.7, 2) * (aspect, 1.0)
    middle_t2 = middle + np.stack([smooth_curve(rng, num_frames, 0.4 * side) for _ in range(2)], axis=1)
    flatness = rng.uniform(0.05, 0.5)
    arm_t2 = apart * (np.cos(phase_t)[:, None] * along + flatness * np.sin(phase_t)[:, None] * across)
    # Lower in the picture is nearer to the camera.
    return Swap(middle_t2 + arm_t2, middle_t2 - arm_t2, arm_t2[:, 1] > 0)


def leaving_centers(
    rng: np.random.Generator, center_t2: NDArray[np.float64], gap: Gap, aspect: float, side: float
) -> NDArray[np.float64]:
    """(T, 2) the path, moved beyond the frame's edge in the gap's frames; ``side`` is the object's side length."""
    outside_t = gap.outside(len(center_t2))
    ramp_t = np.clip(1 - np.abs(outside_t) / rng.integers(1, 4), 0, 1)
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    edge = ((aspect, 1.0)[axis] + 0.75 * side) if far else -0.75 * side
    moved_t2 = center_t2.copy()
    moved_t2[:, axis] += ramp_t * (edge - center_t2[:, axis])
    return moved_t2


def covering_offsets(rng: np.random.Generator, num_frames: int, gap: Gap, clear: float) -> NDArray[np.float64]:
    """(T, 2) offset from a hidden object to its occluder: zero in the gap, growing by about ``clear`` a frame."""
    outside_t = gap.outside(num_frames)
    turns = rng.uniform(0, 2 * np.pi, 2)
    if rng.random() < 0.5:
        turns[1] = turns[0] + np.pi  # the occluder moves on in a straight line
    speed = clear * rng.uniform(0.5, 1.2)
    before, after = (np.array([np.cos(turn), np.sin(turn)]) for turn in turns)
    way_t = np.minimum(np.abs(outside_t), 6)[:, None] * speed
    return np.where(outside_t[:, None] < 0, before, after) * way_t


def size_curve(rng: np.random.Generator, num_frames: int, motion: float, growth_prob: float) -> NDArray[np.float64]:
    """(T,) factor on an object's size, 1 at first; now and then up to three times as large or small."""
    if rng.random() < growth_prob:
        return np.exp(smooth_curve(rng, num_frames, np.log(3.0)))
    return np.exp(smooth_curve(rng, num_frames, motion * rng.choice([0.15, 0.5])))


def poses(
    rng: np.random.Generator,
    shape_hw: tuple[int, int],
    center_t2: NDArray[np.float64],
    scale_t: NDArray[np.float64],
    motion: float,
) -> NDArray[np.float64]:
    """(T, 3, 3) cut-out px -> scene: along center_t2 with changing size, rotation, shear and proportions.

    scale_t is in scene units per cut-out px, motion multiplies every other change.
    """
    num_frames = len(center_t2)
    spin = np.deg2rad(rng.choice([6.0, 25.0, 70.0], p=[0.4, 0.45, 0.15]))
    rotation = rng.normal(0, 0.2) + smooth_curve(rng, num_frames, motion * spin)
    shear = rng.normal(0, 0.05) + smooth_curve(rng, num_frames, 0.2 * motion)
    # Turning out of the image plane narrows one direction.
    narrow = rng.normal(0, 0.08) + smooth_curve(rng, num_frames, motion * rng.choice([0.1, 0.4]))
    path = np.empty((num_frames, 3, 3))
    for t in range(num_frames):
        squeeze = np.diag([np.exp(narrow[t]), np.exp(-narrow[t] / 2), 1.0])
        path[t] = similarity(center_t2[t], float(scale_t[t]), rotation[t], shear[t]) @ squeeze
    return path @ _to_origin(shape_hw)


def card_poses(
    rng: np.random.Generator,
    shape_hw: tuple[int, int],
    center_t2: NDArray[np.float64],
    scale_t: NDArray[np.float64],
    motion: float,
) -> NDArray[np.float64]:
    """(T, 3, 3) cut-out px -> scene of a card that turns about its upright and its level axis, in perspective."""
    num_frames = len(center_t2)
    rotation = rng.normal(0, 0.15) + smooth_curve(rng, num_frames, motion * 0.4)
    yaw = np.clip(rng.normal(0, 0.2) + smooth_curve(rng, num_frames, 2.0 * motion), -1.25, 1.25)
    pitch = np.clip(rng.normal(0, 0.15) + smooth_curve(rng, num_frames, 0.8 * motion), -0.9, 0.9)
    distance_px = _CARD_DISTANCE * max(shape_hw)
    path = np.empty((num_frames, 3, 3))
    for t in range(num_frames):
        (cy, cp), (sy, sp) = np.cos([yaw[t], pitch[t]]), np.sin([yaw[t], pitch[t]])
        turned = np.array([[cy, 0.0, 0.0], [sy * sp, cp, 0.0], [sy * cp / distance_px, -sp / distance_px, 1.0]])
        path[t] = similarity(center_t2[t], float(scale_t[t]), rotation[t], 0.0) @ turned
    return path @ _to_origin(shape_hw)


def _to_origin(shape_hw: tuple[int, int]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, 2] = -(shape_hw[1] - 1) / 2, -(shape_hw[0] - 1) / 2
    return matrix
