"""Telling that memory has run out, of the device or of the machine, and letting go of what is only cached. ROS-free."""

from __future__ import annotations

import sys


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # By name: torch's class has had two homes, and what is tested without a network has no torch.
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def free_cached_memory() -> None:
    """Give back device memory that torch keeps for later; memory in pieces too small is whole again."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
