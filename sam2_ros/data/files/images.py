"""Image files: list a folder in natural order, read and write RGB."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def list_images(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in natural order ("2.jpg" before "10.jpg").

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images, found none at {folder}")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise FileNotFoundError(f"no image in {folder}; looked for names that end in {', '.join(IMAGE_SUFFIXES)}")
    return tuple(sorted(paths, key=lambda path: natural_key(path.name)))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which "a2" comes before "a10"."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def read_image_rgb(path: Path) -> NDArray[np.uint8]:
    """Read (H, W, 3) uint8 RGB, rotated as the EXIF orientation says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: OpenCV cannot decode the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    image_bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image_bgr is None:
        raise ValueError(f"{path} is not an image that can be read (damaged, or of an unknown kind)")
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)


def write_image_rgb(path: Path, image_rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix; a missing folder is created.

    Raises:
        OSError: the file could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise OSError(f"OpenCV could not write {path}: expected a name that ends in {', '.join(IMAGE_SUFFIXES)}")
    path.write_bytes(encoded.tobytes())
