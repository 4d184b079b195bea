"""Things that turn out of the image plane: solids with photographs as texture, lit, seen by a near camera.

Boxes, and bodies of revolution (balls, cylinders, cups, bottles, cones), and a few of them joined: a mug with a
handle, a lamp, an animal whose legs swing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout, random_texture
from sam2_ros.data.clips.mesh import Mesh, MovingMesh
from sam2_ros.data.clips.motion import smooth_curve

_TILE_PX = 96
_AROUND = 16  # corners around a body of revolution
_BOX_CELLS = 3  # along each edge of a box: affine pieces of a perspective picture


@dataclass(frozen=True)
class Part:
    """One closed or open surface of a solid, in object units."""

    points_v3: NDArray[np.float64]
    normals_v3: NDArray[np.float64]
    uv_v2: NDArray[np.float64]  # 0..1 in the part's own tile
    triangles_f3: NDArray[np.int64]
    joint_xyz: NDArray[np.float64] | None = None  # where it swings, about the x axis


@dataclass(frozen=True)
class Solid:
    """A textured solid about the origin, whose farthest corner is at distance 1."""

    texture: Cutout
    mesh: Mesh
    points_v3: NDArray[np.float64]
    normals_v3: NDArray[np.float64]
    part_v: NDArray[np.int64]  # which part a corner belongs to
    joints: tuple[NDArray[np.float64] | None, ...]  # of each part

    def posed(self, angles_3: NDArray[np.float64], swing_p: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """(V, 3) corners and normals, limbs swung by their angles, then turned about x, y and z (radians)."""
        points_v3, normals_v3 = self.points_v3.copy(), self.normals_v3.copy()
        for number, joint_xyz in enumerate(self.joints):
            if joint_xyz is not None:
                of_part = self.part_v == number
                turn_33 = _rotation(np.array([swing_p[number], 0.0, 0.0]))
                points_v3[of_part] = (points_v3[of_part] - joint_xyz) @ turn_33.T + joint_xyz
                normals_v3[of_part] = normals_v3[of_part] @ turn_33.T
        turn_33 = _rotation(angles_3)
        return points_v3 @ turn_33.T, normals_v3 @ turn_33.T


def random_solid(rng: np.random.Generator, photo_hwc: NDArray[np.uint8]) -> Solid:
    """A solid of a random kind with patches of the photograph, stripes or gradients on it.

    Args:
        photo_hwc: (H, W, 3) uint8 RGB.
    """
    kind = rng.choice(["box", "revolved", "mug", "lamp", "animal"], p=[0.25, 0.33, 0.14, 0.1, 0.18])
    parts = _PARTS[str(kind)](rng)
    points_v3 = np.concatenate([part.points_v3 for part in parts])
    points_v3 -= (points_v3.min(axis=0) + points_v3.max(axis=0)) / 2
    middle = points_v3[0] - parts[0].points_v3[0]
    size = float(np.linalg.norm(points_v3, axis=1).max())
    tiles = [random_texture(rng, photo_hwc, _TILE_PX) for _ in range(4)]
    atlas = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    alpha = np.full(atlas.shape[:2], 255, np.uint8)
    uv, triangles, part_of, before = [], [], [], 0
    tile_of_part = rng.permutation(len(parts)) % (1 if kind == "animal" and rng.random() < 0.7 else 4)
    for number, part in enumerate(parts):
        corner = np.array(divmod(int(tile_of_part[number]), 2)[::-1]) * _TILE_PX
        uv.append(corner + 1.0 + np.clip(part.uv_v2, 0, 1) * (_TILE_PX - 3))
        triangles.append(part.triangles_f3 + before)
        part_of.append(np.full(len(part.points_v3), number))
        before += len(part.points_v3)
    return Solid(
        Cutout(np.dstack([atlas, alpha])),
        Mesh(np.concatenate(triangles), np.concatenate(uv), closed=str(kind) in ("box",)),
        points_v3 / size,
        np.concatenate([part.normals_v3 for part in parts]),
        np.concatenate(part_of),
        tuple(None if part.joint_xyz is None else (part.joint_xyz + middle) / size for part in parts),
    )


@dataclass(frozen=True)
class Turning:
    """How far a solid turns over a clip."""

    turn_rad: float  # about the upright axis, at most
    nod_rad: float  # about the others
    swing_rad: float  # of limbs


def moving_solid(
    rng: np.random.Generator,
    solid: Solid,
    center_t2: NDArray[np.float64],
    radius_t: NDArray[np.float64],
    turning: Turning,
) -> MovingMesh:
    """The solid on a path, turning, lit from above or the side by a light that wanders a little.

    Args:
        solid: what moves.
        center_t2: (T, 2) scene units.
        radius_t: (T,) scene units, of the solid's farthest corner.
        turning: how far it turns.
    """
    num_frames = len(center_t2)
    yaw = rng.uniform(0, 2 * np.pi) + smooth_curve(rng, num_frames, turning.turn_rad)
    pitch = rng.uniform(-0.1, 0.7) + smooth_curve(rng, num_frames, turning.nod_rad)
    roll = rng.normal(0, 0.12) + smooth_curve(rng, num_frames, turning.nod_rad)
    if rng.random() < 0.25:  # tumbling, not standing
        pitch, roll = pitch + rng.uniform(0, 2 * np.pi), roll + rng.uniform(0, 2 * np.pi)
    stride = smooth_curve(rng, num_frames, turning.swing_rad)
    phase_p = rng.choice([-1.0, 1.0], len(solid.joints)) * rng.uniform(0.6, 1.0, len(solid.joints))
    distance = rng.uniform(2.2, 7.0)  # of the camera, in radii
    light_t3 = _light(rng, num_frames)
    ambient, diffuse = rng.uniform(0.4, 0.85), rng.uniform(0.3, 0.9)
    gloss = rng.uniform(0.2, 0.8) if rng.random() < 0.3 else 0.0
    points_tv3 = np.empty((num_frames, *solid.points_v3.shape))
    shade_tv = np.empty((num_frames, len(solid.points_v3)))
    for t in range(num_frames):
        angles_3 = np.array([pitch[t], yaw[t], roll[t]])
        points_v3, normals_v3 = solid.posed(angles_3, stride[t] * phase_p)
        nearness_v = distance / (distance + points_v3[:, 2:])
        points_tv3[t, :, :2] = center_t2[t] + radius_t[t] * points_v3[:, :2] * nearness_v
        points_tv3[t, :, 2] = points_v3[:, 2]
        # An open surface shows its inside, too: a face that points away from the camera is lit from its other side.
        facing_v3 = normals_v3 * np.where(normals_v3[:, 2:] > 0, -1.0, 1.0)
        toward_v = np.clip(facing_v3 @ light_t3[t], 0, 1)
        shade_tv[t] = ambient + diffuse * toward_v + gloss * toward_v**12
    return MovingMesh(solid.mesh, points_tv3, shade_tv)


def _light(rng: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    """(T, 3) unit vectors towards the light: x right, y down, z away from the camera."""
    side = rng.uniform(-1.2, 1.2) + smooth_curve(rng, num_frames, 0.6)
    light_t3 = np.stack([side, np.full(num_frames, -rng.uniform(0.2, 1.2)), np.full(num_frames, -0.7)], axis=1)
    return light_t3 / np.linalg.norm(light_t3, axis=1, keepdims=True)


def _rotation(angles_3: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) about y, then x, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_3), np.sin(angles_3)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _grid_triangles(rows: int, columns: int) -> NDArray[np.int64]:
    """(2 * rows * columns, 3) triangles of a sheet with (rows + 1) x (columns + 1) corners."""
    row, column = (index.ravel() for index in np.mgrid[0:rows, 0:columns])
    first = row * (columns + 1) + column
    below = first + columns + 1
    return np.concatenate([np.stack([first, first + 1, below + 1], 1), np.stack([first, below + 1, below], 1)])


def _box(size_3: NDArray[np.float64]) -> Part:
    """A box about the origin; every face shows the whole tile or a half of it."""
    n = _BOX_CELLS
    v, u = (index.ravel() / n for index in np.mgrid[0 : n + 1, 0 : n + 1])
    points: list[NDArray[np.float64]] = []
    normals, uvs, triangles = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            face = np.zeros((len(u), 3))
            face[:, axis] = sign / 2
            face[:, (axis + 1) % 3] = sign * (u - 0.5)
            face[:, (axis + 2) % 3] = v - 0.5
            normal = np.zeros(3)
            normal[axis] = sign
            triangles.append(_grid_triangles(n, n) + len(points) * len(u))
            points.append(face * size_3)
            normals.append(np.tile(normal, (len(u), 1)))
            uvs.append(np.stack([u, v] if axis else [v, u], axis=1))
    # Counter-clockwise on screen must mean "faces the camera" (z away from it).
    return Part(
        np.concatenate(points), np.concatenate(normals), np.concatenate(uvs), np.concatenate(triangles)[:, ::-1]
    )


def _revolved(radius_h: NDArray[np.float64], y_h: NDArray[np.float64], around: int = _AROUND) -> Part:
    """A body of revolution about the y axis through the points (radius, y)."""
    turn_a = np.linspace(0, 2 * np.pi, around + 1)
    cos_a, sin_a = np.cos(turn_a), np.sin(turn_a)
    points = np.stack(
        [radius_h[:, None] * cos_a, np.repeat(y_h[:, None], around + 1, 1), radius_h[:, None] * sin_a], axis=2
    )
    slope_h = np.gradient(y_h), -np.gradient(radius_h)
    length_h = np.maximum(np.hypot(*slope_h), 1e-9)
    out_h, up_h = slope_h[0] / length_h, slope_h[1] / length_h
    normals = np.stack(
        [out_h[:, None] * cos_a, np.repeat(up_h[:, None], around + 1, 1), out_h[:, None] * sin_a], axis=2
    )
    along_h = np.cumsum(np.hypot(np.diff(radius_h, prepend=radius_h[0]), np.diff(y_h, prepend=y_h[0])))
    uv = np.stack(np.meshgrid(turn_a / (2 * np.pi), along_h / max(along_h[-1], 1e-9)), axis=2)
    return Part(
        points.reshape(-1, 3), normals.reshape(-1, 3), uv.reshape(-1, 2), _grid_triangles(len(radius_h) - 1, around)
    )


def _ring(radius: float, thickness: float) -> Part:
    """A torus in the x-y plane, for handles."""
    v, u = (index.ravel() for index in np.mgrid[0:7, 0:15])
    small, large = 2 * np.pi * v / 6, 2 * np.pi * u / 14
    normals = np.stack([np.cos(small) * np.cos(large), np.cos(small) * np.sin(large), np.sin(small)], axis=1)
    center = np.stack([np.cos(large), np.sin(large), np.zeros(len(u))], axis=1) * radius
    return Part(center + thickness * normals, normals, np.stack([u / 14, v / 6], axis=1), _grid_triangles(6, 14))


def _moved(part: Part, by_xyz: tuple[float, float, float], joint_xyz: tuple[float, float, float] | None = None) -> Part:
    joint = None if joint_xyz is None else np.array(joint_xyz)
    return Part(part.points_v3 + by_xyz, part.normals_v3, part.uv_v2, part.triangles_f3, joint)


def _ellipsoid(half_3: NDArray[np.float64], around: int = _AROUND) -> Part:
    angle = np.linspace(0, np.pi, around // 2 + 1)
    ball = _revolved(np.sin(angle), -np.cos(angle), around)
    normals = ball.normals_v3 / half_3
    return Part(
        ball.points_v3 * half_3,
        normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9),
        ball.uv_v2,
        ball.triangles_f3,
    )


def _box_parts(rng: np.random.Generator) -> list[Part]:
    return [_box(np.exp(rng.normal(0, 0.45, 3)))]


def _revolved_parts(rng: np.random.Generator) -> list[Part]:
    kind = rng.integers(4)
    if kind == 0:
        return [_ellipsoid(np.exp(rng.normal(0, rng.choice([0.0, 0.3]), 3)))]
    height = float(np.exp(rng.uniform(-0.7, 1.2)))
    if kind == 1:  # a tin, a tube or a disc, with both ends
        radius_h, y_h = np.array([0.0, 0.5, 0.5, 0.5, 0.5, 0.0]), np.array([0, 0, 1e-3, 1 - 1e-3, 1, 1]) * height
    else:
        share = np.linspace(0, 1, 9)
        bulge = sum(rng.normal(0, 0.16) * np.sin(np.pi * k * share + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3))
        radius_h = np.clip(0.5 + bulge + rng.normal(0, 0.2) * (share - 0.5), 0.08, 1.0)
        y_h = share * height
        # y points down: a bottom, and a lid or an opening.
        radius_h, y_h = np.append(radius_h, 0.0), np.append(y_h, height)
        if kind == 2:
            radius_h, y_h = np.insert(radius_h, 0, 0.0), np.insert(y_h, 0, 0.0)
    return [_revolved(radius_h, y_h)]


def _mug_parts(rng: np.random.Generator) -> list[Part]:
    height, taper = rng.uniform(0.8, 1.6), rng.uniform(0.7, 1.0)
    share = np.linspace(0, 1, 5)
    radius_h = 0.5 * (1 - (1 - taper) * share)
    cup = _revolved(np.append(radius_h, 0.0), np.append(share * height, height))
    ring = rng.uniform(0.22, 0.32) * min(height, 1.2)
    handle = _moved(_ring(ring, rng.uniform(0.04, 0.09)), (0.5 * taper + 0.6 * ring, height / 2, 0.0))
    return [cup, handle]


def _lamp_parts(rng: np.random.Generator) -> list[Part]:
    pole = rng.uniform(0.8, 2.5)
    shade_h = rng.uniform(0.4, 0.9)
    top, low = rng.uniform(0.15, 0.4), rng.uniform(0.4, 0.7)
    shade = _revolved(np.linspace(top, low, 4), np.linspace(-shade_h, 0, 4))
    thin = rng.uniform(0.04, 0.1)
    stem = _revolved(np.full(4, thin), np.linspace(-0.1, pole, 4), around=8)
    foot = rng.uniform(0.25, 0.6)
    base = _moved(_revolved(np.array([0.0, foot, foot, 0.0]), np.array([0.0, 0.02, 0.12, 0.12])), (0.0, pole, 0.0))
    return [shade, stem, base]


def _animal_parts(rng: np.random.Generator) -> list[Part]:
    """A trunk along z on four legs, with a neck, a head and a tail."""
    long, wide, leg = rng.uniform(0.7, 1.2), rng.uniform(0.25, 0.45), rng.uniform(0.6, 1.3)
    parts = [_ellipsoid(np.array([wide, wide * rng.uniform(0.9, 1.2), long]))]
    thick = rng.uniform(0.07, 0.15)
    for x in (-0.6 * wide, 0.6 * wide):
        for z in (-0.65 * long, 0.65 * long):
            limb = _revolved(
                np.array([thick, 1.1 * thick, 0.8 * thick, 0.7 * thick, 0.0]), leg * np.array([0, 0.3, 0.6, 1, 1]), 8
            )
            parts.append(_moved(limb, (x, 0.35 * wide, z), (x, 0.35 * wide, z)))
    neck = rng.uniform(0.2, 0.9)
    head = rng.uniform(0.18, 0.32)
    throat = _ellipsoid(np.array([0.5 * head + 0.05, 0.5 * neck + 0.1, 0.5 * head + 0.05]), 10)
    parts.append(_moved(throat, (0.0, -0.4 * neck, -0.9 * long)))
    parts.append(
        _moved(
            _ellipsoid(np.array([0.8, 0.8, 1.4]) * head, 12),
            (0.0, -0.9 * neck, -long - 0.5 * head),
            (0.0, -0.8 * neck, -long),
        )
    )
    tail = _revolved(np.array([0.0, 0.05, 0.07, 0.05, 0.0]), np.linspace(0, rng.uniform(0.4, 1.0), 5), 8)
    parts.append(_moved(tail, (0.0, -0.1, 0.95 * long), (0.0, -0.1, 0.95 * long)))
    return parts


_PARTS = {
    "box": _box_parts,
    "revolved": _revolved_parts,
    "mug": _mug_parts,
    "lamp": _lamp_parts,
    "animal": _animal_parts,
}
