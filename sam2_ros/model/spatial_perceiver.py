"""EdgeTAM's memory (arXiv 2501.07256, section 3.2): a frame's memory map becomes a few latent tokens.

Half of the latents attend to the whole map, the others to one window each, which preserves where things are in the
image. Memory attention then has the same number of keys per frame for any image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam2_ros.model.attention import RotaryAttention
from sam2_ros.model.config import ModelConfig, PerceiverSpec
from sam2_ros.model.hiera import split_windows
from sam2_ros.model.position_encoding import rotary_table, rotate_pairs, sine_map
from sam2_ros.model.softmax_attention import softmax_attention

_EXPANSION = 4  # of the feed-forward parts


class MapMemory(nn.Module):
    """SAM 2's memory: the unchanged map of the memory encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.memory_dim = config.memory_dim

    def forward(self, map_bchw: Tensor) -> Tensor:
        return map_bchw

    def places(self, side: int, device: torch.device) -> Tensor:
        """(side^2, memory_dim): position encoding of the tokens of a map with this side."""
        return sine_map(self.memory_dim, side, side, device)[0].flatten(1).T


class LatentCrossAttention(nn.Module):
    """Latents attend to tokens, with one head; positions are added to keys *and* values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_x = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents_blc: Tensor, x_bnc: Tensor, place_nc: Tensor | None) -> Tensor:
        k, v = self.to_kv(self.norm_x(x_bnc)).chunk(2, dim=-1)
        if place_nc is not None:
            k, v = k + place_nc, v + place_nc
        q = self.to_q(self.norm_latents(latents_blc))
        return self.to_out(_one_head(q, k, v))


class LatentSelfAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents_blc: Tensor) -> Tensor:
        normed = self.norm(latents_blc)
        k, v = self.to_kv(normed).chunk(2, dim=-1)
        return self.to_out(_one_head(self.to_q(normed), k, v))


def _one_head(q_bnc: Tensor, k_bmc: Tensor, v_bmc: Tensor) -> Tensor:
    return softmax_attention(q_bnc[:, None], k_bmc[:, None], v_bmc[:, None])[:, 0]


def _feed_forward(dim: int) -> nn.Sequential:
    inner = _EXPANSION * dim
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, inner, bias=False), nn.GELU(), nn.Linear(inner, dim, bias=False)
    )


class PerceiverLayer(nn.Module):
    """Cross-attention, feed-forward, self-attention, feed-forward; each pre-norm and with a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = LatentCrossAttention(dim)
        self.ff = _feed_forward(dim)
        self.self_attn = LatentSelfAttention(dim)
        self.self_ff = _feed_forward(dim)

    def forward(self, latents_blc: Tensor, x_bnc: Tensor, place_nc: Tensor | None) -> Tensor:
        latents_blc = latents_blc + self.attn(latents_blc, x_bnc, place_nc)
        latents_blc = latents_blc + self.ff(latents_blc)
        latents_blc = latents_blc + self.self_attn(latents_blc)
        return latents_blc + self.self_ff(latents_blc)


class SpatialPerceiver(nn.Module):
    """(B, memory_dim, h, w) memory maps -> (B, memory_dim, 2 * grid, grid) latents.

    The latents are laid out as a map, so that they can be stored like one. Those of the upper half have attended to the
    whole map, those of the lower half, a grid, to one window each; both went through the same layers.
    """

    def __init__(self, config: ModelConfig, spec: PerceiverSpec) -> None:
        super().__init__()
        dim = config.memory_dim
        self.grid = spec.grid
        self.latents = nn.Parameter(torch.randn(spec.grid**2, dim))
        self.latents_2d = nn.Parameter(torch.randn(spec.grid**2, dim))
        self.layers = nn.ModuleList(PerceiverLayer(dim) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, map_bchw: Tensor) -> Tensor:
        batch, channels, height, width = map_bchw.shape
        place_nc = sine_map(channels, height, width, map_bchw.device)[0].flatten(1).T
        map_bhwc = map_bchw.permute(0, 2, 3, 1)
        whole = self._look(self.latents.expand(batch, -1, -1), map_bhwc.flatten(1, 2), place_nc)
        windows = split_windows(map_bhwc, width // self.grid).flatten(1, 2)  # (B * grid^2, window^2, C)
        one_each = self.latents_2d[:, None].repeat(batch, 1, 1)
        local = self._look(one_each, windows, None).view(batch, -1, channels)
        both_bmc = self.norm(torch.cat((whole, local), dim=1))
        return both_bmc.transpose(1, 2).unflatten(2, (2 * self.grid, self.grid))

    def _look(self, latents_blc: Tensor, x_bnc: Tensor, place_nc: Tensor | None) -> Tensor:
        for layer in self.layers:
            latents_blc = layer(latents_blc, x_bnc, place_nc)
        return latents_blc

    def places(self, side: int, device: torch.device) -> Tensor:
        """(2 * grid^2, memory_dim): zero for latents of the whole map, the centre of the window for the others.

        ``side`` is ignored: maps of any side have equally many windows.
        """
        local_nc = sine_map(self.latents.shape[1], self.grid, self.grid, device)[0].flatten(1).T
        return torch.cat((torch.zeros_like(local_nc), local_nc))


class LatentRotaryAttention(RotaryAttention):
    """Memory attention over the perceiver's latents: those of windows are rotated by their window's grid position."""

    def __init__(self, config: ModelConfig, spec: PerceiverSpec) -> None:
        super().__init__(config.d_model, 1, config.memory_dim)
        self.grid = spec.grid

    def turn_keys(self, k_bhmc: Tensor, grid_hw: Sequence[int], num_unplaced: int) -> Tensor:
        """The first half of each frame's keys has no position; ``grid_hw``, which is the queries', is ignored."""
        placed = k_bhmc.shape[2] - num_unplaced
        frames_bhrnc = k_bhmc[:, :, :placed].unflatten(2, (-1, 2 * self.grid**2))
        whole, local = frames_bhrnc.chunk(2, dim=3)
        table = rotary_table(k_bhmc.shape[-1], self.grid, self.grid, k_bhmc.device)
        turned = rotate_pairs(local.flatten(2, 3), *table).view(local.shape)
        return torch.cat((torch.cat((whole, turned), dim=3).flatten(2, 3), k_bhmc[:, :, placed:]), dim=2)
