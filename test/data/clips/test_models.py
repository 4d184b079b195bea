"""Modelled things become solids: upright, about their middle, with all materials in one texture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.clips.mesh import MovingMesh, render_mesh
from sam2_ros.data.clips.models import ModelLibrary, repainted, solid_of
from sam2_ros.data.files.obj_models import Material, ObjModel

SIZE_PX = 64
# Seen from the front, x to the right and y upwards: a red square below a blue one.
SQUARES = ObjModel(
    np.array([[x, y, 0.0] for y in (0, 1, 2) for x in (0, 1)]),
    np.array([[0, 1, 3], [0, 3, 2], [2, 3, 5], [2, 5, 4]]),
    np.zeros((4, 3, 2)),
    np.array([0, 0, 1, 1]),
    (Material((255, 0, 0), None), Material((0, 0, 255), None)),
)


def picture(model: ObjModel) -> np.ndarray:
    """(S, S, 4) of the model, unturned, in the middle of the frame."""
    solid = solid_of(model)
    points = np.column_stack([SIZE_PX / 2 + 30 * solid.points_v3[:, :2], solid.points_v3[:, 2]])
    surface = render_mesh(MovingMesh(solid.mesh, points[None]), 0, np.eye(3), SIZE_PX)
    assert surface is not None
    frame = np.zeros((SIZE_PX, SIZE_PX, 4), np.uint8)
    frame[surface.region.slices] = surface.maps.sample(solid.texture.rgba_hwc, cv2.BORDER_CONSTANT)
    return frame


def test_a_model_stands_upright_in_the_middle_in_its_colours() -> None:
    frame = picture(SQUARES)
    ys, xs = np.nonzero(frame[..., 3])
    assert abs(ys.mean() - 32) < 1 and abs(xs.mean() - 32) < 1
    assert 1.8 < np.ptp(ys) / np.ptp(xs) < 2.2
    assert tuple(frame[20, 32]) == (0, 0, 255, 255)
    assert tuple(frame[44, 32]) == (255, 0, 0, 255)


def test_textures_are_the_right_way_up_and_show_once_where_they_repeat() -> None:
    texture = np.zeros((32, 32, 3), np.uint8)
    texture[:16] = 250  # light above
    uv = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], dtype=float)
    for scale, shift in ((1.0, 0.0), (1.0, 3.0), (4.0, 0.0)):
        square = ObjModel(
            SQUARES.points_v3[:4],
            SQUARES.triangles_f3[:2],
            scale * uv + shift,
            np.zeros(2, int),
            (Material((0, 0, 0), texture),),
        )
        frame = picture(square)
        assert frame[18, 32, 0] > 200 and frame[46, 32, 0] < 50


def test_flat_faces_have_their_own_normals_and_round_ones_a_common_one() -> None:
    def folded(angle: float) -> np.ndarray:
        """Two squares that meet at an edge."""
        points = np.array([[-1, 0, 0], [0, 0, 0], [0, 1, 0], [-1, 1, 0], [np.cos(angle), 0, np.sin(angle)]])
        points = np.vstack([points, points[4] + [0, 1, 0]])
        faces = np.array([[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]])
        return solid_of(ObjModel(points, faces, np.zeros((4, 3, 2)), np.zeros(4, int), SQUARES.materials)).normals_v3

    sharp, smooth = folded(np.pi / 1.8), folded(0.4)
    assert np.allclose(np.linalg.norm(sharp, axis=1), 1) and np.allclose(np.linalg.norm(smooth, axis=1), 1)
    assert np.allclose(sharp[1], sharp[0])
    assert not np.allclose(smooth[1], smooth[0], atol=0.05)


def test_repainting_changes_colours_alone() -> None:
    solid = solid_of(SQUARES)
    photo = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for seed in range(10):
        other = repainted(solid, np.random.default_rng(seed), photo)
        assert other.mesh is solid.mesh and (other.texture.rgba_hwc[..., 3] == 255).all()
        assert not np.array_equal(other.texture.rgba_hwc, solid.texture.rgba_hwc)


def test_a_library_draws_its_models_and_leaves_damaged_ones_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.obj").write_text("f 1 2 3\n")
    with pytest.raises(ValueError, match="no usable model"):
        ModelLibrary.from_roots([tmp_path]).draw(np.random.default_rng(0))
    assert caplog.text.count("bad.obj") == 1
    (tmp_path / "good.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    library = ModelLibrary.from_roots([tmp_path])
    assert len(library) == 2
    for seed in range(6):
        assert len(library.draw(np.random.default_rng(seed)).points_v3) == 3


def test_without_extent_there_is_no_solid() -> None:
    point = ObjModel(np.zeros((3, 3)), np.array([[0, 1, 2]]), np.zeros((1, 3, 2)), np.zeros(1, int), SQUARES.materials)
    with pytest.raises(ValueError, match="without extent"):
        solid_of(point)
