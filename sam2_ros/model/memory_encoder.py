"""A frame's features and its predicted mask, fused into one memory map (paper section 4, "Memory encoder")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.layers import LayerNorm2d


class MaskDownsampler(nn.Module):
    """(B, 1, S, S) -> (B, dim, S/16, S/16): four stride-2 convolutions, each with four times the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in range(4):
            width_in, width_out = 4**level, 4 ** (level + 1)
            layers += [nn.Conv2d(width_in, width_out, 3, 2, 1), LayerNorm2d(width_out), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(4**4, dim, 1))

    def forward(self, masks_b1hw: Tensor) -> Tensor:
        return self.encoder(masks_b1hw)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, layer norm, two pointwise layers and a learned scale (arXiv 2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bhwc = self.norm(self.dwconv(x_bchw)).permute(0, 2, 3, 1)
        y_bhwc = self.gamma * self.pwconv2(self.act(self.pwconv1(y_bhwc)))
        return x_bchw + y_bhwc.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(dim) for _ in range(2))

    def forward(self, x_bchw: Tensor) -> Tensor:
        for layer in self.layers:
            x_bchw = layer(x_bchw)
        return x_bchw


class MemoryEncoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.d_model
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, 1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, config.memory_dim, 1)

    def forward(self, features_bchw: Tensor, masks_b1hw: Tensor) -> Tensor:
        """Stride-16 features without memory, and masks scaled to -10..10 at model size -> (B, memory_dim, h, w)."""
        x = self.pix_feat_proj(features_bchw) + self.mask_downsampler(masks_b1hw)
        return self.out_proj(self.fuser(x))
