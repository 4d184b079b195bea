"""Layouts of sequences on disk, each made small in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.sequences import LayoutError, open_labelled_images, open_sequences
from sam2_ros.evaluation.images import read_groups


def write_frames(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for level, name in enumerate(names):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((8, 8, 3), 40 * level, np.uint8))


def test_plain_layout_with_masks_for_some_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "cup" / "images", ["00000", "00001", "00002"])
    write_index_png(tmp_path / "cup" / "masks" / "00000.png", np.array([[0, 7], [300, 7]]))
    write_index_png(tmp_path / "cup" / "masks" / "00002.png", np.array([[0, 0], [0, 0]]))
    (tmp_path / "notes").mkdir()
    (sequence,) = open_sequences(tmp_path)
    assert (sequence.name, len(sequence), sequence.annotated_frames) == ("cup", 3, (0, 2))
    masks = sequence.masks(0)
    assert {value: mask.tolist() for value, mask in masks.items()} == {
        7: [[False, True], [False, True]],
        300: [[False, False], [True, False]],
    }
    assert sequence.masks(2) == {}
    assert not sequence.objects_may_overlap
    assert abs(int(sequence.frame_rgb(2).mean()) - 80) <= 2
    with pytest.raises(KeyError):
        sequence.masks(1)


@pytest.mark.parametrize("resolution", ["480p", "."])
def test_davis_and_youtube_layout(tmp_path: Path, resolution: str) -> None:
    for name in ("dog", "bear"):
        write_frames(tmp_path / "JPEGImages" / resolution / name, ["00000", "00005"])
        write_index_png(tmp_path / "Annotations" / resolution / name / "00005.png", np.array([[0, 255]]))
    sequences = open_sequences(tmp_path)
    assert [sequence.name for sequence in sequences] == ["bear", "dog"]
    assert sequences[0].annotated_frames == (1,)
    assert sequences[0].masks(1)[255].tolist() == [[False, True]]


def test_sav_layout_keeps_overlapping_objects_apart(tmp_path: Path) -> None:
    write_frames(tmp_path / "JPEGImages_24fps" / "sav_1", ["00000", "00001", "00004"])
    for folder, frame, values in (
        ("000", "00000", [[1, 1]]),
        ("000", "00004", [[0, 0]]),
        ("001", "00000", [[0, 255]]),
    ):
        write_index_png(tmp_path / "Annotations_6fps" / "sav_1" / folder / f"{frame}.png", np.array(values))
    (sequence,) = open_sequences(tmp_path)
    assert sequence.annotated_frames == (0, 2)
    assert sequence.objects_may_overlap
    assert {value: mask.tolist() for value, mask in sequence.masks(0).items()} == {
        1: [[True, True]],
        2: [[False, True]],
    }
    assert {value: mask.tolist() for value, mask in sequence.masks(2).items()} == {1: [[False, False]]}


def test_a_lower_rate_keeps_each_frame_with_its_masks(tmp_path: Path) -> None:
    names = [f"{index:05d}" for index in range(6)]
    write_frames(tmp_path / "cup" / "images", names)
    for index in (0, 3, 4):
        write_index_png(tmp_path / "cup" / "masks" / f"{names[index]}.png", np.array([[0, index + 1]]))
    thinned = open_sequences(tmp_path)[0].every(2)
    assert [path.stem for path in thinned.frame_paths] == ["00000", "00002", "00004"]
    assert thinned.annotated_frames == (0, 2) and list(thinned.masks(2)) == [5]
    assert open_sequences(tmp_path)[0].every(1) == open_sequences(tmp_path)[0]
    with pytest.raises(ValueError, match="every: expected 1 or more"):
        thinned.every(0)


def test_sequences_come_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in "abc":
        write_frames(tmp_path / name / "images", ["0"])
    assert [sequence.name for sequence in open_sequences(tmp_path, ["c", "a"])] == ["c", "a"]


def test_unknown_sequence_is_named_with_those_that_exist(tmp_path: Path) -> None:
    write_frames(tmp_path / "cup" / "images", ["0"])
    with pytest.raises(LayoutError, match=r"no sequence mug .*cup"):
        open_sequences(tmp_path, ["mug"])


def test_mask_without_a_frame_is_named(tmp_path: Path) -> None:
    write_frames(tmp_path / "cup" / "images", ["00000"])
    write_index_png(tmp_path / "cup" / "masks" / "0.png", np.array([[1]]))
    with pytest.raises(LayoutError, match=r"0\.png has no frame"):
        open_sequences(tmp_path)


def test_unknown_layout_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="JPEGImages_24fps"):
        open_sequences(tmp_path)
    with pytest.raises(LayoutError, match="nowhere"):
        open_sequences(tmp_path / "nowhere")


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
    with pytest.raises(LayoutError, match="no layout known"):
        open_labelled_images(tmp_path)
    write_pair(tmp_path, "a", np.ones((5, 6), int))
    with pytest.raises(ValueError, match=r"size \(4, 6\), got \(5, 6\)"):
        open_labelled_images(tmp_path)[0].read()
    write_index_png(tmp_path / "masks" / "b.png", np.ones((4, 6), int))
    with pytest.raises(LayoutError, match=r"b\.png has no frame"):
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


@pytest.mark.parametrize("layout", ["plain", "davis", "sav"])
def test_hidden_files_and_folders_belong_to_no_sequence(tmp_path: Path, layout: str) -> None:
    """macOS writes "._00000.png" beside "00000.png" on foreign disks, and notebooks leave folders."""
    folders = {
        "plain": ("cup/images", "cup/masks"),
        "davis": ("JPEGImages/cup", "Annotations/cup"),
        "sav": ("JPEGImages_24fps/cup", "Annotations_6fps/cup/000"),
    }
    images, masks = (tmp_path / name for name in folders[layout])
    write_frames(images, ["00000", "00001"])
    write_index_png(masks / "00000.png", np.array([[0, 1]]))
    for path in (images / "._00000.jpg", masks / "._00000.png"):
        path.write_bytes(b"Mac OS X")
    (images.parent if layout != "plain" else tmp_path).joinpath(".ipynb_checkpoints").mkdir()
    (sequence,) = open_sequences(tmp_path)
    assert (sequence.name, len(sequence), sequence.annotated_frames) == ("cup", 2, (0,))
