"""Models of things as Wavefront OBJ files with their materials, in folders or in furniture archives (.sh3f, .zip)."""

from __future__ import annotations

import lzma
import posixpath
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.integrity import MAX_PIXELS, complaint_about
from sam2_ros.regular_files import check_kind

LARGEST_BYTES = 64 << 20  # of a model, its materials or a texture
# What a damaged, encrypted or strangely packed archive raises, and a file that cannot be read.
_UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_GREY = (170.0, 170.0, 170.0)


@dataclass(frozen=True)
class ModelFile:
    """One .obj file, perhaps inside an archive."""

    root: Path  # a folder or an archive
    name: str  # path inside it

    def read(self, name: str) -> bytes | None:
        """A file beside the model, by its path inside the root; None if there is none.

        Raises:
            ValueError: it is damaged, encrypted or larger than ``LARGEST_BYTES``, or the name leads out of the root.
        """
        if posixpath.isabs(name) or posixpath.normpath(name).startswith(".."):
            raise ValueError(f"{self.root}: {name} leads out of it")
        try:
            if self.root.is_dir():
                return self._read_in_folder(self.root / name)
            return self._read_in_archive(name)
        except _UNREADABLE as error:
            raise ValueError(f"{self.root}: {name} cannot be read ({type(error).__name__}: {error})") from error

    @staticmethod
    def _read_in_folder(path: Path) -> bytes | None:
        if not path.is_file():
            return None
        if path.stat().st_size > LARGEST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, expected at most {LARGEST_BYTES}")
        return path.read_bytes()

    def _read_in_archive(self, name: str) -> bytes | None:
        with zipfile.ZipFile(self.root) as archive:
            try:
                item = archive.getinfo(name)
            except KeyError:
                return None
            if item.file_size > LARGEST_BYTES:  # a few kilobytes can become gigabytes
                raise ValueError(f"{item.file_size} bytes, expected at most {LARGEST_BYTES}")
            return archive.read(item)


@dataclass(frozen=True)
class Material:
    """What a part of a model looks like."""

    colour_rgb: tuple[float, float, float]  # 0..255
    texture_hwc: NDArray[np.uint8] | None  # (h, w, 3) RGB


@dataclass(frozen=True)
class ObjModel:
    """A model in triangles; axes as in the file, mostly y upwards."""

    points_v3: NDArray[np.float64]
    triangles_f3: NDArray[np.int64]
    uv_f32: NDArray[np.float64]  # (F, 3, 2) texture coordinates of the corners, v upwards; 0 where the file has none
    material_f: NDArray[np.int64]  # (F,) index into materials
    materials: tuple[Material, ...]


def find_models(root: Path, max_bytes: int) -> list[ModelFile]:
    """The .obj files of at most ``max_bytes`` under a folder or in an archive, by name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is no archive.
    """
    if root.is_dir():
        found = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*.obj")}
        archives = [archive for kind in ("*.sh3f", "*.zip") for archive in sorted(root.rglob(kind))]
    else:
        try:
            check_kind(root, root.stat().st_mode)  # opening a FIFO would wait for ever
            with zipfile.ZipFile(root) as archive:
                found = {item.filename: item.file_size for item in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise ValueError(f"{root}: expected a folder or an archive (.sh3f, .zip) of .obj models") from error
        archives = []
    names = sorted(name for name, size in found.items() if name.lower().endswith(".obj") and size <= max_bytes)
    models = [ModelFile(root, name) for name in names]
    for inner in archives:
        models += find_models(inner, max_bytes)
    if not models:
        raise FileNotFoundError(f"{root}: expected .obj models of up to {max_bytes} bytes, found none")
    return models


def read_model(file: ModelFile) -> ObjModel:
    """Read a model; polygons become triangles, faces without a known material are grey.

    Raises:
        ValueError: the file has no faces, or is damaged.
    """
    content = file.read(file.name)
    if content is None:
        raise ValueError(f"{file.root}: {file.name} is gone")
    points, uvs, faces, face_uvs, material_of_face = [], [[0.0, 0.0]], [], [], []
    library: dict[str, int] = {"": 0}
    materials = [Material(_GREY, None)]
    current = 0
    try:
        for line in content.decode("latin-1").splitlines():
            kind, _, rest = line.strip().partition(" ")
            if kind == "v":
                points.append([float(value) for value in rest.split()[:3]])
            elif kind == "vt":
                uvs.append([float(value) for value in rest.split()[:2]])
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                places = [_index(corner[0], len(points), 1) for corner in corners]
                looks = [_index(corner[1], len(uvs), 0) if len(corner) > 1 and corner[1] else 0 for corner in corners]
                for k in range(1, len(corners) - 1):
                    faces.append([places[0], places[k], places[k + 1]])
                    face_uvs.append([looks[0], looks[k], looks[k + 1]])
                    material_of_face.append(current)
            elif kind == "mtllib":
                for name, material in _read_materials(file, rest.strip()).items():
                    library[name] = len(materials)
                    materials.append(material)
            elif kind == "usemtl":
                current = library.get(rest.strip(), 0)
        points_v3, triangles_f3 = np.array(points, dtype=np.float64), np.array(faces, dtype=np.int64)
        uv_f32 = np.array(uvs, dtype=np.float64)[np.array(face_uvs, dtype=np.int64)]
        if (
            not len(faces)
            or triangles_f3.min() < 0
            or triangles_f3.max() >= len(points)
            or not np.isfinite(points).all()
        ):
            raise ValueError("no faces, or corners that are not there")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file.root}: {file.name}: expected a Wavefront OBJ model ({error})") from error
    return ObjModel(points_v3, triangles_f3, uv_f32, np.array(material_of_face), tuple(materials))


def _index(text: str, count: int, first: int) -> int:
    """A list index from an OBJ index, which counts from 1 or, if negative, from the end; ``first`` is subtracted."""
    number = int(text)
    return number - first if number > 0 else count + number


def _read_materials(file: ModelFile, name: str) -> dict[str, Material]:
    folder = posixpath.dirname(file.name)
    found: dict[str, Material] = {}
    try:
        content = file.read(posixpath.join(folder, name))
    except ValueError:
        content = None  # the model is grey without it
    if content is None:
        return found
    current = ""
    for line in content.decode("latin-1").splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "newmtl":
            current = rest.strip()
            found[current] = Material(_GREY, None)
        elif kind == "Kd" and current and len(rest.split()) >= 3:
            red, green, blue = (255 * min(max(float(value), 0.0), 1.0) for value in rest.split()[:3])
            found[current] = Material((red, green, blue), found[current].texture_hwc)
        elif kind == "map_Kd" and current:
            texture = _read_texture(file, posixpath.join(folder, rest.strip().replace("\\", "/")))
            found[current] = Material(found[current].colour_rgb, texture)
    return found


def _read_texture(file: ModelFile, name: str) -> NDArray[np.uint8] | None:
    try:
        content = file.read(posixpath.normpath(name))
    except ValueError:
        return None
    if not content or complaint_about(content, MAX_PIXELS):
        return None
    image_bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image_bgr is None else cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
