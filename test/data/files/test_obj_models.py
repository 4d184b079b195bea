"""OBJ files written out in full, in folders and in archives."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files import obj_models
from sam2_ros.data.files.obj_models import ModelFile, find_models, read_model

OBJ = """# a square and a triangle
mtllib thing.mtl
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl red
f 1/1 2/2 3/3 4/4
usemtl wood
f -4//1 -3//1 -2//1
usemtl unknown
f 1 2 3
"""
MTL = """newmtl red
Kd 1.0 0.5 0
newmtl wood
Kd 1 1 1
map_Kd maps\\wood.png
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chair" / "maps").mkdir(parents=True)
    (tmp_path / "chair" / "thing.obj").write_text(OBJ)
    (tmp_path / "chair" / "thing.mtl").write_text(MTL)
    cv2.imwrite(str(tmp_path / "chair" / "maps" / "wood.png"), np.full((4, 4, 3), (10, 20, 30), np.uint8))
    return tmp_path


def archived(folder: Path, name: str) -> Path:
    with zipfile.ZipFile(folder.parent / name, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return folder.parent / name


def test_polygons_become_triangles_with_their_materials(folder: Path) -> None:
    model = read_model(ModelFile(folder, "chair/thing.obj"))
    np.testing.assert_array_equal(model.points_v3[2], [2, 1, 0])
    np.testing.assert_array_equal(model.triangles_f3, [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(model.uv_f32[1], [[0, 0], [1, 1], [0, 1]])
    assert not model.uv_f32[2:].any()
    shown = [model.materials[index] for index in model.material_f]
    assert shown[0].colour_rgb == shown[1].colour_rgb == (255, 127.5, 0)
    assert shown[2].texture_hwc is not None and tuple(shown[2].texture_hwc[0, 0]) == (30, 20, 10)
    assert shown[3].colour_rgb == (170, 170, 170)


def test_an_archive_gives_the_same_model_as_its_folder(folder: Path) -> None:
    archive = archived(folder, f"{folder.name}.sh3f")
    (inside,) = find_models(archive, 10_000)
    assert inside.name == "chair/thing.obj"
    model, same = read_model(inside), read_model(ModelFile(folder, inside.name))
    np.testing.assert_array_equal(model.uv_f32, same.uv_f32)
    np.testing.assert_array_equal(model.materials[2].texture_hwc, same.materials[2].texture_hwc)


def test_models_are_found_in_folders_and_in_archives_inside_them(folder: Path) -> None:
    archived(folder, f"{folder.name}.zip").rename(folder / "more.zip")
    assert [file.root.name for file in find_models(folder, 10_000)] == [folder.name, "more.zip"]
    with pytest.raises(FileNotFoundError, match=r"expected \.obj models of up to 10 bytes"):
        find_models(folder, 10)


@pytest.mark.parametrize("text", ["", "v 0 0 0\nf 1 2 3\n", "v 0 0 zero\n", "v 0 0 0\nv 1 nan 0\nv 1 1 0\nf 1 2 3\n"])
def test_damaged_models_are_rejected_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.obj").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.obj: expected a Wavefront OBJ model"):
        read_model(ModelFile(tmp_path, "bad.obj"))


def test_what_is_no_archive_is_rejected_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.sh3f").write_text("no zip")
    with pytest.raises(ValueError, match="expected a folder or an archive"):
        find_models(tmp_path / "x.sh3f", 1000)


def damaged(archive: Path, name: str) -> None:
    """Flip a byte of a file's packed content."""
    with zipfile.ZipFile(archive) as opened:
        at = opened.getinfo(name).header_offset + 30 + len(name) + 20
    content = bytearray(archive.read_bytes())
    content[at] ^= 0xFF
    archive.write_bytes(content)


def encrypted(archive: Path, name: str) -> None:
    """Set the flag that says so, in both of the file's headers."""
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        content[opened.getinfo(name).header_offset + 6] |= 1
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    content[at + 8] |= 1
    archive.write_bytes(content)


@pytest.mark.parametrize("spoil", [damaged, encrypted])
def test_a_damaged_or_encrypted_model_is_named_and_a_damaged_material_is_grey(
    folder: Path, spoil: Callable[[Path, str], None]
) -> None:
    archive = archived(folder, f"{folder.name}.zip")
    spoil(archive, "chair/thing.mtl")
    model = read_model(ModelFile(archive, "chair/thing.obj"))
    assert {material.colour_rgb for material in model.materials} == {(170, 170, 170)}
    spoil(archive, "chair/thing.obj")
    with pytest.raises(ValueError, match=r"thing\.obj cannot be read"):
        read_model(ModelFile(archive, "chair/thing.obj"))


def test_what_becomes_too_large_is_not_unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obj_models, "LARGEST_BYTES", 400)
    (folder / "chair" / "thing.mtl").write_text(MTL + "# \n" * 400)
    archive = archived(folder, f"{folder.name}.zip")
    for root in (folder, archive):
        model = read_model(ModelFile(root, "chair/thing.obj"))
        assert {material.colour_rgb for material in model.materials} == {(170, 170, 170)}


@pytest.mark.parametrize("name", ["../secret.mtl", "/etc/passwd", "maps/../../../x"])
def test_a_name_does_not_lead_out_of_the_root(folder: Path, name: str) -> None:
    (folder.parent / "secret.mtl").write_text(MTL)
    with pytest.raises(ValueError, match="leads out of it"):
        ModelFile(folder, "chair/thing.obj").read(name)


def test_a_texture_larger_than_a_cameras_image_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obj_models, "MAX_PIXELS", 15)
    model = read_model(ModelFile(folder, "chair/thing.obj"))
    assert all(material.texture_hwc is None for material in model.materials)
