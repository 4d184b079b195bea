"""The solids of the rendered tabletop: each answers a bundle of rays with depth, normal and colour.

Rays are ``origin + t * direction`` in the solid's own frame (metres, z up, resting on z = 0 unless said otherwise).
The camera's directions have length one along its optical axis, so ``t`` is the depth itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
NEVER = np.float32(np.inf)


@dataclass(frozen=True)
class Rays:
    """A rectangle of rays that start in one point."""

    origin: NDArray[np.float64]  # (3,) m
    x: Float  # (h, w) direction, solid's frame
    y: Float  # (h, w)
    z: Float  # (h, w)


@dataclass(frozen=True)
class Hit:
    """Where rays meet a solid; rays that miss it have ``depth_m`` = inf and arbitrary other values."""

    depth_m: Float  # (h, w)
    normal: tuple[Float, Float, Float]  # each (h, w), unit length, solid's frame
    albedo: Float  # (h, w, 3) linear light, 0..1


class Solid(Protocol):
    """What the renderer needs of a shape."""

    def corners(self) -> NDArray[np.float64]:
        """(8, 3) corners of a box around the solid, m."""

    def outline(self) -> NDArray[np.float64]:
        """(N, 3) points whose projection's hull is the solid's shadow, m."""

    def intersect(self, rays: Rays) -> Hit:
        """The first point of the solid on each ray."""


def to_linear(image: NDArray[np.uint8]) -> Float:
    """Approximately sRGB to linear: squaring undoes a gamma of two, and a square root applies it again cheaply."""
    return np.square(image.astype(np.float32) / 255)


def sample(texture: Float, u: Float, v: Float, border: int = cv2.BORDER_REPLICATE) -> Float:
    """Bilinear (h, w, 3) lookup; u, v in 0..1 from the top left, pixel centres at half steps."""
    height, width = texture.shape[:2]
    return np.asarray(
        cv2.remap(
            texture, u * width - np.float32(0.5), v * height - np.float32(0.5), cv2.INTER_LINEAR, borderMode=border
        )
    )


def box_corners(low: tuple[float, float, float], high: tuple[float, float, float]) -> NDArray[np.float64]:
    grid = np.meshgrid(*zip(low, high, strict=True), indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 3).astype(np.float64)


def circle_points(radius: float, heights: tuple[float, ...]) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return np.concatenate([np.column_stack([ring, np.full(24, z)]) for z in heights])


@dataclass(frozen=True)
class Box:
    """A cuboid with a print per face; ``faces`` are linear textures: front (-y), back (+y), side (+-x), top (+-z)."""

    size_m: tuple[float, float, float]  # along x, y, z
    faces: dict[str, Float]

    def corners(self) -> NDArray[np.float64]:
        x, y, z = self.size_m
        return box_corners((-x / 2, -y / 2, 0), (x / 2, y / 2, z))

    outline = corners

    def intersect(self, rays: Rays) -> Hit:
        near, far = np.full(rays.x.shape, -NEVER, np.float32), np.full(rays.x.shape, NEVER, np.float32)
        axis = np.zeros(rays.x.shape, np.uint8)
        low, high = self.corners()[0], self.corners()[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            for k, direction in enumerate((rays.x, rays.y, rays.z)):
                a = np.float32(low[k] - rays.origin[k]) / direction
                b = np.float32(high[k] - rays.origin[k]) / direction
                enter = np.minimum(a, b)
                axis[enter > near] = k
                near, far = np.maximum(near, enter), np.minimum(far, np.maximum(a, b))
        depth = np.where((near < far) & (near > 0), near, NEVER)
        safe = np.where(np.isfinite(depth), depth, 0)
        fx, fy, fz = (
            (np.float32(rays.origin[k] - low[k]) + safe * d) / np.float32(self.size_m[k])
            for k, d in enumerate((rays.x, rays.y, rays.z))
        )
        albedo = np.zeros((*depth.shape, 3), np.float32)
        normals = tuple(
            np.where(axis == k, -np.sign(d), 0).astype(np.float32) for k, d in enumerate((rays.x, rays.y, rays.z))
        )
        prints: tuple[tuple[str, NDArray[np.bool_], Float, Float], ...] = (
            ("front", (axis == 1) & (rays.y > 0), fx, 1 - fz),
            ("back", (axis == 1) & (rays.y <= 0), 1 - fx, 1 - fz),
            ("side", axis == 0, fy, 1 - fz),
            ("top", axis == 2, fx, 1 - fy),
        )
        for name, where, u, v in prints:
            where = where & np.isfinite(depth)
            x, y, width, height = cv2.boundingRect(where.view(np.uint8))
            if width:
                part = (slice(y, y + height), slice(x, x + width))
                np.copyto(albedo[part], sample(self.faces[name], u[part], v[part]), where=where[part][..., None])
        return Hit(depth, (normals[0], normals[1], normals[2]), albedo)


@dataclass(frozen=True)
class Ball:
    """A sphere around its own origin."""

    radius_m: float
    texture: Float  # latitude-longitude

    def corners(self) -> NDArray[np.float64]:
        r = self.radius_m
        return box_corners((-r, -r, -r), (r, r, r))

    def outline(self) -> NDArray[np.float64]:
        lat = np.linspace(-1.3, 1.3, 7)
        return np.concatenate([circle_points(self.radius_m * np.cos(a), (self.radius_m * np.sin(a),)) for a in lat])

    def intersect(self, rays: Rays) -> Hit:
        ox, oy, oz = (np.float32(v) for v in rays.origin)
        a = rays.x**2 + rays.y**2 + rays.z**2
        b = ox * rays.x + oy * rays.y + oz * rays.z
        inside = b * b - a * np.float32(rays.origin @ rays.origin - self.radius_m**2)
        depth = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, NEVER)
        safe = np.where(inside > 0, depth, 0)
        scale = np.float32(1 / self.radius_m)
        nx, ny, nz = (ox + safe * rays.x) * scale, (oy + safe * rays.y) * scale, (oz + safe * rays.z) * scale
        u = np.arctan2(ny, nx) / np.float32(2 * np.pi) + np.float32(0.5)
        v = np.arccos(np.clip(nz, -1, 1)) / np.float32(np.pi)
        return Hit(depth.astype(np.float32), (nx, ny, nz), sample(self.texture, u, v, cv2.BORDER_WRAP))


@dataclass(frozen=True)
class Tin:
    """An upright cylinder with a flat lid."""

    radius_m: float
    height_m: float
    texture: Float  # wrapped once around
    lid: Float  # (3,) linear colour

    def corners(self) -> NDArray[np.float64]:
        r = self.radius_m
        return box_corners((-r, -r, 0), (r, r, self.height_m))

    def outline(self) -> NDArray[np.float64]:
        return circle_points(self.radius_m, (0, self.height_m))

    def intersect(self, rays: Rays) -> Hit:
        side = tube(rays, self.radius_m, self.height_m, far=False)
        lid_depth, lid_radius = disc(rays, self.height_m)
        on_lid = lid_radius < self.radius_m
        depth = np.where(on_lid, lid_depth, side)
        hit = wrapped(rays, depth, self.radius_m, self.height_m, self.texture)
        ridges = 0.8 + 0.2 * np.cos(lid_radius * np.float32(2 * np.pi * 5 / self.radius_m))
        hit.albedo[on_lid] = (self.lid * ridges[..., None])[on_lid]
        return Hit(depth, facing_up(hit.normal, on_lid), hit.albedo)


def tube(rays: Rays, radius: float, height: float, *, far: bool) -> Float:
    """Depth of an upright tube's near or far wall between z = 0 and ``height``; inf where it is missed."""
    ox, oy, oz = (np.float32(v) for v in rays.origin)
    a = rays.x**2 + rays.y**2
    b = ox * rays.x + oy * rays.y
    inside = b * b - a * np.float32(rays.origin[0] ** 2 + rays.origin[1] ** 2 - radius**2)
    root = np.sqrt(np.maximum(inside, 0))
    t = (-b + (root if far else -root)) / np.maximum(a, 1e-9)
    z = oz + t * rays.z
    return np.where((inside > 0) & (z >= 0) & (z <= height), t, NEVER).astype(np.float32)


