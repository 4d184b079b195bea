"""The library of photographs: what is drawn how often, from files that are decoded only when they are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.clips import photos as photos_module
from sam2_ros.data.clips.photos import Photo, PhotoLibrary
from sam2_ros.data.files.photo_folders import PhotoFolder

PHOTO_BYTES = 60 * 80 * 4  # image and index


def write_photo(root: Path, stem: str, objects: int = 1) -> None:
    """A grey photograph with some equal boxes, each an object."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    index = np.zeros((60, 80), np.uint8)
    for number in range(objects):
        index[4:16, 4 + 8 * number : 10 + 8 * number] = number + 1
    cv2.imwrite(str(root / "images" / f"{stem}.jpg"), np.full((60, 80, 3), 128, np.uint8))
    cv2.imwrite(str(root / "masks" / f"{stem}.png"), index)


def names_drawn(library: PhotoLibrary, draws: int = 400, with_instances: bool = False) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(library.draw(rng, with_instances=with_instances).name for _ in range(draws))


def test_folders_are_drawn_by_weight_and_every_photograph_of_one_equally_often(tmp_path: Path) -> None:
    """Neither a narrow set with few photographs nor a photograph with many objects counts for more."""
    for number in range(5):
        write_photo(tmp_path / "first", f"big_{number}")
    write_photo(tmp_path / "first", "small_1", objects=8)
    write_photo(tmp_path / "second", "7")
    library = PhotoLibrary.from_folders([PhotoFolder(str(tmp_path / "first"), 3.0), tmp_path / "second"])
    assert len(library) == 7
    for with_instances in (False, True):
        names = names_drawn(library, with_instances=with_instances)
        assert 70 < names["7"] < 130
        assert all(25 < names[name] < 75 for name in ("small_1", *(f"big_{number}" for number in range(5))))


def test_a_photograph_without_objects_is_a_backdrop_only(tmp_path: Path) -> None:
    write_photo(tmp_path, "bare", objects=0)
    write_photo(tmp_path, "full")
    library = PhotoLibrary.from_folders([tmp_path])
    assert set(names_drawn(library, 40)) == {"bare", "full"}
    assert set(names_drawn(library, 40, with_instances=True)) == {"full"}


def test_memory_is_bounded_and_changes_no_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        write_photo(tmp_path, f"p{number}")
    reads: list[str] = []
    read = photos_module.read_image_rgb
    monkeypatch.setattr(photos_module, "read_image_rgb", lambda path: reads.append(path.stem) or read(path))

    def draw_all(cache_mb: float) -> list[Photo]:
        library = PhotoLibrary.from_folders([tmp_path], cache_mb)
        assert len(reads) == 1, "photographs are decoded before they are needed"
        rng = np.random.default_rng(1)
        drawn = []
        for _ in range(60):
            drawn.append(library.draw(rng))
            assert library.decoded_bytes <= cache_mb * 2**20
        return drawn

    names = []
    for photos_kept, fewest, most in ((0, 61, 61), (3, 20, 60), (12, 12, 12)):
        reads.clear()
        names.append([photo.name for photo in draw_all(photos_kept * PHOTO_BYTES / 2**20)])
        assert fewest <= len(reads) <= most, f"room for {photos_kept} of 12"
    assert names[0] == names[1] == names[2]


def test_the_photograph_drawn_last_is_kept_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stem in "abc":
        write_photo(tmp_path, stem)
    library = PhotoLibrary.from_folders([tmp_path], cache_mb=2 * PHOTO_BYTES / 2**20)
    files = {file.name: file for file in library._roots[0]}
    for name in "abab":
        library._read(files[name])
    reads: list[str] = []
    read = photos_module.read_image_rgb
    monkeypatch.setattr(photos_module, "read_image_rgb", lambda path: reads.append(path.stem) or read(path))
    for name in "cbca":  # c pushes a out, because b came after it
        library._read(files[name])
    assert reads == ["c", "a"]


def palette_png(values: np.ndarray) -> bytes:
    """A PNG of 8-bit palette indices, as annotation tools and DAVIS write masks: OpenCV's gray one, changed."""
    import struct
    import zlib

    gray = cv2.imencode(".png", values)[1].tobytes()
    head, rest = gray[:16], gray[33:]
    body = gray[16:25] + b"\x03" + gray[26:29]
    colours = bytes(range(256)) * 3
    palette = struct.pack(">I", 768) + b"PLTE" + colours + struct.pack(">I", zlib.crc32(b"PLTE" + colours))
    return head + body + struct.pack(">I", zlib.crc32(b"IHDR" + body)) + palette + rest


def test_palette_masks_are_read_as_their_indices(tmp_path: Path) -> None:
    write_photo(tmp_path, "p", objects=3)
    path = tmp_path / "masks" / "p.png"
    expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    path.write_bytes(palette_png(expected))
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3, "OpenCV sees colours"
    photo = PhotoLibrary.from_folders([tmp_path]).draw(np.random.default_rng(0))
    np.testing.assert_array_equal(photo.index_hw, expected)


def test_a_damaged_photograph_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for stem in ("good", "torn", "odd"):
        write_photo(tmp_path, stem)
    (tmp_path / "images" / "torn.jpg").write_bytes(b"torn")
    cv2.imwrite(str(tmp_path / "masks" / "odd.png"), np.ones((10, 10), np.uint8))
    library = PhotoLibrary.from_folders([tmp_path])
    assert set(names_drawn(library, 50)) == {"good"}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, "each is told once"
    assert any("torn.jpg is left out" in message for message in said)
    assert any("odd: image is (60, 80) but mask is (10, 10)" in message for message in said)


def test_errors_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images/\*.jpg"):
        PhotoLibrary.from_folders([tmp_path])
    write_photo(tmp_path, "x", objects=0)
    with pytest.raises(ValueError, match=r"expected photographs with a usable instance .* found none in 100 draws"):
        PhotoLibrary.from_folders([tmp_path])
    write_photo(tmp_path, "y")
    for weights in ([1, 2], [-1], [0], [float("nan")]):
        with pytest.raises(ValueError, match="one non-negative weight per root"):
            PhotoLibrary([[]], weights)
    with pytest.raises(ValueError, match="at least one photograph to train on"):
        PhotoLibrary.from_folders([PhotoFolder(str(tmp_path), held_out_every=1)])
