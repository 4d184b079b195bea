"""Modelled things as solids: chairs, cars, mugs, lamps, people, from OBJ files that a package or an archive brings."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout, random_texture, recoloured
from sam2_ros.data.clips.mesh import Mesh
from sam2_ros.data.clips.solids import Solid
from sam2_ros.data.files.obj_models import Material, ModelFile, ObjModel, find_models, read_model

_log = logging.getLogger(__name__)
_MAX_BYTES = 400_000  # of an .obj file
_MAX_TRIANGLES = 3500  # larger models cost more time than they are worth
_MAX_MATERIALS = 16
_TILE_PX = 96
_KEPT = 600  # solids that stay in memory, about 0.3 MB each; to read one again takes a tenth of a second
_MAX_DRAWS = 50
_SMOOTH = 0.7  # cosine of the angle between a face and its corner's mean normal up to which an edge is round


class ModelLibrary:
    """Solids drawn from model files, each as often as any other; read when they are drawn."""

    def __init__(self, files: Sequence[ModelFile]) -> None:
        if not files:
            raise ValueError("expected at least one model")
        self._files = tuple(files)
        self._kept: OrderedDict[ModelFile, Solid | None] = OrderedDict()

    @classmethod
    def from_roots(cls, roots: Sequence[Path]) -> ModelLibrary:
        """All models of folders and archives; see find_models for the errors."""
        return cls([file for root in roots for file in find_models(root, _MAX_BYTES)])

    def __len__(self) -> int:
        return len(self._files)

    def draw(self, rng: np.random.Generator) -> Solid:
        """Draw a model that can be read and is not too large.

        Raises:
            ValueError: many draws in a row found none.
        """
        for _ in range(_MAX_DRAWS):
            solid = self._solid(self._files[int(rng.integers(len(self._files)))])
            if solid is not None:
                return solid
        raise ValueError(f"{self._files[0].root}: no usable model in {_MAX_DRAWS} draws")

    def _solid(self, file: ModelFile) -> Solid | None:
        if file in self._kept:
            self._kept.move_to_end(file)
            return self._kept[file]
        try:
            model = read_model(file)
            solid = solid_of(model) if len(model.triangles_f3) <= _MAX_TRIANGLES else None
        except ValueError as error:
            _log.warning("%s; left out", error)
            solid = None
        self._kept[file] = solid
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return solid


def repainted(solid: Solid, rng: np.random.Generator, photo_hwc: NDArray[np.uint8]) -> Solid:
    """The solid in other colours; now and then with a surface of its own in every tile of its texture.

    Args:
        solid: of a model.
        rng: random numbers.
        photo_hwc: (H, W, 3) uint8 RGB, lends patches.
    """
    if rng.random() < 0.7:
        return replace(solid, texture=recoloured(solid.texture, rng))
    rgba = solid.texture.rgba_hwc.copy()
    for y in range(0, rgba.shape[0], _TILE_PX):
        for x in range(0, rgba.shape[1], _TILE_PX):
            rgba[y : y + _TILE_PX, x : x + _TILE_PX, :3] = random_texture(rng, photo_hwc, _TILE_PX)
    return replace(solid, texture=Cutout(rgba))


def solid_of(model: ObjModel) -> Solid:
    """The model centred at the origin, upright, as large as other solids, with all its materials in one texture.

    Raises:
        ValueError: it has no extent.
    """
    used, material_f = np.unique(model.material_f, return_inverse=True)
    # If there are more materials than tiles, they share tiles.
    material_f = material_f.ravel() % _MAX_MATERIALS
    tiles = int(np.ceil(np.sqrt(min(len(used), _MAX_MATERIALS))))
    texture = np.zeros((tiles * _TILE_PX, tiles * _TILE_PX, 3), np.uint8)
    for number, index in enumerate(used[:_MAX_MATERIALS]):
        row, column = divmod(number, tiles)
        place = np.s_[row * _TILE_PX : (row + 1) * _TILE_PX, column * _TILE_PX : (column + 1) * _TILE_PX]
        texture[place] = _tile(model.materials[index])
    corner_f2 = np.stack([material_f % tiles, material_f // tiles], axis=1) * _TILE_PX
    uv_v2 = (corner_f2[:, None] + 1.0 + _unwrapped(model.uv_f32) * (_TILE_PX - 3)).reshape(-1, 2)
    # In the file y points up and z towards the viewer, in a frame y points down and z away from the viewer.
    points_v3 = model.points_v3 * (1.0, -1.0, -1.0)
    points_v3 = points_v3 - (points_v3.min(axis=0) + points_v3.max(axis=0)) / 2
    size = float(np.linalg.norm(points_v3, axis=1).max())
    if size <= 0:
        raise ValueError("a model without extent")
    split_v3 = points_v3[model.triangles_f3].reshape(-1, 3) / size
    alpha = np.full(texture.shape[:2], 255, np.uint8)
    return Solid(
        Cutout(np.dstack([texture, alpha])),
        Mesh(np.arange(len(split_v3)).reshape(-1, 3), uv_v2),
        split_v3,
        _normals(points_v3, model.triangles_f3).reshape(-1, 3),
        np.zeros(len(split_v3), np.int64),
        (None,),
    )


def _tile(material: Material) -> NDArray[np.uint8]:
    if material.texture_hwc is None:
        return np.full((_TILE_PX, _TILE_PX, 3), np.round(material.colour_rgb), np.uint8)
    return np.asarray(cv2.resize(material.texture_hwc, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _unwrapped(uv_f32: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, 3, 2) places in a tile, y downwards: textures that repeat over a face show once there."""
    low_f12 = np.floor(uv_f32.min(axis=1, keepdims=True) + 1e-6)
    local_f32 = uv_f32 - low_f12
    local_f32 = local_f32 / np.maximum(local_f32.max(axis=1, keepdims=True), 1.0)
    return np.stack([local_f32[..., 0], 1.0 - local_f32[..., 1]], axis=2)


def _normals(points_v3: NDArray[np.float64], triangles_f3: NDArray[np.int64]) -> NDArray[np.float64]:
    """(F, 3, 3) unit normals of each face's corners: the mean of the adjacent faces' where these are similar."""
    corners_f33 = points_v3[triangles_f3]
    face_f3 = np.cross(corners_f33[:, 1] - corners_f33[:, 0], corners_f33[:, 2] - corners_f33[:, 0])
    mean_v3 = np.zeros_like(points_v3)
    for corner in range(3):
        np.add.at(mean_v3, triangles_f3[:, corner], face_f3)
    face_f3 = face_f3 / np.maximum(np.linalg.norm(face_f3, axis=1, keepdims=True), 1e-12)
    mean_v3 = mean_v3 / np.maximum(np.linalg.norm(mean_v3, axis=1, keepdims=True), 1e-12)
    mean_f33 = mean_v3[triangles_f3]
    alike_f31 = (mean_f33 * face_f3[:, None]).sum(axis=2, keepdims=True) > _SMOOTH
    return np.where(alike_f31, mean_f33, face_f3[:, None])
