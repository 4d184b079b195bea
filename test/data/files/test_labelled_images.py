"""Folders of images with index masks, and the table of their groups."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.index_png import write_index_png
from sam2_ros.data.files.labelled_images import open_labelled_images, read_groups
from sam2_ros.data.files.sequences import LayoutError


def write_pair(folder: Path, name: str, values: np.ndarray | None) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / f"{name}.jpg"), np.full((4, 6, 3), 200, np.uint8))
    if values is not None:
        write_index_png(folder / "masks" / f"{name}.png", values)


def test_instances_are_the_values_of_the_mask(tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint16)
    values[0, 0], values[3, 5] = 255, 40000
    write_pair(tmp_path, "7", values)
    write_pair(tmp_path, "8", None)  # no mask: not part of the set
    (image,) = open_labelled_images(tmp_path)
    image_rgb, masks = image.read()
    assert (image.name, image_rgb.shape) == ("7", (4, 6, 3))
    assert {value: np.argwhere(mask).tolist() for value, mask in masks.items()} == {255: [[0, 0]], 40000: [[3, 5]]}


def test_each_so_manieth_frame_of_each_sequence(tmp_path: Path) -> None:
    for sequence, count in (("cup", 5), ("ball", 2)):
        for index in range(count):
            write_pair(tmp_path / sequence, f"{index:05d}", np.ones((4, 6), int))
    names = [image.name for image in open_labelled_images(tmp_path, every=2)]
    assert names == ["ball/00000", "cup/00000", "cup/00002", "cup/00004"]
    assert [image.name for image in open_labelled_images(tmp_path, 3, ["cup"])] == ["cup/00000", "cup/00003"]
    with pytest.raises(LayoutError, match=r"no sequence dog .* ball, cup"):
        open_labelled_images(tmp_path, sequences=["dog"])


def test_what_does_not_fit_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="there is none"):
        open_labelled_images(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="no image with a mask"):
        open_labelled_images(tmp_path)
    write_pair(tmp_path, "a", np.ones((5, 6), int))
    with pytest.raises(ValueError, match=r"\(5, 6\).*\(4, 6\)"):
        open_labelled_images(tmp_path)[0].read()
    write_index_png(tmp_path / "masks" / "b.png", np.ones((4, 6), int))
    with pytest.raises(LayoutError, match=r"b\.png has no image"):
        open_labelled_images(tmp_path)


def test_groups(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("image,light,group\n7.jpg,x,dark\nbear/00005,x,outdoors\n7,x,indoors\nv1.2,x,dark\n")
    assert read_groups(table) == {"7": ("dark", "indoors"), "bear/00005": ("outdoors",), "v1.2": ("dark",)}
    table.write_text("name,group\n7,dark\n")
    with pytest.raises(ValueError, match="columns image and group"):
        read_groups(table)
    table.write_text("image,group\n7\n")
    with pytest.raises(ValueError, match="line 2"):
        read_groups(table)
