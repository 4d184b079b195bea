"""Folders of images: order, and errors that name what is missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.images import list_images, read_image_rgb


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
