"""Memory that a step has freed is kept for the next one."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_KEPT_FREE_BYTES = 2**30  # at most, at the heap's end
# Larger pieces come straight from the system and go back there: aligned as PyTorch wants them, a freed one is too small
# for the next of its size, and several lie about before they are used again.
_KEPT_PIECE_BYTES = 32 * 2**20


def keep_heap() -> bool:
    """Ask the C library not to give memory back between steps; whether it can be asked (it is glibc).

    A step allocates the same tens of MB as the one before. Given back and taken anew, each page of them is a page fault
    and is cleared, which was up to a sixth of nano's time. One heap serves all threads, as what threads have for
    themselves is given back all the same.

    For programs to call at their start, before they have threads: it holds for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    settings = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _KEPT_FREE_BYTES), (_MMAP_THRESHOLD, _KEPT_PIECE_BYTES))
    return all(mallopt(option, value) for option, value in settings)
