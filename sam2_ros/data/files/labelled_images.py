"""Single images with index masks: ``DIR/{images,masks}``, or the frames of ``DIR/<sequence>/{images,masks}``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import IMAGE_SUFFIXES, list_images, natural_key, read_image_rgb
from sam2_ros.data.files.index_png import read_index_png
from sam2_ros.data.files.sequences import LayoutError


@dataclass(frozen=True)
class LabelledImage:
    """One image and the file of its instances: each value but 0 is one."""

    name: str  # file name without its ending; with the sequence in front where there is one: "bear/00005"
    image_path: Path
    mask_path: Path

    def read(self) -> tuple[NDArray[np.uint8], dict[int, NDArray[np.bool_]]]:
        """The image, (H, W, 3) uint8 RGB, and the masks of its instances by value, (H, W) bool.

        Raises:
            ValueError: image and mask differ in size, or one of them cannot be read.
        """
        image_rgb, values = read_image_rgb(self.image_path), read_index_png(self.mask_path)
        if values.shape != image_rgb.shape[:2]:
            raise ValueError(
                f"{self.mask_path} is {values.shape}, its image is {image_rgb.shape[:2]}: expected masks of the "
                "image's size"
            )
        return image_rgb, {int(value): values == value for value in np.unique(values) if value != 0}


def open_labelled_images(
    root: Path, every: int = 1, sequences: Sequence[str] | None = None
) -> tuple[LabelledImage, ...]:
    """The images under a folder that have a mask.

    Args:
        root: with ``images`` and ``masks``, or with folders that have both.
        every: take each so manieth image, of each sequence by itself; 1 takes all.
        sequences: only these folders; None takes all.

    Raises:
        LayoutError: no known layout, no image with a mask, a sequence that is not there, a mask without its image.
    """
    if every < 1:
        raise ValueError(f"every: expected 1 or more, got {every}")
    root = Path(root)
    if not root.is_dir():
        raise LayoutError(f"expected a folder of images and masks, there is none at {root}")
    if (root / "images").is_dir():
        if sequences is not None:
            raise LayoutError(f"{root} holds images, not sequences; leave out {', '.join(sequences)}")
        found = _pairs(root, "")[::every]
    else:
        available = sorted((p.name for p in root.iterdir() if (p / "images").is_dir()), key=natural_key)
        wanted = available if sequences is None else list(sequences)
        unknown = [name for name in wanted if name not in available]
        if unknown:
            raise LayoutError(f"no sequence {', '.join(unknown)} in {root}; it has: {', '.join(available) or 'none'}")
        found = [image for name in wanted for image in _pairs(root / name, f"{name}/")[::every]]
    if not found:
        raise LayoutError(
            f"no image with a mask in {root}; expected images/NAME.jpg with masks/NAME.png, there or in folders of it"
        )
    return tuple(found)


def _pairs(folder: Path, prefix: str) -> list[LabelledImage]:
    images = {path.stem: path for path in list_images(folder / "images")}
    masks = {path.stem: path for path in (folder / "masks").glob("*.png")}
    homeless = sorted(masks.keys() - images.keys(), key=natural_key)
    if homeless:
        raise LayoutError(f"{masks[homeless[0]]} has no image of that name; masks are matched to images by file name")
    return [LabelledImage(prefix + name, path, masks[name]) for name, path in images.items() if name in masks]


def read_groups(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Groups of each image from a CSV with the columns ``image`` and ``group``; an image may be in several.

    Images are named as in ``LabelledImage.name``; a file ending is ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, or a row is not complete.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"image", "group"} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: expected a header with the columns image and group, got {rows.fieldnames}")
        groups: dict[str, tuple[str, ...]] = {}
        for row in rows:
            name, group = (row["image"] or "").strip(), (row["group"] or "").strip()
            if not name or not group:
                raise ValueError(f"{path} line {rows.line_num}: expected an image and a group, got {row}")
            name = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
            groups[name] = (*groups.get(name, ()), group)
    return groups
