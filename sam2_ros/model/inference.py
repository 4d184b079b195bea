"""Shortcuts for inference: allowed where nothing is trained and no graph is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def is_cpu_inference(x: Tensor) -> bool:
    """Whether shortcuts for a CPU's cache are allowed: ``x`` is on a CPU, without gradients, tracing or autocast.

    Under autocast the shortcuts would keep their type, because autocast converts PyTorch's own products only.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not (torch.jit.is_tracing() or _is_autocasting())


def _is_autocasting() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # until torch 2.3
        return bool(torch.is_autocast_cpu_enabled())


def state_of(*parameters: Tensor) -> tuple[object, ...] | None:
    """A key that is equal while the parameters hold the same values, to cache what was computed from them.

    The caller must keep the parameters alive, or a new tensor may get the address of an old one. Changes through
    ``.data`` are not noticed; after them drop the cache, as ``train`` and ``eval`` do.

    None where nothing may be cached: with gradients or tracing, or for a parameter made in inference mode, which does
    not count its changes.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
        return None
    return tuple((p.data_ptr(), p._version, p.device, p.dtype) for p in parameters)


class Kept:
    """A cache of one tensor computed from parameters, recomputed only when they or its size change."""

    def __init__(self) -> None:
        self._kept: tuple[object, Tensor, Sequence[Tensor]] | None = None

    def made_of(self, parameters: Sequence[Tensor], make: Callable[..., Tensor], *size: int) -> Tensor:
        """``make(*size)``, which depends on the parameters and the size alone; ``state_of`` says when it is kept."""
        state = state_of(*parameters)
        if state is None:
            return make(*size)
        kept = self._kept
        if kept is None or kept[0] != (size, state):
            self._kept = kept = (size, state), make(*size), parameters
        return kept[1]

    def forget(self) -> None:
        self._kept = None
