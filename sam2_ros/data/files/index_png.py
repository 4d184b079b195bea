"""Index images: PNG files whose pixel values are object numbers, as DAVIS, YouTube-VOS and MOSE use them.

Read are gray of 1 to 16 bits, palette (the index, not the colour), and gray stored as RGB. Written is plain gray, 8 bit
or 16 bit, because OpenCV writes no palettes; the values are the same.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3  # colour types in a PNG header


def read_index_png(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The object numbers of a PNG, (H, W) uint8 or uint16, exactly as stored (255 stays 255).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG, damaged, or a colour image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mask at {path}")
    content = path.read_bytes()
    if content[:8] != _SIGNATURE or len(content) < 33:
        raise ValueError(f"{path}: expected a PNG file (lossy formats change object numbers)")
    bit_depth, color_type = content[24], content[25]
    if color_type == _PALETTE:
        content = _palette_as_gray(content)
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError(f"{path}: damaged PNG")
    if values.ndim == 3:
        values = _single_channel(values, path)
    if color_type in (_GRAY, _PALETTE) and bit_depth < 8:
        # OpenCV stretches gray of few bits to 0..255; an index must not be stretched.
        values = values // (255 // (2**bit_depth - 1))
    return values


def write_index_png(path: Path, values: NDArray[np.integer]) -> None:
    """Write object numbers (H, W), 0..65535, as gray PNG: 16 bit if the array is wider than 8 bit and needs it.

    The folder is made if it is missing. Raises ValueError for another shape or range, OSError if nothing was written.
    """
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer) or values.size == 0:
        raise ValueError(f"expected object numbers as (H, W) integers, got {values.shape} {values.dtype}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"{path}: object numbers must be 0..65535 to fit a PNG, got {low}..{high}")
    stored = values.astype(np.uint8 if high <= 255 else np.uint16)
    done, encoded = cv2.imencode(".png", stored)
    if not done:
        raise OSError(f"OpenCV could not encode {path} ({stored.shape} {stored.dtype})")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())


def _palette_as_gray(content: bytes) -> bytes:
    """The same PNG with the palette taken away, so that a decoder gives the indices.

    A palette image stores its indices bit for bit as a gray image stores its levels: only the header says otherwise.
    """
    pieces = [_SIGNATURE]
    position = len(_SIGNATURE)
    while position + 8 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind = content[position + 4 : position + 8]
        body = content[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IHDR":
            body = body[:9] + bytes([_GRAY]) + body[10:]
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            pieces.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(pieces)


def _single_channel(values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Gray that was saved as colour, with or without transparency."""
    first = values[..., 0]
    if not all((values[..., channel] == first).all() for channel in range(1, min(3, values.shape[2]))):
        raise ValueError(f"{path}: expected object numbers (gray or palette PNG), got a colour image")
    return np.ascontiguousarray(first)
