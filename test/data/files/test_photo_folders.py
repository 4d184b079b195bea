"""Which photographs are held out: by scene, by name alone, each folder by its own share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2_ros.data.files.photo_folders import PhotoFolder, is_held_out, list_photos, scene_keys, split_folder


def keys(*names: str, folder: PhotoFolder | None = None) -> list[str]:
    found = scene_keys(folder or PhotoFolder("nowhere"), list(names))
    return [found[name] for name in names]


def make_folder(root: Path, names: list[str]) -> Path:
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / kind / f"{name}.{suffix}").touch()
    return root


def test_the_key_alone_decides() -> None:
    names = [f"{number:012d}" for number in range(2000)]
    held_out = [name for name in names if is_held_out(name, 10)]
    assert held_out[:3] == ["000000000007", "000000000012", "000000000025"], "other photographs than in earlier runs"
    assert 150 < len(held_out) < 250
    assert not any(is_held_out(name, 0) for name in names)


def test_neighbouring_numbers_of_a_source_are_one_scene() -> None:
    first, last, next_ten, other = keys("rail_0030", "rail_0039", "rail_0040", "road_0030")
    assert first == last
    assert len({first, next_ten, other}) == 3


def test_ids_are_no_counters() -> None:
    """COCO's twelve digits and hexadecimal names: neighbours have nothing to do with each other."""
    names = ["coco_000000000540", "coco_000000000542", "oi_00a1ab47", "000000000030", "000000000031"]
    assert keys(*names) == names


def test_a_source_that_is_one_scene_stays_together() -> None:
    folder = PhotoFolder("nowhere", one_scene=("turntable",))
    assert len(set(keys("turntable_0001", "turntable_0700", "turntable_ab", folder=folder))) == 1
    assert len(set(keys("desk_0001", "desk_0700", folder=folder))) == 2


def test_pictures_uploaded_together_are_one_scene(tmp_path: Path) -> None:
    def entry(name: str, upload: str) -> dict[str, str]:
        return {"file": f"{name}.jpg", "flickr_url": f"http://farm1.staticflickr.com/178/{upload}_1c6245ee20_z.jpg"}

    sources = [entry("coco_000000547503", "423174638"), entry("coco_000000475546", "423175046")]
    sources += [entry("coco_000000000599", "8250132140"), {"file": "oi_01.jpg"}]
    (tmp_path / "sources.json").write_text(json.dumps(sources))
    first, second, other, without = keys(
        "coco_000000547503", "coco_000000475546", "coco_000000000599", "oi_01", folder=PhotoFolder(str(tmp_path))
    )
    assert first == second
    assert len({first, other, without}) == 3


@pytest.mark.parametrize("content", ['{"rail": {"repo": "here"}}', "[", "null"])
def test_another_sources_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "sources.json").write_text(content)
    assert keys("coco_000000547503", folder=PhotoFolder(str(tmp_path))) == ["coco_000000547503"]


def test_a_scene_is_on_one_side_and_every_photograph_on_exactly_one(tmp_path: Path) -> None:
    names = [f"{source}_{number:04d}" for source in ("rail", "road", "shop", "desk") for number in range(100)]
    folder = PhotoFolder(str(make_folder(tmp_path, names)), held_out_every=4)
    split = split_folder(folder)
    training, held_out = ({photo.name for photo in side} for side in (split.training, split.held_out))
    assert training | held_out == set(names) and not training & held_out
    assert 0.1 < len(held_out) / len(names) < 0.4
    scene = scene_keys(folder, names)
    assert not {scene[name] for name in training} & {scene[name] for name in held_out}
    assert not split_folder(PhotoFolder(str(tmp_path))).held_out


def test_what_is_listed_has_a_mask(tmp_path: Path) -> None:
    make_folder(tmp_path, ["b", "a", "unmasked"])
    (tmp_path / "masks" / "unmasked.png").unlink()
    (tmp_path / "images" / "notes.txt").touch()
    assert [photo.name for photo in list_photos(tmp_path)] == ["a", "b"]
    with pytest.raises(FileNotFoundError, match=r"expected .*/images/\*.jpg with .*found no pair"):
        list_photos(tmp_path / "nowhere")


def test_hidden_files_are_no_photographs(tmp_path: Path) -> None:
    make_folder(tmp_path, ["cup", "._cup"])
    assert [photo.name for photo in list_photos(tmp_path)] == ["cup"]
