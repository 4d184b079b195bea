"""The mug of the rendered tabletop: hollow, with a drink in it and a handle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import NEVER, Float, Hit, Rays, box_corners, circle_points, disc, facing_up, tube, wrapped


@dataclass(frozen=True)
class Mug:
    """An open cup with something dark in it and a ring for a handle at +x."""

    radius_m: float
    height_m: float
    texture: Float
    glaze: Float  # (3,) linear colour of rim, inside and handle
    drink: Float  # (3,) linear colour
    wall_m: float = 0.005
    handle_m: tuple[float, float] = (0.030, 0.0075)  # radius of the ring, radius of its tube

    def corners(self) -> NDArray[np.float64]:
        r = self.radius_m
        return box_corners((-r, -r, 0), (r + sum(self.handle_m), r, self.height_m))

    def outline(self) -> NDArray[np.float64]:
        return circle_points(self.radius_m, (0, self.height_m))

    def intersect(self, rays: Rays) -> Hit:
        inner = self.radius_m - self.wall_m
        top_depth, top_radius = disc(rays, self.height_m)
        opening, rim = top_radius < inner, (top_radius >= inner) & (top_radius < self.radius_m)
        level_depth, level_radius = disc(rays, self.height_m * 0.86)
        drink = opening & (level_radius < inner)
        depth = np.where(rim, top_depth, tube(rays, self.radius_m, self.height_m, far=False))
        depth = np.where(opening, np.where(drink, level_depth, tube(rays, inner, self.height_m, far=True)), depth)
        hit = wrapped(rays, depth, self.radius_m, self.height_m, self.texture)
        hit.albedo[rim] = self.glaze * 1.05
        hit.albedo[opening] = self.glaze * 0.55
        hit.albedo[drink] = self.drink
        normal = facing_up(hit.normal, rim | drink)
        handle, handle_normal = self._handle(rays)
        nearer = handle < depth
        hit.albedo[nearer] = self.glaze
        merged = [np.where(nearer, a, b) for a, b in zip(handle_normal, normal, strict=True)]
        return Hit(np.where(nearer, handle, depth), (merged[0], merged[1], merged[2]), hit.albedo)

    def _handle(self, rays: Rays) -> tuple[Float, tuple[Float, Float, Float]]:
        """Sphere-trace a torus in the xz plane, only along the rays that come near it."""
        ring, thick = (np.float32(v) for v in self.handle_m)
        center = np.array((self.radius_m, 0, self.height_m * 0.52))
        o = [np.float32(v) for v in rays.origin - center]
        directions = (rays.x, rays.y, rays.z)
        a = sum(d * d for d in directions)
        nearest = -sum(o[k] * d for k, d in enumerate(directions)) / a
        gap = sum((o[k] + nearest * d) ** 2 for k, d in enumerate(directions))
        close = gap < (ring + thick) ** 2
        d = np.stack([axis[close] for axis in directions])
        speed = np.sqrt((d * d).sum(0))
        t = nearest[close] - (ring + thick) / speed
        start = np.array(o, np.float32)[:, None]

        def distance(p: Float) -> Float:
            around = np.sqrt(p[0] ** 2 + p[2] ** 2) - ring
            return np.asarray(np.sqrt(around**2 + p[1] ** 2) - thick, np.float32)

        gap_left = np.zeros_like(t)
        for _ in range(20):
            gap_left = distance(start + t * d)
            t = t + gap_left / speed
        p = start + t * d
        depth = np.full(rays.x.shape, NEVER, np.float32)
        depth[close] = np.where(gap_left < 5e-4, t, NEVER)
        middle = p * (ring / np.maximum(np.sqrt(p[0] ** 2 + p[2] ** 2), 1e-6))
        middle[1] = 0
        unit = (p - middle) / np.maximum(np.linalg.norm(p - middle, axis=0), 1e-6)
        out = np.zeros((3, *rays.x.shape), np.float32)
        out[:, close] = unit
        return depth, (out[0], out[1], out[2])
