"""COCO's run-length code of a mask, as SA-V stores it: ``{"size": [H, W], "counts": "..."}``.

Pixels are taken column by column. The runs alternate 0, 1, 0, ... and start with zeros (a run of length 0 where the
first pixel is set). In the compressed form each run from the fourth on is stored as the difference to the run two
before; a number is cut into groups of five bits, lowest first; a sixth bit says that more follow; 48 makes it text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Rle(TypedDict):
    """A mask as JSON: ``size`` is [H, W] and ``counts`` the compressed runs."""

    size: list[int]
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Code of a (H, W) bool mask.

    >>> encode_rle(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': '22'}
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"expected a mask as (H, W) bool, got {mask.shape} {mask.dtype}")
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": compress_counts(_runs(mask))}


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The (H, W) bool mask of a code; ``counts`` may be compressed text or a plain list of runs.

    Raises:
        ValueError: the runs do not add up to H * W, one is negative, or the text is cut off.
    """
    height, width = rle["size"]
    counts: str | Sequence[int] = rle["counts"]
    runs = np.asarray(decompress_counts(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(
            f"run-length code does not fit: runs add up to {int(runs.sum())}, "
            f"the mask of {height} x {width} has {height * width} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def compress_counts(runs: Sequence[int]) -> str:
    """The text of a list of runs."""
    letters: list[str] = []
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            group = number & 0x1F
            number >>= 5  # keeps the sign
            # Done when the rest is only sign, and bit 5 of this group says the same sign.
            more = number != (-1 if group & 0x10 else 0)
            letters.append(chr(48 + (group | (0x20 if more else 0))))
    return "".join(letters)


def decompress_counts(text: str) -> list[int]:
    """The runs of a text; ValueError if it is cut off or has a letter that the code does not know."""
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
