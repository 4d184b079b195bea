"""Convolutions on a CPU with weights that are laid out once, and the activation in the same pass.

PyTorch lays the weights of a convolution out anew with every call, which for maps as small as nano's takes as long as
the convolution; and an activation of its own goes through memory once more. Its compiler uses the operators below for
the same reason. Results are those of ``conv2d`` up to rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LIMITS = [0.0, 6.0]


@dataclass(frozen=True)
class _Packed:
    key: tuple[object, ...]  # what the layout was made for: these weights, maps of this size
    kernel: Tensor
    weight: Tensor  # of the convolution: as long as it is there, nothing else has its address


_packed: weakref.WeakKeyDictionary[nn.Conv2d, _Packed] = weakref.WeakKeyDictionary()


def keep(weight: Tensor) -> Tensor:
    """The kernel that is just the weights."""
    return weight


def convolve(
    conv: nn.Conv2d,
    x_bchw: Tensor,
    *,
    relu6: bool,
    padding: int = 0,
    make_kernel: Callable[[Tensor], Tensor] = keep,
) -> Tensor:
    """``conv2d`` with the weights, bias, stride and groups of ``conv``.

    Changes of the weights are noticed, but for those through ``weight.data``, which PyTorch does not count.

    Args:
        conv: the convolution; its own padding is not looked at.
        x_bchw: the maps.
        relu6: clamp the result to 0..6.
        padding: px of zeros on all four sides.
        make_kernel: the kernel as a function of ``conv``'s weights alone.
    """
    if not _can_pack(conv, x_bchw):
        y_bchw = F.conv2d(x_bchw, make_kernel(conv.weight), conv.bias, conv.stride, padding, 1, conv.groups)
        return F.relu6(y_bchw, inplace=True) if relu6 else y_bchw
    pad, dilation, stride = [padding] * 2, [1, 1], list(conv.stride)
    key = (conv.weight.data_ptr(), conv.weight._version, x_bchw.shape)
    packed = _packed.get(conv)
    if packed is None or packed.key != key:
        laid_out = _operators()._reorder_convolution_weight(
            make_kernel(conv.weight), pad, stride, dilation, conv.groups, list(x_bchw.shape)
        )
        packed = _packed[conv] = _Packed(key, laid_out, conv.weight.detach())
    activation, limits = ("hardtanh", _LIMITS) if relu6 else ("none", [])
    y: Tensor = _operators()._convolution_pointwise(
        x_bchw, packed.kernel, conv.bias, pad, stride, dilation, conv.groups, activation, limits, ""
    )
    return y


def _operators() -> Any:
    return torch.ops.mkldnn


def _can_pack(conv: nn.Conv2d, x_bchw: Tensor) -> bool:
    """Not in training, nor while a graph is recorded, nor without PyTorch's own operators for it (since 2.1)."""
    return (
        x_bchw.device.type == "cpu"
        and x_bchw.dtype == conv.weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not conv.weight.is_inference()  # it would not count its changes
        and not torch.jit.is_tracing()
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(_operators(), "_reorder_convolution_weight")
    )
