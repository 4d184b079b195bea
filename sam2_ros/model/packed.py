"""Matrix products whose right side is packed once, for all products with it.

On a CPU a product first rearranges its right side into the blocks that the instructions work on, which takes a tenth of
its time or more. For weights that is the same work in every frame, for the keys of attention in every slice of queries.
PyTorch's compiler lays out weights in advance in the same way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.inference import is_cpu_inference, state_of

_WORTH_PRODUCTS = 2**26  # multiplications in a matrix product, half a millisecond; below, overheads dominate


def _packable() -> frozenset[torch.dtype]:
    """Types for which packing was measured to be faster on this processor: x86 with AVX2 or more.

    The operators are internal to PyTorch's compiler, there since torch 2.0, without a guarantee.
    """
    mkldnn = torch.ops.mkldnn
    needed = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    is_measured = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if not is_measured or not torch.backends.mkldnn.is_available() or not all(hasattr(mkldnn, name) for name in needed):
        return frozenset()
    return frozenset((torch.float32, torch.bfloat16) if mkldnn._is_mkldnn_bf16_supported() else (torch.float32,))


_PACKABLE = _packable()
_NAMES = {type(None): ("none", ""), nn.ReLU: ("relu", ""), nn.GELU: ("gelu", "none")}  # in the operator's terms


def pays_packed(right_mc: Tensor, rows: int) -> bool:
    """Whether products of this many rows with ``right_mc`` transposed are faster with ``pack``."""
    return rows * right_mc.numel() >= _WORTH_PRODUCTS and right_mc.dtype in _PACKABLE and is_cpu_inference(right_mc)


def pack(right_mc: Tensor, rows: int) -> Tensor:
    """An opaque tensor for ``packed_product``, optimised for ``rows`` rows on the left; any number works."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(right_mc, rows)
    return packed


def packed_product(
    left_nc: Tensor, packed: Tensor, bias_m: Tensor | None = None, activation: nn.Module | None = None
) -> Tensor:
    """activation(left right^T + bias): (..., N, C) and the packed (M, C) -> (..., N, M)."""
    name, variant = _NAMES[type(activation)]
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left_nc, packed, bias_m, name, [], variant)
    return product


class Linear(nn.Linear):
    """A linear layer that keeps a packed copy of its weight, where that is faster.

    The packed weight is made at the first use and made anew when the plain one has changed. A change through ``.data``
    is noticed at the next ``train()`` or ``eval()`` only.
    """

    _packed: tuple[object, Tensor, Tensor] | None = None  # the weight's state, the weight, and the packed copy

    def forward(self, x: Tensor, activation: nn.Module | None = None) -> Tensor:
        """(..., in_features) -> (..., out_features), followed by a ReLU, an exact GELU or nothing."""
        weight = self.weight
        rows = x.numel() // max(1, x.shape[-1])
        state = state_of(weight) if x.dtype == weight.dtype and pays_packed(weight, rows) else None
        if state is None:
            product = F.linear(x, weight, self.bias)
            return product if activation is None else activation(product)
        kept = self._packed
        if kept is None or kept[0] != state:
            self._packed = kept = state, weight.detach(), pack(weight, rows)
        return packed_product(x, kept[2], self.bias, activation)

    def train(self, mode: bool = True) -> Linear:
        self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        """State for copies and pickles without the packed weight, which supports neither."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}
