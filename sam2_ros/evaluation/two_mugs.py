"""Two equal mugs that cross at the same height, before a camera that then looks away and comes back, rendered.

What SAM 2 knows of each is the same, so nothing but memory of where each was tells them apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sam2_ros.demo.tabletop import Tabletop
from sam2_ros.demo.tabletop.props import Pose, Prop, mug, turn_z

_RATE_HZ = 8.0
_HEIGHT_PX, _WIDTH_PX = 240, 320
_STILL_S, _CROSSING_S, _APART_S, _TURNING_S, _AWAY_S, _BACK_S = 0.5, 2.0, 0.5, 0.5, 3.0, 1.5
_TURN_BEGINS_S = _STILL_S + _CROSSING_S + _APART_S
_RETURNS_S = _TURN_BEGINS_S + _TURNING_S + _AWAY_S
_END_S = _RETURNS_S + _TURNING_S + _BACK_S
_TURN_RAD = np.deg2rad(75.0)
_PLACES = 0.16  # m from the middle of the table


class TwoMugs(Tabletop):
    """The tabletop with two mugs in place of its objects; ``render(i)`` as there."""

    def __init__(self, seed: int) -> None:
        self._plan = np.random.default_rng((seed, 20))
        super().__init__(height_px=_HEIGHT_PX, width_px=_WIDTH_PX, rate_hz=_RATE_HZ, seed=seed)

    @property
    def num_frames(self) -> int:
        return round(_END_S * _RATE_HZ)

    @property
    def frame_back(self) -> int:
        """The first frame after the camera is back."""
        return round((_RETURNS_S + _TURNING_S) * _RATE_HZ)

    def props(self, rng: np.random.Generator, px_per_m: float) -> list[Prop]:
        """Two mugs with one print. One passes in front of the other; both stand the same way round."""
        solid = mug(rng, px_per_m)
        yaw_rad, depth_m = self._plan.uniform(-0.6, 0.6), self._plan.uniform(0.06, 0.10)
        middle_xy, reach_m = self._plan.uniform(-0.03, 0.03, 2), self._plan.uniform(0.9, 1.1) * _PLACES
        side = self._plan.choice((-1, 1))

        def place(of: int, time_s: float) -> Pose:
            u = float(np.clip((time_s - _STILL_S) / _CROSSING_S, 0, 1))
            along = side * of * reach_m * (1 - 2 * u * u * (3 - 2 * u))
            across = of * depth_m / 2
            return Pose(turn_z(yaw_rad), np.array((middle_xy[0] + along, middle_xy[1] + across, 0.0)))

        return [
            Prop("left mug", solid, lambda time_s: place(-1, time_s), 0.35, moves=True),
            Prop("right mug", solid, lambda time_s: place(1, time_s), 0.35, moves=True),
        ]

    def camera_pose(self, index: int) -> Pose:
        """The tabletop's, turned to the side while the camera looks away."""
        pose, time_s = super().camera_pose(index), index / self.rate_hz
        going = np.clip((time_s - _TURN_BEGINS_S) / _TURNING_S, 0, 1)
        coming = np.clip((time_s - _RETURNS_S) / _TURNING_S, 0, 1)
        return Pose(turn_z(float(going - coming) * _TURN_RAD) @ pose.rotation, pose.position_m)


def two_mugs(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """(T, H, W, 3) RGB images, (T, 2, H, W) masks of the mugs, and the first frame after the camera is back."""
    scene = TwoMugs(seed)
    frames = [scene.render(index) for index in range(scene.num_frames)]
    ids_thw = np.stack([frame.ids for frame in frames])
    masks_tnhw = ids_thw[:, None] == np.array((1, 2), np.uint8)[:, None, None]
    return np.stack([frame.image_rgb for frame in frames]), masks_tnhw, scene.frame_back
