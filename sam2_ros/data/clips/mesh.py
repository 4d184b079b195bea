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
    width, height = int(high[0] - low[0]), int(high[1] - low[1])
    triangles_f3 = moving.mesh.triangles_f3
    shown = [moving.mesh.uv_v2] if moving.shade_tv is None else [moving.mesh.uv_v2, moving.shade_tv[t][:, None]]
    values_v = np.concatenate([points_v3[:, 2:], *shown], axis=1)
    hits = _rasterise((frame_v2 - low)[triangles_f3], values_v[triangles_f3], moving.mesh.closed, width, height)
    if hits is None:
        return None
    maps_n2 = np.full((height * width, 2), OUTSIDE, np.float32)
    maps_n2[hits.pixel_p] = hits.values_p[:, 1:3]
    shade_hw = None
    if moving.shade_tv is not None:
        shade_hw = np.ones((height, width), np.float32)
        shade_hw.ravel()[hits.pixel_p] = hits.values_p[:, 3]
    return Surface(region, SourceMaps(maps_n2.reshape(height, width, 2)), shade_hw)


@dataclass(frozen=True)
class _Hits:
    """The pixels that show a triangle, each once, and what is spread over it there."""

    pixel_p: NDArray[np.int64]  # (P,) y * width + x
    values_p: NDArray[np.float32]  # (P, K) the first is the depth


def _rasterise(
    corners_f32: NDArray[np.float64], values_f3: NDArray[np.float64], closed: bool, width: int, height: int
) -> _Hits | None:
    """Cover pixel centres row by row; the nearest triangle wins, of equally near ones the last.

    Args:
        corners_f32: (F, 3, 2) px.
        values_f3: (F, 3, K) of each triangle's corners, spread linearly; the first is the depth.
        closed: leave out triangles that are clockwise in the frame.
        width: of the region, px.
        height: of the region, px.
    """
    ahead_f32, behind_f32 = corners_f32[:, (1, 2, 0)], corners_f32[:, (2, 0, 1)]
    # Each barycentric weight, times the doubled area, is edge_x * x + edge_y * y + rest.
    edge_x_f3 = ahead_f32[..., 1] - behind_f32[..., 1]
    edge_y_f3 = behind_f32[..., 0] - ahead_f32[..., 0]
    rest_f3 = ahead_f32[..., 0] * behind_f32[..., 1] - behind_f32[..., 0] * ahead_f32[..., 1]
    # Positive is counter-clockwise with y down, which is what faces the camera here.
    area_f = rest_f3.sum(axis=1)
    drawn = np.flatnonzero(area_f > 1e-9 if closed else np.abs(area_f) > 1e-9)
    y_f3 = corners_f32[drawn, :, 1]
    top_f = np.clip(np.ceil(y_f3.min(axis=1)), 0, height).astype(np.int64)
    bottom_f = np.clip(np.floor(y_f3.max(axis=1)) + 1, 0, height).astype(np.int64)
    face_r, row_r = _expand(top_f, bottom_f - top_f)
    if not len(face_r):
        return None
    weight_f33 = np.stack([edge_x_f3, edge_y_f3, rest_f3], axis=1)[drawn] / area_f[drawn, None, None]
    spread_f3k = weight_f33 @ values_f3[drawn]  # what x, y and 1 contribute to each value
    at_row_r3 = weight_f33[face_r, 1] * row_r[:, None] + weight_f33[face_r, 2]
    first_r, last_r = _spans(at_row_r3, weight_f33[face_r, 0], width)
    span_p, x_p = _expand(first_r, np.maximum(last_r - first_r, 0))
    if not len(span_p):
        return None
    start_rk = (spread_f3k[face_r, 1] * row_r[:, None] + spread_f3k[face_r, 2]).astype(np.float32)
    slope_rk = spread_f3k[face_r, 0].astype(np.float32)
    values_pk = start_rk[span_p] + slope_rk[span_p] * x_p[:, None].astype(np.float32)
    pixel_p = row_r[span_p] * width + x_p
    winner = np.full(height * width, -1, np.int64)
    front_p = np.arange(len(pixel_p))
    if np.ptp(values_f3[..., 0]) > 0:
        nearest = np.full(height * width, np.inf, np.float32)
        np.minimum.at(nearest, pixel_p, values_pk[:, 0])
        front_p = np.flatnonzero(values_pk[:, 0] <= nearest[pixel_p])
    winner[pixel_p[front_p]] = front_p
    covered = np.flatnonzero(winner >= 0)
    return _Hits(covered, values_pk[winner[covered]])


def _spans(
    at_row_r3: NDArray[np.float64], slope_r3: NDArray[np.float64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel of each row of a triangle, and the one after its last: where all three weights are 0 or more."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing_r3 = -at_row_r3 / slope_r3
    left_r3 = np.where(slope_r3 > 0, crossing_r3, -np.inf)
    right_r3 = np.where(slope_r3 < 0, crossing_r3, np.inf)
    # A hair more than the triangle, so that rounding leaves no crack between neighbours.
    left_r = np.maximum(np.maximum(left_r3[:, 0], left_r3[:, 1]), left_r3[:, 2]) - 1e-6
    right_r = np.minimum(np.minimum(right_r3[:, 0], right_r3[:, 1]), right_r3[:, 2]) + 1e-6
    first_r = np.clip(np.ceil(left_r), 0, width).astype(np.int64)
    return first_r, np.clip(np.floor(right_r) + 1, 0, width).astype(np.int64)


def _expand(start_n: NDArray[np.int64], count_n: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For ranges [start, start + count): the index of the range and the number, of every member."""
    index = np.repeat(np.arange(len(start_n)), count_n)
    before = np.cumsum(count_n) - count_n
    return index, np.arange(len(index)) + (start_n - before)[index]
