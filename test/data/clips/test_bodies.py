"""Bodies with limbs swing without tearing, solids show other sides as they turn."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from sam2_ros.data.clips.articulation import JointedBody, find_joints
from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.mesh import MovingMesh, render_mesh
from sam2_ros.data.clips.solids import Solid, Turning, moving_solid, random_solid

SIZE_PX = 128


def lantern() -> Cutout:
    """A disc on a long leg."""
    rgba = np.full((100, 60, 4), 200, np.uint8)
    rgba[..., 3] = 0
    cv2.circle(rgba, (30, 25), 20, (200, 200, 200, 255), -1)
    cv2.rectangle(rgba, (26, 40), (34, 94), (200, 200, 200, 255), -1)
    return Cutout(rgba)


def disc() -> Cutout:
    rgba = np.zeros((80, 80, 4), np.uint8)
    cv2.circle(rgba, (40, 40), 36, (200, 200, 200, 255), -1)
    return Cutout(rgba)


def jointed(cutout: Cutout) -> JointedBody:
    bodies = [find_joints(cutout, np.random.default_rng(seed)) for seed in range(20)]
    return next(body for body in bodies if body is not None and len(body.limbs) == 1)


def mask_of(cutout: Cutout, body: JointedBody, angle: float) -> np.ndarray:
    corners_v2 = body.bend(np.full(len(body.limbs), angle)) + np.array([34.0, 14.0])
    moving = MovingMesh(body.mesh, np.column_stack([corners_v2, np.zeros(len(corners_v2))])[None])
    surface = render_mesh(moving, 0, np.eye(3), SIZE_PX)
    assert surface is not None
    mask = np.zeros((SIZE_PX, SIZE_PX), bool)
    mask[surface.region.slices] = surface.maps.sample(cutout.rgba_hwc, cv2.BORDER_CONSTANT)[..., 3] >= 128
    return mask


@pytest.mark.parametrize("angle", [-0.9, -0.4, 0.4, 0.9])
def test_a_limb_swings_in_one_piece_while_the_trunk_stays(angle: float) -> None:
    cutout = lantern()
    body = jointed(cutout)
    still, swung = mask_of(cutout, body, 0.0), mask_of(cutout, body, angle)
    np.testing.assert_array_equal(still[14:114, 34:94], cutout.rgba_hwc[..., 3] >= 128)
    assert cv2.connectedComponents(swung.astype(np.uint8))[0] == 2  # the ground and one piece
    assert 0.85 < swung.sum() / still.sum() < 1.15
    assert (swung & still)[:50].sum() > 0.95 * still[:50].sum()  # the disc's middle and above
    tip = np.argwhere(swung)[-1]
    moved_px = np.hypot(*(tip - np.argwhere(still)[-1]))
    assert moved_px > 6
    # y points down: turned by a positive angle, what hangs goes to the left.
    assert np.sign(64 - tip[1]) == np.sign(angle)


def test_a_disc_has_no_limbs() -> None:
    assert all(find_joints(disc(), np.random.default_rng(seed)) is None for seed in range(10))


def solids(count: int = 40) -> list[Solid]:
    photo = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return [random_solid(np.random.default_rng(seed), photo) for seed in range(count)]


def silhouette(moving: MovingMesh, t: int) -> np.ndarray:
    to_frame = np.diag([SIZE_PX, SIZE_PX, 1.0])
    surface = render_mesh(moving, t, to_frame, SIZE_PX)
    assert surface is not None
    mask = np.zeros((SIZE_PX, SIZE_PX), bool)
    mask[surface.region.slices] = surface.maps.xy_hw2[..., 0] >= 0
    return mask


def test_solids_are_whole_lit_and_change_their_outline_as_they_turn() -> None:
    changes, spreads = [], []
    for seed, solid in enumerate(solids()):
        rng = np.random.default_rng(seed)
        moving = moving_solid(rng, solid, np.full((4, 2), 0.5), np.full(4, 0.3), Turning(2.0, 0.3, 0.5))
        first, last = silhouette(moving, 0), silhouette(moving, 3)
        assert cv2.connectedComponents(first.astype(np.uint8))[0] == 2
        changes.append((first ^ last).sum() / (first | last).sum())
        assert moving.shade_tv is not None
        spreads.append(np.ptp(moving.shade_tv[0]))
    assert np.median(changes) > 0.1
    assert np.median(spreads) > 0.2


def test_a_box_looks_the_same_whether_its_back_is_left_out_or_hidden() -> None:
    boxes = [solid for solid in solids() if solid.mesh.closed]
    assert len(boxes) >= 5
    for solid in boxes[:5]:
        rng = np.random.default_rng(1)
        moving = moving_solid(rng, solid, np.full((1, 2), 0.5), np.full(1, 0.4), Turning(0.0, 0.0, 0.0))
        open_mesh = replace(moving, mesh=replace(moving.mesh, closed=False))
        near, hidden = (render_mesh(mesh, 0, np.diag([128.0, 128.0, 1.0]), SIZE_PX) for mesh in (moving, open_mesh))
        assert near is not None and hidden is not None
        assert (np.abs(near.maps.xy_hw2[..., 0] - hidden.maps.xy_hw2[..., 0]) > 0.5).mean() < 0.01
