"""Pooled memory maps: memory attention with fewer keys.

As in Efficient Track Anything (arXiv 2411.18933): neighbouring memory tokens are alike, so a square of them is attended
to as one token, with the mean of their keys and values, and weighs as much as the tokens in it. Some networks of
EfficientTAM were trained this way; for others it is an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sam2_ros.model.attention import Keys, RotaryAttention
from sam2_ros.model.config import ModelConfig, PooledMemory


def pool_maps(x_bmc: Tensor, grid_hw: Sequence[int], num_unplaced: int, side: int) -> Tensor:
    """The mean of each square of ``side`` x ``side`` tokens of every map; the last ``num_unplaced`` are kept.

    (B, R * h * w + num_unplaced, C) -> (B, R * h * w / side^2 + num_unplaced, C).
    """
    placed = x_bmc.shape[1] - num_unplaced
    height, width = grid_hw
    squares = x_bmc[:, :placed].unflatten(1, (-1, height // side, side, width // side, side))
    return torch.cat((squares.mean(dim=(3, 5)).flatten(1, 3), x_bmc[:, placed:]), dim=1)


def weight_of_squares(num_tokens: int, num_unplaced: int, side: int, like: Tensor) -> Tensor:
    """(num_tokens,): bias of the score of each pooled key, which makes a square weigh as much as its tokens."""
    bias_m = like.new_full((num_tokens,), 2 * math.log(side))
    bias_m[num_tokens - num_unplaced :] = 0
    return bias_m


class PooledRotaryAttention(RotaryAttention):
    """Memory attention over the mean of each square of a map, after the keys were rotated by their positions."""

    def __init__(self, config: ModelConfig, pooled: PooledMemory) -> None:
        super().__init__(config.d_model, 1, config.memory_dim)
        self.pooled = pooled

    def choose_keys(self, keys: Keys, grid_hw: Sequence[int], num_unplaced: int) -> Keys:
        maps = (keys.v_bmc.shape[1] - num_unplaced) // (grid_hw[0] * grid_hw[1])
        if self.pooled.lone_map_whole and maps == 1:
            return keys
        pooled = self._pool(keys, grid_hw, num_unplaced)
        if self.pooled.lone_map_whole and keys.valid_bm is not None:
            return _whole_where_alone(keys, pooled, maps, num_unplaced)
        return pooled

    def _pool(self, keys: Keys, grid_hw: Sequence[int], num_unplaced: int) -> Keys:
        side = self.pooled.side
        k_bhmc = pool_maps(keys.k_bhmc.flatten(0, 1), grid_hw, num_unplaced, side).unflatten(0, keys.k_bhmc.shape[:2])
        v_bmc = pool_maps(keys.v_bmc, grid_hw, num_unplaced, side)
        valid_bm = keys.valid_bm
        if valid_bm is not None:  # a map is valid as a whole or not
            valid_bm = pool_maps(valid_bm[..., None].float(), grid_hw, num_unplaced, side)[..., 0] > 0
        weight_m = weight_of_squares(v_bmc.shape[1], num_unplaced, side, k_bhmc)
        if self.pooled.weight_in_keys:
            return Keys(k_bhmc + weight_m[:, None], v_bmc, valid_bm)
        return Keys(k_bhmc, v_bmc, valid_bm, weight_m)


def _whole_where_alone(keys: Keys, pooled: Keys, maps: int, num_unplaced: int) -> Keys:
    """Validity of keys if some batch elements have only one map: then the map is valid and its squares are not.

    The shape is the same for all elements: both kinds of keys are present, and the unused ones are invalid.
    """
    assert keys.valid_bm is not None and pooled.valid_bm is not None
    placed = keys.v_bmc.shape[1] - num_unplaced
    valid_brn = keys.valid_bm[:, :placed].unflatten(1, (maps, -1))
    alone_b1 = valid_brn[:, :, 0].sum(dim=1, keepdim=True) == 1
    chosen = valid_brn.to(keys.v_bmc.dtype)
    lone_v = (keys.v_bmc[:, :placed].unflatten(1, (maps, -1)) * chosen[..., None]).sum(dim=1)
    lone_k = (keys.k_bhmc[:, :, :placed].unflatten(2, (maps, -1)) * chosen[:, None, ..., None]).sum(dim=2)
    squares = pooled.v_bmc.shape[1] - num_unplaced
    valid_squares = pooled.valid_bm[:, :squares] & ~alone_b1
    valid_bm = torch.cat((alone_b1.expand(-1, lone_v.shape[1]), valid_squares, pooled.valid_bm[:, squares:]), dim=1)
    bias_m = pooled.bias_m
    return replace(
        pooled,
        k_bhmc=torch.cat((lone_k, pooled.k_bhmc), dim=2),
        v_bmc=torch.cat((lone_v, pooled.v_bmc), dim=1),
        valid_bm=valid_bm,
        bias_m=None if bias_m is None else torch.cat((bias_m.new_zeros(lone_v.shape[1]), bias_m)),
    )
