"""What stands on the rendered table, where, and how it moves.

World frame in metres: x to the right, y away from the camera, z up, the table at z = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import textures as prints
from .mug import Mug
from .shapes import Ball, Box, Solid, Tin, to_linear

TABLE_MIN_XY_M = (-0.85, -0.75)
TABLE_MAX_XY_M = (0.85, 0.52)
WALL_Y_M = 1.15
BALL_RADIUS_M = 0.072
_BALL_START_S, _BALL_TRAVEL_S = 1.2, 6.0
_BALL_FROM_XY_M, _BALL_TO_XY_M = (-0.245, 0.205), (0.185, 0.235)


@dataclass(frozen=True)
class Pose:
    """Where a solid is: ``world = rotation @ local + position``."""

    rotation: NDArray[np.float64]  # (3, 3)
    position_m: NDArray[np.float64]  # (3,)


@dataclass(frozen=True)
class Prop:
    """A solid and its place at a time; ``name`` is empty for clutter, which has instance id 0."""

    name: str
    solid: Solid
    pose_at: Callable[[float], Pose]
    gloss: float = 0.05  # strength of its highlight
    moves: bool = False


def turn_z(yaw_rad: float) -> NDArray[np.float64]:
    """(3, 3) rotation about z."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _standing(x_m: float, y_m: float, yaw_deg: float = 0.0, z_m: float = 0.0) -> Callable[[float], Pose]:
    pose = Pose(turn_z(np.deg2rad(yaw_deg)), np.array((x_m, y_m, z_m)))
    return lambda _time_s: pose


def _rolling(time_s: float) -> Pose:
    """The ball: at rest, then from the left behind the packet to the right, speeding up and slowing down smoothly."""
    u = float(np.clip((time_s - _BALL_START_S) / _BALL_TRAVEL_S, 0, 1))
    u = u * u * (3 - 2 * u)
    start, end = np.array(_BALL_FROM_XY_M), np.array(_BALL_TO_XY_M)
    x, y = start + (end - start) * u
    angle = float(np.linalg.norm(end - start)) * u / BALL_RADIUS_M
    c, s = np.cos(angle), np.sin(angle)
    roll = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    tilt = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    return Pose(roll @ tilt, np.array((x, y, BALL_RADIUS_M)))


def _printed_box(size_m: tuple[float, float, float], faces: dict[str, prints.Image]) -> Box:
    return Box(size_m, {name: to_linear(face) for name, face in faces.items()})


def _plain_box(rng: np.random.Generator, size_m: tuple[float, float, float], color: prints.Rgb) -> Box:
    face = prints.painted_wood(rng, 64, color)
    return _printed_box(size_m, dict.fromkeys(("front", "back", "side", "top"), face))


def mug(rng: np.random.Generator, px_per_m: float) -> Mug:
    """A mug with a print of its own; ``px_per_m``: how fine the print is."""
    glaze, drink = np.array((0.70, 0.66, 0.56), np.float32), np.array((0.035, 0.018, 0.010), np.float32)
    height_px, around_px = (max(int(length_m * px_per_m), 16) for length_m in (0.108, 0.314))
    return Mug(0.050, 0.108, to_linear(prints.mug_glaze(rng, height_px, around_px)), glaze, drink)


def _named(rng: np.random.Generator, px_per_m: float) -> list[Prop]:
    def px(length_m: float) -> int:
        return max(int(length_m * px_per_m), 16)

    packet, notebook = (0.155, 0.062, 0.205), (0.21, 0.15, 0.032)
    oats = _printed_box(packet, prints.oats_box(rng, px(packet[2]), px(packet[0]), px(packet[1])))
    book = _printed_box(notebook, prints.book(rng, px(notebook[0]), px(notebook[1]), px(notebook[2])))
    tin = Tin(
        0.049, 0.150, to_linear(prints.can_label(rng, px(0.150), px(0.308))), np.array((0.42, 0.43, 0.44), np.float32)
    )
    drinking = mug(rng, px_per_m)
    ball = Ball(BALL_RADIUS_M, to_linear(prints.rubber_ball(rng, px(0.19), px(0.39))))
    return [
        Prop("packet", oats, _standing(-0.015, 0.07, -11), 0.06),
        Prop("book", book, _standing(-0.215, -0.075, 24), 0.05),
        Prop("tin", tin, _standing(0.300, 0.105, -14), 0.30),
        Prop("mug", drinking, _standing(0.175, -0.105, -28), 0.35),
        Prop("ball", ball, _rolling, 0.18, moves=True),
    ]


def _clutter(rng: np.random.Generator) -> list[Prop]:
    def block(size_m: tuple[float, float, float], color: prints.Rgb, place: Callable[[float], Pose]) -> Prop:
        return Prop("", _plain_box(rng, size_m, color), place)

    return [
        block((0.026, 0.026, 0.026), (196, 154, 62), _standing(0.055, -0.185, 30)),
        block((0.026, 0.026, 0.026), (84, 128, 92), _standing(0.315, -0.135, 62)),
        block((0.150, 0.007, 0.007), (186, 120, 44), _standing(0.02, -0.235, 17)),
        block((0.045, 0.020, 0.012), (206, 206, 212), _standing(-0.345, 0.075, -35)),
        block((0.22, 0.15, 0.030), (116, 56, 52), _standing(-0.36, 0.42, 6)),
        block((0.20, 0.14, 0.026), (58, 74, 104), _standing(-0.35, 0.42, -5, 0.030)),
        block((0.19, 0.14, 0.034), (150, 138, 112), _standing(-0.37, 0.42, 11, 0.056)),
        block((0.24, 0.11, 0.12), (158, 124, 88), _standing(0.44, 0.43, -7)),
    ]


def build_props(rng: np.random.Generator, px_per_m: float) -> list[Prop]:
    """The named objects in order of their instance ids 1.., then the clutter. ``px_per_m``: how fine the prints are."""
    return _named(rng, px_per_m) + _clutter(rng)
