"""Folders of images: order, and errors that name what is missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.images import IMAGE_SUFFIXES, UnreadableImageError, list_images, read_image_rgb


def test_numbers_are_ordered_as_numbers_and_other_files_are_left_out(tmp_path: Path) -> None:
    for name in ("frame10.jpg", "frame2.jpg", "frame1.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["frame1.PNG", "frame2.jpg", "frame10.jpg"]


def test_image_is_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((2, 3, 3), (0, 0, 255), np.uint8))
    assert read_image_rgb(tmp_path / "red.png").tolist() == [[[255, 0, 0]] * 3] * 2


def test_folder_without_images_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image in .*\.jpg"):
        list_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(tmp_path / "nowhere")


def test_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.jpg"):
        read_image_rgb(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg"):
        read_image_rgb(tmp_path / "b.jpg")


def scene() -> np.ndarray:
    """Nothing in it is as gray as what a decoder fills in."""
    return cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_file_whose_end_is_missing_is_no_image_with_a_gray_half(tmp_path: Path, suffix: str) -> None:
    whole, torn = tmp_path / f"whole{suffix}", tmp_path / f"torn{suffix}"
    cv2.imwrite(str(whole), scene())
    assert read_image_rgb(whole).shape == (60, 80, 3)
    content = whole.read_bytes()
    for share in (0.0, 0.5, 0.9, 0.99):
        torn.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UnreadableImageError, match=f"torn{suffix}"):
            read_image_rgb(torn)


def test_what_phones_append_to_a_photograph_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "motion.jpg"
    cv2.imwrite(str(path), scene())
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 20)
    assert read_image_rgb(path).shape == (60, 80, 3)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in ("1.jpg", "._1.jpg", ".2.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["1.jpg"]
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="no image in"):
        list_images(tmp_path)
