"""Image files: list a folder in natural order, read and write RGB."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.integrity import complaint_about

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


class UnreadableImageError(ValueError):
    """A file that exists and is not a whole image; the message begins with its path."""


def is_hidden(path: Path) -> bool:
    """Whether the name begins with a dot: macOS writes "._1.jpg" beside "1.jpg" on foreign disks, which is no image."""
    return path.name.startswith(".")


def list_images(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in natural order ("2.jpg" before "10.jpg"), without hidden files.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images, found none at {folder}")
    shown = [path for path in folder.iterdir() if not is_hidden(path)]
    paths = [path for path in shown if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
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
        UnreadableImageError: it cannot be read or decoded, or its end is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    return cv2.cvtColor(np.asarray(decode_file(path, cv2.IMREAD_COLOR), np.uint8), cv2.COLOR_BGR2RGB)


def decode_file(
    path: Path, mode: int, change: Callable[[bytes], bytes] = lambda content: content
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The pixels of an image file as OpenCV has them.

    Args:
        path: of the file.
        mode: OpenCV's flags, such as ``cv2.IMREAD_COLOR``.
        change: of the content before it is decoded.

    Raises:
        UnreadableImageError: it cannot be read or decoded, or its end is missing.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror or error}") from error
    if complaint := complaint_about(content):  # some decoders fill what is missing with gray
        raise UnreadableImageError(f"{path} {complaint}")
    try:
        pixels = cv2.imdecode(np.frombuffer(change(content), np.uint8), mode)
    except cv2.error:  # an empty file, or one of more pixels than OpenCV reads
        pixels = None
    if pixels is None:
        raise UnreadableImageError(f"{path} is not an image that can be read (damaged, or of an unknown kind)")
    return pixels


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
