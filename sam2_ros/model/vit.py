"""A plain vision transformer for dense tasks (ViTDet, arXiv 2203.16527), EfficientTAM's trunk: one map at stride 16."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn, zeros

from sam2_ros.model.config import VitSpec
from sam2_ros.model.hiera import MultiScaleBlock
from sam2_ros.model.inference import Kept
from sam2_ros.model.layers import LayerNorm2d

_PATCH_PX = 16


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, _PATCH_PX, _PATCH_PX)

    def forward(self, images_bchw: Tensor) -> Tensor:
        return self.proj(images_bchw).permute(0, 2, 3, 1)


class Vit(nn.Module):
    """Images (B, 3, S, S) -> one map (B, embed_dim, S/16, S/16)."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        dim = spec.embed_dim
        self.channels = (dim,)
        self.grid = spec.position_grid
        self.patch_embed = PatchEmbed(dim)
        # The first entry is for a class token, which checkpoints still contain.
        self.pos_embed = nn.Parameter(zeros(1, 1 + spec.position_grid**2, dim))
        self.blocks = nn.ModuleList(
            MultiScaleBlock(dim, dim, spec.num_heads, 0 if index in spec.global_blocks else spec.window, pool=False)
            for index in range(spec.depth)
        )
        self._kept = Kept()

    def heavy_parts(self) -> list[nn.Module]:
        """The layers that do nearly all of the work, for which bfloat16 pays."""
        return [part for block in self.blocks for part in (block.get_submodule("attn"), block.get_submodule("mlp"))]

    def position_embedding(self, height: int, width: int) -> Tensor:
        """(1, H, W, C): the learned grid, interpolated if the map has another size."""
        grid_1chw = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        if (height, width) != (self.grid, self.grid):
            grid_1chw = F.interpolate(grid_1chw, size=(height, width), mode="bicubic")
        return grid_1chw.permute(0, 2, 3, 1)

    def train(self, mode: bool = True) -> Vit:
        self._kept.forget()
        return super().train(mode)

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        x = self.patch_embed(images_bchw)
        x = x + self._kept.made_of((self.pos_embed,), self.position_embedding, *x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]


class NeckConvs(nn.Module):
    """1x1, norm, 3x3, norm; the convolutions without bias."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False)
        self.norm_0 = LayerNorm2d(dim_out)
        self.conv_3x3 = nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        self.norm_1 = LayerNorm2d(dim_out)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.norm_1(self.conv_3x3(self.norm_0(self.conv_1x1(x_bchw))))


class PlainNeck(nn.Module):
    """The trunk's one map -> a map of ``d_model`` channels at stride 16; there are none at strides 4 and 8."""

    def __init__(self, trunk_channels: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(NeckConvs(channels, d_model) for channels in trunk_channels)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8 and 16; the first two have no channels, because the decoder does not use them."""
        top_bchw = self.convs[0](levels[0])
        batch, _, height, width = top_bchw.shape
        stride4, stride8 = (top_bchw.new_empty(batch, 0, scale * height, scale * width) for scale in (4, 2))
        return stride4, stride8, top_bchw