def disc(rays: Rays, z: float) -> tuple[Float, Float]:
    """Depth of the plane at height ``z`` and distance from the axis there."""
    with np.errstate(divide="ignore"):
        t = np.where(rays.z < 0, np.float32(z - rays.origin[2]) / rays.z, 1e6).astype(np.float32)
    return t, np.hypot(np.float32(rays.origin[0]) + t * rays.x, np.float32(rays.origin[1]) + t * rays.y)


def wrapped(rays: Rays, depth: Float, radius: float, height: float, texture: Float) -> Hit:
    """Normal and print of an upright tube at ``depth``."""
    safe = np.where(np.isfinite(depth), depth, 0)
    x, y = np.float32(rays.origin[0]) + safe * rays.x, np.float32(rays.origin[1]) + safe * rays.y
    z = np.float32(rays.origin[2]) + safe * rays.z
    u = np.arctan2(y, x) / np.float32(2 * np.pi) + np.float32(0.5)
    albedo = sample(texture, u, 1 - z / np.float32(height), cv2.BORDER_WRAP)
    scale = np.float32(1) / np.maximum(np.hypot(x, y), 1e-6)
    return Hit(depth, (x * scale, y * scale, np.zeros_like(x)), albedo)


def facing_up(normal: tuple[Float, Float, Float], where: NDArray[np.bool_]) -> tuple[Float, Float, Float]:
    pick: Callable[[Float, float], Float] = lambda axis, value: np.where(where, np.float32(value), axis)  # noqa: E731
    return pick(normal[0], 0), pick(normal[1], 0), pick(normal[2], 1)
