"""Multi-head attention as in SAM's decoder, and its rotary form for memory attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_ros.model.inference import is_cpu_inference
from sam2_ros.model.packed import Linear
from sam2_ros.model.position_encoding import rotary_table, rotate_pairs
from sam2_ros.model.softmax_attention import prefers_products, softmax_attention

_CACHED_KEYS = 2**20  # number of key values, over all maps, that stay in the cache while they are rotated


class Attention(nn.Module):
    """Attention with separate query, key and value inputs, optionally at a reduced inner width.

    Args:
        dim: width of queries and output.
        num_heads: heads; must divide ``dim // downsample``.
        downsample: inner width = ``dim // downsample``.
        key_value_dim: width of keys and values when it differs from ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, downsample: int = 1, key_value_dim: int | None = None) -> None:
        super().__init__()
        inner, source = dim // downsample, key_value_dim or dim
        self.num_heads = num_heads
        self.q_proj = Linear(dim, inner)
        self.k_proj = Linear(source, inner)
        self.v_proj = Linear(source, inner)
        self.out_proj = Linear(inner, dim)

    def split_heads(self, x_bnc: Tensor) -> Tensor:
        return x_bnc.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def attend(
        self,
        q_bhnc: Tensor,
        k_bhnc: Tensor,
        v_bhnc: Tensor,
        valid_bm: Tensor | None = None,
        bias_m: Tensor | None = None,
    ) -> Tensor:
        out_bhnc = softmax_attention(q_bhnc, k_bhnc, v_bhnc, valid_bm, bias_m)
        return self.out_proj(out_bhnc.transpose(1, 2).flatten(2))

    def forward(self, q_bnc: Tensor, k_bmc: Tensor, v_bmc: Tensor) -> Tensor:
        """(B, N, dim) queries over (B, M, key_value_dim) keys and values -> (B, N, dim)."""
        return self.attend(
            self.split_heads(self.q_proj(q_bnc)),
            self.split_heads(self.k_proj(k_bmc)),
            self.split_heads(self.v_proj(v_bmc)),
        )


@dataclass(frozen=True)
class Keys:
    """What queries attend to."""

    k_bhmc: Tensor  # rotated by their positions
    v_bmc: Tensor  # input of the value projection
    valid_bm: Tensor | None = None  # bool, False for keys that are masked out; None: all are valid
    bias_m: Tensor | None = None  # added to the scores of each key; None: no bias


class RotaryAttention(Attention):
    """Attention whose queries and keys are rotated by their position in the image (axial RoPE).

    Keys may hold several maps of the queries' size one after another (one per memory) and, at their end, tokens
    without a position in the image (object pointers), which are not rotated. Subclasses serve other layouts of keys.
    """

    def __init__(self, dim: int, num_heads: int, key_value_dim: int | None = None) -> None:
        super().__init__(dim, num_heads, key_value_dim=key_value_dim)

    def turn_keys(self, k_bhmc: Tensor, grid_hw: Sequence[int], num_unplaced: int) -> Tensor:
        """Keys rotated by their positions; the last ``num_unplaced`` have none."""
        cos, sin = rotary_table(k_bhmc.shape[-1], *grid_hw, k_bhmc.device)
        placed = k_bhmc.shape[2] - num_unplaced
        in_parts = k_bhmc.numel() > _CACHED_KEYS and is_cpu_inference(k_bhmc)
        maps = k_bhmc[:, :, :placed].split(cos.shape[0] if in_parts else placed, dim=2)
        return torch.cat([*(rotate_pairs(part, cos, sin) for part in maps), k_bhmc[:, :, placed:]], dim=2)

    def choose_keys(self, keys: Keys, grid_hw: Sequence[int], num_unplaced: int) -> Keys:
        """The keys to attend to, in place of all rotated keys; here all of them."""
        return keys

    def forward_on_grid(
        self,
        q_bnc: Tensor,
        k_bmc: Tensor,
        v_bmc: Tensor,
        grid_hw: tuple[int, int],
        num_unplaced: int = 0,
        valid_bm: Tensor | None = None,
    ) -> Tensor:
        """As ``forward``, with N = grid_hw[0] * grid_hw[1] queries and M = R * N + num_unplaced keys.

        Queries of batch 1 serve every batch element of the keys. Keys that are False in ``valid_bm`` are masked out.
        """
        q = self.split_heads(self.q_proj(q_bnc))
        k = self.split_heads(self.k_proj(k_bmc))
        q = rotate_pairs(q, *rotary_table(q.shape[-1], *grid_hw, q.device)).expand(k.shape[0], -1, -1, -1)
        k = self.turn_keys(k, grid_hw, num_unplaced)
        keys = self.choose_keys(Keys(k, v_bmc, valid_bm), grid_hw, num_unplaced)
        k, v_bmc, valid_bm, bias_m = keys.k_bhmc, keys.v_bmc, keys.valid_bm, keys.bias_m
        value_width = v_bmc.shape[2]
        if valid_bm is None and self.num_heads == 1 and value_width < q.shape[3] and prefers_products(q, value_width):
            # The weights of one head sum to one, so values can be averaged at their own smaller width and projected
            # afterwards.
            mean_bnc = softmax_attention(q, k, v_bmc[:, None], bias_m=bias_m)[:, 0]
            return self.out_proj(self.v_proj(mean_bnc))
        return self.attend(q, k, self.split_heads(self.v_proj(v_bmc)), valid_bm, bias_m)
