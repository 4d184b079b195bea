"""Memory that a step has freed is kept for the next one."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT_FREE_BYTES = 2**30  # at most
# Larger pieces come straight from the system and go back there: aligned as PyTorch wants them, a freed one is too small
# for the next of its size, and several lie about before they are used again.
_KEPT_PIECE_BYTES = 32 * 2**20


def keep_heap() -> bool:
    """Ask the C library not to give memory back between steps; whether it can be asked (it is glibc).

    A step allocates the same tens of MB as the one before. Given back and taken anew, each page of them is a page fault
    and is cleared, which was up to a sixth of nano's time. What is kept is bounded by the most that was in use at once.

    For programs to call at their start: it holds for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return all([mallopt(_TRIM_THRESHOLD, _KEPT_FREE_BYTES), mallopt(_MMAP_THRESHOLD, _KEPT_PIECE_BYTES)])
