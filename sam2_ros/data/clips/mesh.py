"""A small software renderer: triangle meshes with a z-buffer, giving for each pixel where in the texture it looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.warping import Region, SourceMaps

OUTSIDE = -16.0  # texture px that no texture has, so that sampling with a constant border gives nothing


@dataclass(frozen=True)
class Mesh:
    """Triangles and where their corners lie in the texture."""

    triangles_f3: NDArray[np.int64]  # (F, 3) indices of corners
    uv_v2: NDArray[np.float64]  # (V, 2) texture px of each corner
    closed: bool = False  # a closed surface hides its own back: triangles that turn away are not drawn


@dataclass(frozen=True)
class MovingMesh:
    """A mesh whose corners move in the scene."""

    mesh: Mesh
    points_tv3: NDArray[np.float64]  # (T, V, 3) scene x, scene y, depth (smaller is nearer)
    shade_tv: NDArray[np.float64] | None = None  # (T, V) brightness of the corners, 1 = as the texture


@dataclass(frozen=True)
class Surface:
    """What a rendered mesh shows in a part of the frame."""

    region: Region
    maps: SourceMaps  # texture px, OUTSIDE where no triangle is
    shade_hw: NDArray[np.float32] | None


def render_mesh(moving: MovingMesh, t: int, to_frame_33: NDArray[np.float64], size_px: int) -> Surface | None:
    """Render frame t of a mesh; None if it is out of view.

    Args:
        moving: the mesh and its corners' paths.
        t: frame.
        to_frame_33: scene -> frame px, affine.
        size_px: side of the frame.
    """
    points_v3 = moving.points_tv3[t]
    frame_v2 = points_v3[:, :2] @ to_frame_33[:2, :2].T + to_frame_33[:2, 2]
    low = np.clip(np.floor(frame_v2.min(axis=0)), 0, size_px).astype(int)
    high = np.clip(np.ceil(frame_v2.max(axis=0)) + 1, 0, size_px).astype(int)
    if (high - low < 1).any():
        return None
    region = Region(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    width, height = high - low
    corners_v3 = np.column_stack([frame_v2 - low, points_v3[:, 2]])
    hits = _rasterise(corners_v3[moving.mesh.triangles_f3], moving.mesh.closed, int(width), int(height))
    if hits is None:
        return None
    corners_p3 = moving.mesh.triangles_f3[hits.face_p]
    maps = np.full((2, height * width), OUTSIDE, np.float32)
    for axis in range(2):
        maps[axis, hits.pixel_p] = (moving.mesh.uv_v2[corners_p3, axis] * hits.weight_p3).sum(axis=1)
    shade_hw = None
    if moving.shade_tv is not None:
        shade_hw = np.ones(height * width, np.float32)
        shade_hw[hits.pixel_p] = (moving.shade_tv[t][corners_p3] * hits.weight_p3).sum(axis=1)
        shade_hw = shade_hw.reshape(height, width)
    x_hw, y_hw = maps.reshape(2, height, width)
    return Surface(region, SourceMaps(x_hw, y_hw), shade_hw)


@dataclass(frozen=True)
class _Hits:
    """The pixels that show a triangle, and where in it they look."""

    pixel_p: NDArray[np.int64]  # (P,) y * width + x
    face_p: NDArray[np.int64]  # (P,)
    weight_p3: NDArray[np.float64]  # (P, 3) barycentric


def _rasterise(corners_f33: NDArray[np.float64], closed: bool, width: int, height: int) -> _Hits | None:
    """Cover pixel centres row by row, the nearest triangle wins.

    Args:
        corners_f33: (F, 3, 3) for each triangle's corners x px, y px, depth.
        closed: leave out triangles that are clockwise in the frame.
    """
    x_f3, y_f3, depth_f3 = corners_f33[..., 0], corners_f33[..., 1], corners_f33[..., 2]
    # Twice the signed area; positive is counter-clockwise with y down, which is what faces the camera here.
    area_f = (x_f3[:, 1] - x_f3[:, 0]) * (y_f3[:, 2] - y_f3[:, 0]) - (x_f3[:, 2] - x_f3[:, 0]) * (
        y_f3[:, 1] - y_f3[:, 0]
    )
    faces = np.flatnonzero(area_f > 1e-9 if closed else np.abs(area_f) > 1e-9)
    top_f = np.clip(np.ceil(y_f3[faces].min(axis=1)), 0, height).astype(np.int64)
    bottom_f = np.clip(np.floor(y_f3[faces].max(axis=1)) + 1, 0, height).astype(np.int64)
    place_r, row_r = _expand(top_f, bottom_f - top_f)
    if not len(place_r):
        return None
    # Barycentric weight k is linear in x and y: slope_x * x + slope_y * y + offset.
    slope_x_f3 = (np.roll(y_f3, -1, axis=1) - np.roll(y_f3, -2, axis=1))[faces] / area_f[faces, None]
    slope_y_f3 = (np.roll(x_f3, -2, axis=1) - np.roll(x_f3, -1, axis=1))[faces] / area_f[faces, None]
    offset_f3 = np.array([1.0, 0.0, 0.0]) - slope_x_f3 * x_f3[faces, :1] - slope_y_f3 * y_f3[faces, :1]
    at_row_r3 = slope_y_f3[place_r] * row_r[:, None] + offset_f3[place_r]
    slope_r3 = slope_x_f3[place_r]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing_r3 = -at_row_r3 / slope_r3
    # A hair more than the triangle, so that rounding leaves no crack between neighbours.
    hair = 1e-6
    left_r = np.where(slope_r3 > 0, crossing_r3, -np.inf).max(axis=1) - hair
    right_r = np.where(slope_r3 < 0, crossing_r3, np.inf).min(axis=1) + hair
    first_r = np.clip(np.ceil(left_r), 0, width).astype(np.int64)
    last_r = np.clip(np.floor(right_r) + 1, 0, width).astype(np.int64)
    span_p, x_p = _expand(first_r, np.maximum(last_r - first_r, 0))
    if not len(span_p):
        return None
    depth_x_f = (slope_x_f3 * depth_f3[faces]).sum(axis=1)
    at_row_depth_r = (at_row_r3 * depth_f3[faces][place_r]).sum(axis=1)
    depth_p = at_row_depth_r[span_p] + depth_x_f[place_r][span_p] * x_p
    pixel_p = row_r[span_p] * width + x_p
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, pixel_p, depth_p)
    winner = np.full(height * width, -1, np.int64)
    front_p = np.flatnonzero(depth_p <= nearest[pixel_p])
    winner[pixel_p[front_p]] = front_p
    pixel_p = np.flatnonzero(winner >= 0)
    chosen = winner[pixel_p]
    rows = span_p[chosen]
    weight_p3 = at_row_r3[rows] + slope_r3[rows] * x_p[chosen, None]
    return _Hits(pixel_p, faces[place_r[rows]], weight_p3)


def _expand(start_n: NDArray[np.int64], count_n: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For ranges [start, start + count): the index of the range and the number, of every member."""
    index = np.repeat(np.arange(len(start_n)), count_n)
    before = np.cumsum(count_n) - count_n
    return index, np.arange(len(index)) - before[index] + start_n[index]
