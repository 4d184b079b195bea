"""Memory of the process: keep freed memory for the next step, and retry when memory runs out."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sam2_ros.log_throttle import LogThrottle

T = TypeVar("T")
logger = logging.getLogger(__name__)

_RETRIES_LOGGED = LogThrottle(period_s=60.0)  # a shortage repeats in every image

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or a device had no memory left. The error names no culprit: anything may have taken it."""
    if isinstance(error, MemoryError):
        return True
    # By name: torch's class has moved between modules, and tests without a network do not import torch.
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def free_unused_memory() -> None:
    """Free unused memory: cycles of objects, the device memory that torch caches, free pages of the heap."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def retried_out_of_memory(run: Callable[[], T]) -> T:
    """What ``run`` returns; when memory runs out, unused memory is freed and ``run`` called once more.

    Args:
        run: changes nothing when it raises.

    Raises:
        Exception: what ``run`` raises, the second time where it was memory.
    """
    try:
        return run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {error}"
    # Not in the handler: there the error still references tensors of the failed call.
    free_unused_memory()
    answer = run()
    if _RETRIES_LOGGED.is_due(why):
        logger.warning("out of memory (%s): it was enough once unused memory had been freed", why)
    return answer
