"""Masks on disk: index PNGs, and COCO's run-length encoding (RLE).

An index PNG holds one object number per pixel, as in DAVIS, YouTube-VOS and MOSE. Gray of 1 to 16 bits, palette (the
index, not the colour) and gray stored as RGB are read; plain gray of 8 or 16 bits is written, because OpenCV writes no
palettes.

COCO's RLE is what SA-V stores: ``{"size": [H, W], "counts": "..."}``. It lists the lengths of runs of 0, 1, 0, ... in
column-major order, the first one 0 if the first pixel is set. In the compressed form each run from the fourth on is
stored as the difference to the run two before; a number is split into groups of five bits, lowest first; a sixth bit
says that more groups follow; adding 48 gives a printable character.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import UnreadableImageError, decode_file

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3  # colour types in a PNG header


def read_index_png(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The object numbers of a PNG, (H, W) uint8 or uint16, exactly as stored (255 stays 255).

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: not a PNG, damaged or cut off, or a colour image.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mask at {path}")
    with path.open("rb") as file:
        head = file.read(33)
    if head[:8] != _SIGNATURE or len(head) < 33:
        raise UnreadableImageError(f"{path}: expected a PNG file (lossy formats change object numbers)")
    bit_depth, color_type = head[24], head[25]
    indexed = _palette_as_gray if color_type == _PALETTE else bytes
    values = decode_file(path, cv2.IMREAD_UNCHANGED, indexed)
    if values.ndim == 3:
        values = _single_channel(values, path)
    if color_type in (_GRAY, _PALETTE) and bit_depth < 8:
        # OpenCV scales gray of few bits to 0..255, which would change the indices.
        values = values // (255 // (2**bit_depth - 1))
    return values


def write_index_png(path: Path, values: NDArray[np.integer]) -> None:
    """Write object numbers (H, W), 0..65535, as gray PNG: 16 bit if a value exceeds 255, else 8 bit.

    A missing folder is created.

    Raises:
        ValueError: another shape or range.
        OSError: the file could not be written.
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
    """The same PNG without its palette, so that a decoder returns the indices.

    A palette image stores its indices exactly as a gray image stores its levels; only the header differs.
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


def _single_channel(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """The values of a gray image that was saved as colour, with or without alpha."""
    first = values[..., 0]
    if not all((values[..., channel] == first).all() for channel in range(1, min(3, values.shape[2]))):
        raise UnreadableImageError(f"{path}: expected object numbers (gray or palette PNG), got a colour image")
    return np.ascontiguousarray(first)


class Rle(TypedDict):
    """A mask as JSON: ``size`` is [H, W] and ``counts`` the compressed runs (bytes as pycocotools gives them)."""

    size: list[int]
    counts: str | bytes


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """The RLE of a (H, W) bool mask.

    >>> encode_rle(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': '22'}
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a mask as (H, W) bool, got {mask.shape} {mask.dtype}")
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": compress_counts(_runs(mask))}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The (H, W) bool mask of an RLE; ``counts`` may be compressed text, as str or bytes, or a plain list of runs.

    Raises:
        ValueError: the runs do not add up to H * W, one is negative, or the text is truncated or not ASCII.
    """
    height, width = rle["size"]
    counts: str | bytes | Sequence[int] = rle["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    runs = np.asarray(decompress_counts(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(
            f"run-length code does not fit: runs add up to {int(runs.sum())}, "
            f"the mask of {height} x {width} has {height * width} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def compress_counts(runs: Sequence[int]) -> str:
    """The compressed text of a list of runs."""
    letters: list[str] = []
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            group = number & 0x1F
            number >>= 5  # keeps the sign
            # Done when only sign bits are left and the top bit of this group is the same.
            more = number != (-1 if group & 0x10 else 0)
            letters.append(chr(48 + (group | (0x20 if more else 0))))
    return "".join(letters)


def decompress_counts(text: str) -> list[int]:
    """The runs of a compressed text; ValueError if it is truncated or has an invalid character."""
    runs: list[int] = []
    number, shift = 0, 0
    for position, letter in enumerate(text):
        group = ord(letter) - 48
        if not 0 <= group < 64:
            raise ValueError(f"letter {letter!r} at position {position} does not occur in a run-length code")
        number |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number, shift = 0, 0
    if shift:
        raise ValueError("run-length code ends in the middle of a number")
    return runs


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    if mask.size == 0:
        return [0]
    column_major = mask.ravel(order="F")
    starts = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    edges = np.concatenate(([0], starts, [column_major.size]))
    runs = np.diff(edges).tolist()
    return [0, *runs] if column_major[0] else runs
