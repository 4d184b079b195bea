"""The renderer of meshes on squares small enough to be written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sam2_ros.data.clips.mesh import OUTSIDE, Mesh, MovingMesh, render_mesh

SIZE_PX = 8
SQUARE = np.array([[0, 1, 2], [0, 2, 3]])
TEXTURE = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
CORNERS = np.array([[2.0, 1.0, 0.0], [5.0, 1.0, 0.0], [5.0, 4.0, 0.0], [2.0, 4.0, 0.0]])


def drawn(moving: MovingMesh) -> np.ndarray:
    """(S, S) texture x where something is drawn, else NaN."""
    surface = render_mesh(moving, 0, np.eye(3), SIZE_PX)
    assert surface is not None
    frame = np.full((SIZE_PX, SIZE_PX), np.nan)
    frame[surface.region.slices] = np.where(surface.maps.xy_hw2[..., 0] == OUTSIDE, np.nan, surface.maps.xy_hw2[..., 0])
    return frame


def test_a_square_covers_its_pixels_and_spreads_its_texture_over_them() -> None:
    frame = drawn(MovingMesh(Mesh(SQUARE, TEXTURE), CORNERS[None]))
    covered = np.zeros((SIZE_PX, SIZE_PX), bool)
    covered[1:5, 2:6] = True
    np.testing.assert_array_equal(~np.isnan(frame), covered)
    np.testing.assert_allclose(frame[1:5, 2:6], np.tile([0, 10 / 3, 20 / 3, 10], (4, 1)), atol=1e-4)


def test_the_nearer_triangle_wins_in_whatever_order_they_come() -> None:
    far = CORNERS + np.array([0.0, 0.0, 5.0])
    both = np.concatenate([CORNERS, far + np.array([1.0, 0.0, 0.0])])
    uv = np.concatenate([np.full((4, 2), 1.0), np.full((4, 2), 2.0)])
    for triangles in (np.concatenate([SQUARE, SQUARE + 4]), np.concatenate([SQUARE + 4, SQUARE])):
        frame = drawn(MovingMesh(Mesh(triangles, uv), both[None]))
        np.testing.assert_allclose(frame[2, 2:7], [1, 1, 1, 1, 2], atol=1e-5)


def test_a_closed_mesh_hides_what_is_turned_away() -> None:
    moving = MovingMesh(Mesh(SQUARE, TEXTURE, closed=True), CORNERS[None])
    assert np.isfinite(drawn(moving)).sum() == 16
    turned = replace(moving, mesh=replace(moving.mesh, triangles_f3=SQUARE[:, ::-1]))
    assert render_mesh(turned, 0, np.eye(3), SIZE_PX) is None


def test_neighbouring_triangles_leave_no_crack() -> None:
    rng = np.random.default_rng(0)
    steps = np.linspace(0, 1, 9)
    x, y = (grid.ravel() for grid in np.meshgrid(steps, steps))
    first = (np.arange(8)[:, None] * 9 + np.arange(8)).ravel()
    cells = np.concatenate([np.stack([first, first + 1, first + 10], 1), np.stack([first, first + 10, first + 9], 1)])
    for _ in range(5):
        inner = (x > 0) & (x < 1) & (y > 0) & (y < 1)
        wobble = rng.uniform(-0.4, 0.4, (2, len(x))) * inner
        corners = np.stack([x * 7 + wobble[0], y * 7 + wobble[1], 0 * x], axis=1)
        assert np.isfinite(drawn(MovingMesh(Mesh(cells, np.stack([x, y], 1)), corners[None]))).all()


def test_shade_is_spread_between_the_corners() -> None:
    moving = MovingMesh(Mesh(SQUARE, TEXTURE), CORNERS[None], np.array([[1.0, 4.0, 4.0, 1.0]]))
    surface = render_mesh(moving, 0, np.eye(3), SIZE_PX)
    assert surface is not None and surface.shade_hw is not None
    np.testing.assert_allclose(surface.shade_hw[0], [1, 2, 3, 4], atol=1e-5)


def test_a_mesh_out_of_view_is_nothing() -> None:
    assert render_mesh(MovingMesh(Mesh(SQUARE, TEXTURE), CORNERS[None] + [20.0, 0, 0]), 0, np.eye(3), SIZE_PX) is None
