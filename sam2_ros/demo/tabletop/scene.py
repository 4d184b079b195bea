"""A rendered tabletop: a moving camera, five textured objects and clutter, with exact masks, depth and intrinsics.

It replaces a camera in the demo, so it looks as much like a photograph as numpy and OpenCV allow: rays against boxes,
tubes and spheres, a depth buffer, one soft light with shadows, a lens and sensor noise. Every frame
is a function of (seed, size, rate, index) alone: two processes that build the same scene see the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .props import Pose, Prop, build_props
from .room import FILL, KEY, LIGHT, Room
from .shapes import NEVER, Float, Rays

_FOCAL_PER_WIDTH = 615.0 / 640.0
_BOUNCE = np.array((0.16, 0.11, 0.07), np.float32)  # light from the table: brown
_GRAIN_SHIFT_PX = 64  # one noise picture serves all frames, each at another offset


@dataclass(frozen=True)
class TabletopFrame:
    """One picture and everything true about it."""

    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    ids: NDArray[np.uint8]  # (H, W): 0 = background and clutter, else 1 + index into ``Tabletop.names``
    depth_m: NDArray[np.float32]  # (H, W) along the optical axis, every pixel finite
    world_from_camera: Pose  # camera: x right, y down, z forward


@dataclass(frozen=True)
class ClickPoint:
    """Where to click an object: the innermost pixel of its visible mask."""

    name: str
    x_px: float
    y_px: float


@dataclass(frozen=True)
class _Geometry:
    """What the rays hit: depth and ids, and colour where it was asked for."""

    depth_m: Float  # (H, W)
    ids: NDArray[np.uint8]  # (H, W)
    linear: Float | None  # (H, W, 3) light reaching the camera


class Tabletop:
    """The scene. ``render(i)`` is frame ``i`` at ``i / rate_hz`` seconds; frames can be rendered in any order."""

    def __init__(self, *, height_px: int = 480, width_px: int = 640, rate_hz: float = 15.0, seed: int = 7) -> None:
        if height_px < 48 or width_px < 48 or rate_hz <= 0:
            got = f"{width_px}x{height_px} px at {rate_hz} Hz"
            raise ValueError(f"expected a size of at least 48x48 px and a positive rate, got {got}")
        self.height_px, self.width_px, self.rate_hz, self.seed = height_px, width_px, rate_hz, seed
        focal = _FOCAL_PER_WIDTH * width_px
        cx, cy = (width_px - 1) / 2, (height_px - 1) / 2
        self.camera_matrix = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])  # (3, 3) K, px
        self._x = ((np.arange(width_px) - cx) / focal).astype(np.float32)[None, :]
        self._y = ((np.arange(height_px) - cy) / focal).astype(np.float32)[:, None]
        self._inverse_length = 1 / np.sqrt(1 + self._x**2 + self._y**2)
        rng = np.random.default_rng(seed)
        px_per_m = 1.5 * focal
        self._props = self.props(rng, px_per_m)
        self.names = tuple(prop.name for prop in self._props if prop.name)
        self._room = Room(rng, self._props, px_per_m)
        corner = float(self._x[0, 0] ** 2 + self._y[0, 0] ** 2)
        self._vignette = (1 - 0.16 / corner * (self._x**2 + self._y**2)).astype(np.float32)
        grain_shape = (height_px + _GRAIN_SHIFT_PX, width_px + _GRAIN_SHIFT_PX, 3)
        self._grain = np.random.default_rng(seed + 1).normal(0, 1, grain_shape).astype(np.float32)

    def props(self, rng: np.random.Generator, px_per_m: float) -> list[Prop]:
        """What stands on the table; a scene of other things overrides it."""
        return build_props(rng, px_per_m)

    def render(self, index: int) -> TabletopFrame:
        """Frame ``index`` (0..) with colours."""
        geometry = self._trace(index, colored=True)
        return TabletopFrame(self._develop(geometry, index), geometry.ids, geometry.depth_m, self.camera_pose(index))

    def render_ids(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 instance ids of frame ``index``: those of ``render``, without drawing the table and wall."""
        return self._trace(index, colored=False).ids

    def click_points(self, index: int = 0) -> tuple[ClickPoint, ...]:
        """A good click for every object that is visible in the frame, in order of the ids."""
        ids = self.render_ids(index)
        points = []
        for value, name in enumerate(self.names, start=1):
            # The border counts as outside, or a cut-off object would be clicked at the image's edge.
            inside = cv2.distanceTransform(np.pad((ids == value).astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
            if inside.max() > 0:
                y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
                points.append(ClickPoint(name, float(x), float(y)))
        return tuple(points)

    def camera_pose(self, index: int) -> Pose:
        """Where the camera is in frame ``index``: swaying around the table's middle, never quite still."""
        t = index / self.rate_hz
        azimuth = np.deg2rad(-1.0 + 9.0 * np.sin(2 * np.pi * t / 11.0 - 0.5) + 0.25 * np.sin(2 * np.pi * t * 0.9))
        elevation = np.deg2rad(33.0 + 2.5 * np.sin(2 * np.pi * t / 7.0) + 0.2 * np.sin(2 * np.pi * t * 1.3))
        distance = 0.76 + 0.035 * np.sin(2 * np.pi * t / 9.0 + 1.0)
        target = np.array((0.02, 0.03, 0.045))
        back = np.array((np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)))
        forward = -back
        right = np.cross(forward, (0, 0, 1.0))
        right /= np.linalg.norm(right)
        return Pose(np.column_stack([right, np.cross(forward, right), forward]), target + distance * back)

    def _directions(self, rotation: NDArray[np.float64], rows: slice, cols: slice) -> tuple[Float, Float, Float]:
        """Ray directions of an image part; ``rotation`` maps the camera's frame to the wanted one."""
        x, y = self._x[:, cols], self._y[rows]
        r = rotation.astype(np.float32)
        return (
            r[0, 0] * x + (r[0, 1] * y + r[0, 2]),
            r[1, 0] * x + (r[1, 1] * y + r[1, 2]),
            r[2, 0] * x + (r[2, 1] * y + r[2, 2]),
        )

    def _trace(self, index: int, *, colored: bool) -> _Geometry:
        camera = self.camera_pose(index)
        time_s = index / self.rate_hz
        if colored:
            directions = self._directions(camera.rotation, slice(None), slice(None))
            depth, linear = self._room.draw(directions, camera.position_m, time_s)
        else:
            depth, linear = np.full((self.height_px, self.width_px), NEVER, np.float32), None
        ids = np.zeros(depth.shape, np.uint8)
        for number, prop in enumerate(self._props, start=1):
            self._draw(prop, number if prop.name else 0, camera, time_s, _Geometry(depth, ids, linear))
        return _Geometry(depth, ids, linear)

    def _draw(self, prop: Prop, value: int, camera: Pose, time_s: float, into: _Geometry) -> None:
        """Trace one solid into the buffers, within the rectangle it can reach."""
        pose = prop.pose_at(time_s)
        corners = (prop.solid.corners() @ pose.rotation.T + pose.position_m - camera.position_m) @ camera.rotation
        if (corners[:, 2] < 0.05).any():
            return  # behind the camera; the sway never comes this close
        pixels = corners[:, :2] / corners[:, 2:] * self.camera_matrix[0, 0] + self.camera_matrix[:2, 2]
        low = np.maximum(np.floor(pixels.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(pixels.max(0)).astype(int) + 1, (self.width_px, self.height_px))
        if (low >= high).any():
            return
        rows, cols = slice(low[1], high[1]), slice(low[0], high[0])
        origin = pose.rotation.T @ (camera.position_m - pose.position_m)
        hit = prop.solid.intersect(Rays(origin, *self._directions(pose.rotation.T @ camera.rotation, rows, cols)))
        visible = hit.depth_m < into.depth_m[rows, cols]
        np.copyto(into.depth_m[rows, cols], hit.depth_m, where=visible)
        into.ids[rows, cols][visible] = value
        if into.linear is None:
            return
        seen = np.flatnonzero(visible)  # flat indices: several times faster than boolean masks
        normal = np.stack([axis.ravel()[seen] for axis in hit.normal], axis=-1) @ pose.rotation.T.astype(np.float32)
        inverse_length = self._inverse_length[rows, cols].ravel()[seen]
        world = [axis.ravel()[seen] for axis in self._directions(camera.rotation, rows, cols)]
        view = np.stack([axis * inverse_length for axis in world], axis=-1)
        height = np.float32(camera.position_m[2]) + hit.depth_m.ravel()[seen] * world[2]
        lit = np.zeros_like(hit.albedo)
        lit.reshape(-1, 3)[seen] = _shade(hit.albedo.reshape(-1, 3)[seen], normal, view, height, prop.gloss)
        np.copyto(into.linear[rows, cols], lit, where=visible[..., None])

    def _develop(self, geometry: _Geometry, index: int) -> NDArray[np.uint8]:
        """Lens, exposure, noise and tone curve: linear light to (H, W, 3) uint8 RGB."""
        assert geometry.linear is not None, "only a coloured trace can be developed"
        exposure = np.float32(1.16 + 0.025 * np.sin(index / self.rate_hz * 1.7))
        image = geometry.linear * (self._vignette * exposure)[..., None]
        image = cv2.GaussianBlur(image, (3, 3), 0.5)
        # One ray per pixel leaves jagged outlines: soften where the depth jumps, and only there.
        steps = cv2.morphologyEx(geometry.depth_m, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        jump = steps > 0.012 * geometry.depth_m
        image[jump] = cv2.GaussianBlur(image, (5, 5), 0.85)[jump]
        image = cv2.sqrt(np.minimum(image, 1.0)) * np.float32(255)
        dy, dx = np.random.default_rng((self.seed, index)).integers(0, _GRAIN_SHIFT_PX, 2)
        image += self._grain[dy : dy + self.height_px, dx : dx + self.width_px] * np.float32(2.2)
        return np.asarray(cv2.convertScaleAbs(np.maximum(image, 0)), np.uint8)


def _shade(albedo: Float, normal: Float, view: Float, height_m: Float, gloss: float) -> Float:
    """(N, 3) light from points with (N, 3) albedo and normal, seen along unit ``view``; darker close to the table."""
    light = LIGHT.astype(np.float32)
    facing = normal @ light
    up = normal[:, 2]
    grounded = 1 - np.float32(0.45) * np.exp(np.maximum(height_m, 0) * np.float32(-1 / 0.016))
    # Blinn's half vector is light - view; its length follows from their angle.
    along = view @ light
    half = (facing - np.einsum("nk,nk->n", normal, view)) / np.sqrt(np.maximum(2 - 2 * along, 1e-6))
    shine = np.float32(gloss) * np.maximum(half, 0) ** 40
    fill = FILL * (np.float32(0.80) + np.float32(0.32) * up)[:, None]
    fill += _BOUNCE * np.maximum(np.float32(0.6) - up, 0)[:, None]
    fill += KEY * np.maximum(facing, 0)[:, None]
    return albedo * fill * grounded[:, None] + shine[:, None]
