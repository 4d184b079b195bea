"""The Hiera trunk (arXiv 2306.00989) with windowed absolute position embeddings (arXiv 2311.05613)."""

from __future__ import annotations

from math import ceil

import torch.nn.functional as F
from torch import Tensor, cat, nn, zeros

from sam2_ros.model.config import HieraSpec
from sam2_ros.model.inference import Kept, is_cpu_inference
from sam2_ros.model.layers import MLP
from sam2_ros.model.packed import Linear
from sam2_ros.model.softmax_attention import softmax_attention

_STRIP_BYTES = 16 * 2**20  # size limit of the widest map of a block, for the strip processed at once


def split_windows(x_bhwc: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, size, size, C). H and W are zero-padded up to a multiple of ``size``.

    Padding is attended to without a mask, because the released weights were trained that way.
    """
    h, w, c = x_bhwc.shape[1:]
    x = F.pad(x_bhwc, (0, 0, 0, -w % size, 0, -h % size))
    x = x.unflatten(1, (-1, size)).unflatten(3, (-1, size))  # B, rows, size, columns, size, C
    return x.transpose(2, 3).reshape(-1, size, size, c)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``split_windows`` for an unpadded map of height x width."""
    size, c = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, c).transpose(2, 3)
    return x.reshape(-1, rows * size, columns * size, c)[:, :height, :width]


def pool_2x2(x_bhwc: Tensor) -> Tensor:
    return F.max_pool2d(x_bhwc.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class MultiScaleAttention(nn.Module):
    """Self-attention that can halve the resolution of its queries, and so of its output."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, pool_queries: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool_queries = pool_queries
        self.qkv = Linear(dim_in, 3 * dim_out)
        self.proj = Linear(dim_out, dim_out)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        q, k, v = self.qkv(x_bhwc).chunk(3, dim=-1)
        if self.pool_queries:
            q = pool_2x2(q)
        out_hw = q.shape[1:3]
        q, k, v = (t.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = softmax_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2).unflatten(1, out_hw))


class MultiScaleBlock(nn.Module):
    """A transformer block on (B, H, W, C), windowed when ``window`` > 0; the first of a stage widens and may pool."""

    def __init__(self, dim_in: int, dim_out: int, num_heads: int, window: int, pool: bool) -> None:
        super().__init__()
        self.window = window
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim_in, eps=1e-6)
        self.attn = MultiScaleAttention(dim_in, dim_out, num_heads, pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, activation=nn.GELU)
        if dim_in != dim_out:
            self.proj = Linear(dim_in, dim_out)
        self.widens = dim_in != dim_out

    def forward(self, x_bhwc: Tensor) -> Tensor:
        """Process strips of whole windows one after another: attention does not cross windows."""
        if not self.window or not is_cpu_inference(x_bhwc):
            return self.forward_whole(x_bhwc)
        weight = self.mlp.layers[0].get_parameter("weight")
        hidden_bytes = x_bhwc[..., 0].numel() * weight.shape[0] * weight.element_size()
        rows = -(-x_bhwc.shape[1] // (self.window * max(1, ceil(hidden_bytes / _STRIP_BYTES)))) * self.window
        return cat([self.forward_whole(strip) for strip in x_bhwc.split(rows, dim=1)], dim=1)

    def forward_whole(self, x_bhwc: Tensor) -> Tensor:
        # Products may be in bfloat16. The residual stream stays in float32, because it would lose most precision.
        dtype = self.attn.qkv.weight.dtype
        normed = self.norm1(x_bhwc)
        shortcut = x_bhwc
        if self.widens:
            shortcut = self.proj(normed).to(x_bhwc.dtype)  # autocast would leave it in bfloat16
            shortcut = pool_2x2(shortcut) if self.pool else shortcut
        normed = normed.to(dtype)
        if self.window:
            attended = join_windows(self.attn(split_windows(normed, self.window)), *shortcut.shape[1:3])
        else:
            attended = self.attn(normed)
        x_bhwc = shortcut + attended
        return x_bhwc + self.mlp(self.norm2(x_bhwc).to(dtype))


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images_bchw: Tensor) -> Tensor:
        return self.proj(images_bchw).permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """Images (B, 3, S, S) -> four maps at strides 4, 8, 16, 32 with widths embed_dim * 1, 2, 4, 8."""

    def __init__(self, spec: HieraSpec) -> None:
        super().__init__()
        dim = spec.embed_dim
        self.channels = tuple(dim * 2**stage for stage in range(4))
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(zeros(1, dim, *spec.background_grid))
        self.pos_embed_window = nn.Parameter(zeros(1, dim, spec.window_sizes[0], spec.window_sizes[0]))
        self.blocks = nn.ModuleList()
        self.stage_ends = []
        self._kept = Kept()
        for stage, depth in enumerate(spec.stages):
            for index_in_stage in range(depth):
                first_of_later_stage = stage > 0 and index_in_stage == 0
                # The first block of a stage still works on the finer map, so it uses the window of the stage before.
                window = spec.window_sizes[stage - 1 if first_of_later_stage else stage]
                block = MultiScaleBlock(
                    dim_in=self.channels[stage - 1 if first_of_later_stage else stage],
                    dim_out=self.channels[stage],
                    num_heads=spec.num_heads * 2**stage,
                    window=0 if len(self.blocks) in spec.global_blocks else window,
                    pool=first_of_later_stage,
                )
                self.blocks.append(block)
            self.stage_ends.append(len(self.blocks) - 1)

    def heavy_parts(self) -> list[nn.Module]:
        """The layers that do nearly all of the work, for which bfloat16 pays."""
        return [part for block in self.blocks for part in (block.get_submodule("attn"), block.get_submodule("mlp"))]

    def kept_position_embedding(self, height: int, width: int) -> Tensor:
        """``position_embedding``, cached, because it costs as much as a block."""
        return self._kept.made_of((self.pos_embed, self.pos_embed_window), self.position_embedding, height, width)

    def train(self, mode: bool = True) -> Hiera:
        self._kept.forget()
        return super().train(mode)

    def position_embedding(self, height: int, width: int) -> Tensor:
        """(1, H, W, C): a coarse map interpolated over the image, plus one window's map tiled over it."""
        coarse = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic")
        size = self.pos_embed_window.shape[-1]
        tiled = self.pos_embed_window.tile(1, 1, height // size, width // size)
        return (coarse + tiled).permute(0, 2, 3, 1)

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        x = self.patch_embed(images_bchw)
        x = x + self.kept_position_embedding(*x.shape[1:3])
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                levels.append(x.permute(0, 3, 1, 2))
        return levels
