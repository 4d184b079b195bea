"""The surroundings of the tabletop's objects: the table with its clutter and shadows, the wall, and the light."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from . import textures as prints
from .props import TABLE_MAX_XY_M, TABLE_MIN_XY_M, WALL_Y_M, Prop
from .shapes import Float, to_linear

LIGHT = np.array((-0.52, -0.42, 0.74)) / np.linalg.norm((-0.52, -0.42, 0.74))  # (3,) towards the light, unit length
KEY = np.array((0.98, 0.91, 0.80), np.float32)  # (3,) light of a window: warm
FILL = np.array((0.36, 0.39, 0.44), np.float32)  # (3,) light of the room: cool
_KEY_ON_TABLE = KEY * np.float32(LIGHT[2])
_SHADOW_PX_PER_M = 200.0
_WALL_PX_PER_M = 220.0
_WALL_X_M, _WALL_Z_M = (-1.3, 1.3), (-0.4, 1.0)


class Room:
    """Table and wall. Shadows of still objects are drawn once, those of moving objects in every frame."""

    def __init__(self, rng: np.random.Generator, props: list[Prop], px_per_m: float) -> None:
        self._table_px_per_m = min(px_per_m * 0.85, 1400.0)
        width, height = _table_size(self._table_px_per_m)
        table = prints.wood(rng, height, width)
        prints.clutter_on_table(table, rng, self._table_px_per_m, (TABLE_MIN_XY_M[0], TABLE_MAX_XY_M[1]))
        self._table = to_linear(table)
        wall_size = [int(_WALL_PX_PER_M * (high - low)) for low, high in (_WALL_Z_M, _WALL_X_M)]
        self._wall = to_linear(prints.wall(rng, wall_size[0], wall_size[1]))
        self._moving = [prop for prop in props if prop.moves]
        lit, near = _shadows([prop for prop in props if not prop.moves], 0.0)
        width, height = _table_size(_SHADOW_PX_PER_M)
        from_left = np.linspace(1.18, 0.78, width, dtype=np.float32)[None, :, None]
        from_back = np.linspace(0.86, 1.05, height, dtype=np.float32)[:, None, None]
        self._light_map = (FILL + _KEY_ON_TABLE * lit * from_left * from_back) * near

    def draw(
        self, directions: tuple[Float, Float, Float], camera_m: NDArray[np.float64], time_s: float
    ) -> tuple[Float, Float]:
        """Depth (H, W) in m and linear light (H, W, 3) of the empty room, for ray directions x, y, z, each (H, W)."""
        dx, dy, dz = directions
        px, py, pz = (np.float32(v) for v in camera_m)
        depth = -pz / np.minimum(dz, -1e-4)
        u_m = px + depth * dx - np.float32(TABLE_MIN_XY_M[0])
        v_m = np.float32(TABLE_MAX_XY_M[1]) - (py + depth * dy)
        linear = _sample_px(self._table, u_m, v_m, self._table_px_per_m) * self._light_in_image(u_m, v_m, time_s)
        beyond = (v_m < 0) | (dz > -1e-4)
        last = int(np.flatnonzero(beyond.any(axis=1)).max(initial=-1)) + 1
        if last:
            top = slice(0, last)
            wall_depth = np.float32(WALL_Y_M - camera_m[1]) / dy[top]
            wall_u_m = px + wall_depth * dx[top] - np.float32(_WALL_X_M[0])
            wall_v_m = np.float32(_WALL_Z_M[1]) - (pz + wall_depth * dz[top])
            paint = _sample_px(self._wall, wall_u_m, wall_v_m, _WALL_PX_PER_M) * np.float32(0.74)
            np.copyto(linear[top], paint, where=beyond[top][..., None])
            np.copyto(depth[top], wall_depth, where=beyond[top])
        return depth, linear

    def _light_in_image(self, u_m: Float, v_m: Float, time_s: float) -> Float:
        """(H, W, 3) light on the table where the pixels see it. Shadows are soft: every second pixel is enough."""
        lit, near = _shadows(self._moving, time_s)
        share = _KEY_ON_TABLE / (_KEY_ON_TABLE + FILL)
        light = self._light_map * ((1 - share * (1 - lit)) * near)
        half = _sample_px(light, u_m[::2, ::2], v_m[::2, ::2], _SHADOW_PX_PER_M)
        return np.asarray(cv2.resize(half, (u_m.shape[1], u_m.shape[0]), interpolation=cv2.INTER_LINEAR))


def _table_size(px_per_m: float) -> tuple[int, int]:
    """(width, height) of the table in pixels of a map of it."""
    width, height = (int((high - low) * px_per_m) for low, high in zip(TABLE_MIN_XY_M, TABLE_MAX_XY_M, strict=True))
    return width, height


def _sample_px(texture: Float, u_m: Float, v_m: Float, px_per_m: float) -> Float:
    scale = np.float32(px_per_m)
    return np.asarray(cv2.remap(texture, u_m * scale, v_m * scale, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _shadows(props: list[Prop], time_s: float) -> tuple[Float, Float]:
    """Shares of the window's light and, close to ``props``, of all light that reach the table: two (h, w, 1) maps."""
    width, height = _table_size(_SHADOW_PX_PER_M)
    lit, near = np.ones((height, width), np.float32), np.ones((height, width), np.float32)
    subpixel_bits = 4
    scale = np.array((1, -1)) * _SHADOW_PX_PER_M * 2**subpixel_bits
    for prop in props:
        pose = prop.pose_at(time_s)
        points = prop.solid.outline() @ pose.rotation.T + pose.position_m
        cast = points[:, :2] - points[:, 2:] / LIGHT[2] * LIGHT[:2]
        under = points[points[:, 2] < points[:, 2].min() + 0.02, :2]
        for layer, ground_m, left in ((lit, cast, 0.0), (near, under, 0.35)):
            spots = ((ground_m - (TABLE_MIN_XY_M[0], TABLE_MAX_XY_M[1])) * scale).astype(np.int32)
            cv2.fillConvexPoly(layer, cv2.convexHull(spots), left, cv2.LINE_AA, shift=subpixel_bits)
    lit, near = (np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma)) for layer, sigma in ((lit, 2.6), (near, 2.2)))
    return lit[..., None], near[..., None]
