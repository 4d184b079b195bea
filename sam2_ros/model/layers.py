"""Small layers that several parts of the network share."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.packed import Linear

_FEW_CHANNELS = 4  # with so few, layer_norm along channels is up to ten times slower than operations on whole maps


def chained_1x1(x_bchw: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """``second(first(x))`` of two 1x1 convolutions with nothing between them, fused into one."""
    assert first.bias is not None and second.bias is not None
    dtype = second.weight.dtype
    wide = torch.promote_types(dtype, torch.float32)
    inner, outer = first.weight.flatten(1).to(wide), second.weight.flatten(1).to(wide)
    weight, bias = outer @ inner, outer @ first.bias.to(wide) + second.bias
    return F.conv2d(x_bchw.to(dtype), weight[:, :, None, None].to(dtype), bias.to(dtype))


class MLP(nn.Module):
    """Linear layers with an activation between them: ``dims`` = (in, hidden..., out)."""

    def __init__(self, *dims: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(dims))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, self.activation)
        return self.layers[-1](x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a (B, C, H, W) map, eps 1e-6 as in SAM."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_bchw: Tensor) -> Tensor:
        if x_bchw.shape[1] <= _FEW_CHANNELS:
            centred = x_bchw - x_bchw.mean(1, keepdim=True)
            scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-6)
            return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]
        x_bhwc = x_bchw.permute(0, 2, 3, 1)
        return F.layer_norm(x_bhwc, self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)
