"""Keep the memory that a step frees for the next step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_KEPT_FREE_BYTES = 2**30  # at most this much at the end of the heap
# Larger blocks come from the system and return to it: with PyTorch's alignment a freed block is too small for the next
# one of its size, so several would lie unused.
_KEPT_BLOCK_BYTES = 32 * 2**20


def keep_heap() -> bool:
    """Tell the C library not to return memory to the system between steps.

    Every step allocates the same tens of MB. If they are returned and requested again, each page costs a page fault and
    is cleared, which took up to a sixth of nano's time. One heap serves all threads, because memory in the heaps of
    single threads is returned regardless.

    Affects the whole process; programs call it at their start, before they have threads.

    Returns:
        Whether the C library supports it: only glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    settings = ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _KEPT_FREE_BYTES), (_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES))
    return all(mallopt(option, value) for option, value in settings)
