"""Bodies that bend at joints: limbs found in a cut-out's outline, swung about their joints without tearing it.

A limb is the part of the body near a tip of its outline, where distance is measured inside the body (geodesic). Where a
limb meets the trunk, the angle of rotation grows smoothly from zero to the full angle, so that nothing tears.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.mesh import Mesh, MovingMesh
from sam2_ros.data.clips.motion import projected, smooth_curve

_CELLS = 22  # along the longer side of the cut-out
_FAR = 1e6
_MAX_LIMBS = 4
_SHORTEST_LIMB = 0.32  # of the longest way through the body; shorter ones would be bumps
_THICKEST_JOINT = 0.7  # of the trunk's thickness; what is thicker bends like rubber
_STOUTEST_LIMB = 0.5  # half its thickness at the joint, as a share of its length


@dataclass(frozen=True)
class Limb:
    """A part of the body that swings about one joint."""

    joint_xy: NDArray[np.float64]  # (2,) cut-out px
    weight_v: NDArray[np.float64]  # (V,) share of the joint's angle that a corner of the mesh takes on


@dataclass(frozen=True)
class JointedBody:
    """A cut-out as a mesh with limbs; those nearer to a tip come first."""

    mesh: Mesh
    limbs: tuple[Limb, ...]

    def bend(self, angle_l: NDArray[np.float64]) -> NDArray[np.float64]:
        """(V, 2) corners in cut-out px with each limb turned by its angle in radians."""
        bent_v2 = self.mesh.uv_v2
        for limb, angle in zip(self.limbs, angle_l, strict=True):
            turn_v = limb.weight_v * angle
            cos_v, sin_v = np.cos(turn_v), np.sin(turn_v)
            arm_v2 = bent_v2 - limb.joint_xy
            turned_v2 = np.stack(
                [cos_v * arm_v2[:, 0] - sin_v * arm_v2[:, 1], sin_v * arm_v2[:, 0] + cos_v * arm_v2[:, 1]], axis=1
            )
            bent_v2 = limb.joint_xy + turned_v2
        return bent_v2


def find_joints(cutout: Cutout, rng: np.random.Generator) -> JointedBody | None:
    """Lay a mesh over the cut-out and give it one to four limbs; None where the outline has no part to swing."""
    height, width = cutout.rgba_hwc.shape[:2]
    side_px = max(height, width) / _CELLS
    rows, columns = max(2, round(height / side_px)), max(2, round(width / side_px))
    cover_hw = cv2.resize(cutout.rgba_hwc[..., 3], (columns, rows), interpolation=cv2.INTER_AREA)
    # An eighth of a cell is still part of a thin leg; gaps between legs that are thinner than a cell close.
    body_hw = cover_hw > 32
    body_hw = _largest_part(body_hw)
    if body_hw.sum() < 12:
        return None
    depth_hw = cv2.distanceTransform(np.pad(body_hw, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    trunk = np.unravel_index(int(depth_hw.argmax()), depth_hw.shape)
    from_trunk_hw = _geodesic(body_hw, (int(trunk[0]), int(trunk[1])))
    nearest_hw = np.where(body_hw, from_trunk_hw, -1.0)
    longest = float(nearest_hw.max())
    mesh, cell_of_v = _sheet(cover_hw, width, height)
    limbs: list[Limb] = []
    for _ in range(int(rng.integers(1, _MAX_LIMBS + 1))):
        tip = np.unravel_index(int(nearest_hw.argmax()), nearest_hw.shape)
        if nearest_hw[tip] < _SHORTEST_LIMB * longest or nearest_hw[tip] < 3:
            break
        from_tip_hw = _geodesic(body_hw, (int(tip[0]), int(tip[1])))
        reach = float(from_trunk_hw[tip])
        cell_px = (width / columns, height / rows)
        limbs += _limbs_of_tip(rng, _Way(from_tip_hw, reach), depth_hw, cell_of_v, cell_px)
        nearest_hw = np.minimum(nearest_hw, np.where(body_hw, from_tip_hw, -1.0))
    return JointedBody(mesh, tuple(limbs)) if limbs else None


def swing(rng: np.random.Generator, body: JointedBody, num_frames: int, strength: float) -> NDArray[np.float64]:
    """(T, V, 2) corners in cut-out px: every limb swings on a smooth curve from where it is at first.

    Args:
        strength: 1 swings by up to about 70 degrees.
    """
    angle_tl = np.stack([smooth_curve(rng, num_frames, strength * rng.uniform(0.4, 1.2)) for _ in body.limbs], axis=1)
    return np.stack([body.bend(angle_l) for angle_l in angle_tl])


def placed(joints: JointedBody, corners_tv2: NDArray[np.float64], pose_t33: NDArray[np.float64]) -> MovingMesh:
    """The bent corners in the scene; all at one depth, so that a later triangle lies over an earlier one."""
    scene_tv2 = projected(pose_t33, corners_tv2)
    return MovingMesh(joints.mesh, np.concatenate([scene_tv2, np.zeros((*scene_tv2.shape[:2], 1))], axis=2))


@dataclass(frozen=True)
class _Way:
    """The way from a tip to the trunk."""

    from_tip_hw: NDArray[np.float64]  # geodesic, in cells
    reach: float  # to the trunk's middle


def _limbs_of_tip(
    rng: np.random.Generator,
    way: _Way,
    depth_hw: NDArray[np.float32],
    cell_of_v: NDArray[np.int64],
    cell_px: tuple[float, float],
) -> list[Limb]:
    """No limb, one, or two of which the outer bends against the inner.

    Args:
        way: from the limb's tip.
        depth_hw: how far inside the body a cell is, 0 outside.
        cell_of_v: (V, 4) cells around each corner of the mesh.
        cell_px: sides of a cell.
    """
    shares = [rng.uniform(0.45, 0.85)]
    if way.reach > 8 and rng.random() < 0.5:
        shares.insert(0, shares[0] * rng.uniform(0.4, 0.6))
    body_hw = depth_hw > 0
    known_v = _spread(way.from_tip_hw, body_hw).ravel()[cell_of_v].mean(axis=1)
    found = []
    for share in shares:
        length = share * way.reach
        soft = max(1.5, 0.3 * length)
        ring_hw = body_hw & (np.abs(way.from_tip_hw - length) < 1.0)
        thickest = min(_THICKEST_JOINT * float(depth_hw.max()), max(1.5, _STOUTEST_LIMB * length))
        if not ring_hw.any() or depth_hw[ring_hw].max() > thickest:
            continue
        ys, xs = np.nonzero(ring_hw)
        joint_xy = np.array([(xs.mean() + 0.5) * cell_px[0] - 0.5, (ys.mean() + 0.5) * cell_px[1] - 0.5])
        ramp_v = np.clip((length - known_v) / soft + 0.5, 0.0, 1.0)
        found.append(Limb(joint_xy, ramp_v * ramp_v * (3 - 2 * ramp_v)))
    return found


def _sheet(cover_hw: NDArray[np.uint8], width: int, height: int) -> tuple[Mesh, NDArray[np.int64]]:
    """A mesh over the cells that show anything of the cut-out, and the four cells around each of its corners."""
    rows, columns = cover_hw.shape
    ys, xs = np.mgrid[0 : rows + 1, 0 : columns + 1]
    uv_v2 = np.stack([xs.ravel() * (width / columns) - 0.5, ys.ravel() * (height / rows) - 0.5], axis=1)
    row, column = np.nonzero(cv2.dilate((cover_hw > 0).astype(np.uint8), np.ones((3, 3), np.uint8)))
    first = row * (columns + 1) + column
    below = first + columns + 1
    triangles_f3 = np.concatenate([np.stack([first, first + 1, below + 1], 1), np.stack([first, below + 1, below], 1)])
    above_y, left_x = np.clip(ys.ravel() - 1, 0, rows - 1), np.clip(xs.ravel() - 1, 0, columns - 1)
    low_y, right_x = np.clip(ys.ravel(), 0, rows - 1), np.clip(xs.ravel(), 0, columns - 1)
    around = [y * columns + x for y in (above_y, low_y) for x in (left_x, right_x)]
    return Mesh(triangles_f3, uv_v2), np.stack(around, axis=1)


def _largest_part(body_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(body_hw.astype(np.uint8), connectivity=8)
    if count < 2:
        return body_hw
    return labels_hw == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def _geodesic(body_hw: NDArray[np.bool_], start_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Distance in cells from start, inside the body; _FAR elsewhere."""
    far_hw = np.full(np.add(body_hw.shape, 2), _FAR, np.float32)
    far_hw[start_yx[0] + 1, start_yx[1] + 1] = 0.0
    inside = np.s_[1:-1, 1:-1]
    while True:
        best_hw = far_hw[inside]
        straight = np.minimum.reduce([far_hw[:-2, 1:-1], far_hw[2:, 1:-1], far_hw[1:-1, :-2], far_hw[1:-1, 2:]])
        slanted = np.minimum.reduce([far_hw[:-2, :-2], far_hw[:-2, 2:], far_hw[2:, :-2], far_hw[2:, 2:]])
        nearer_hw = np.where(body_hw, np.minimum(best_hw, np.minimum(straight + 1, slanted + 1.414)), _FAR)
        if (nearer_hw >= best_hw).all():
            return best_hw.astype(np.float64)
        far_hw[inside] = nearer_hw


def _spread(distance_hw: NDArray[np.float64], body_hw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distances continued outside the body by the nearest ones, for the corners that lie there."""
    spread = np.where(body_hw, distance_hw, _FAR).astype(np.float32)
    for _ in range(2):
        grown = cv2.erode(spread, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        spread = np.where(spread >= _FAR / 2, grown, spread)
    return np.where(spread >= _FAR / 2, float(distance_hw[body_hw].max()), spread).astype(np.float64)
