"""Memory maps at a lower resolution: an approximation of memory attention that looks at fewer keys.

As in Efficient Track Anything (arXiv 2411.18933): neighbouring memory tokens are alike, so a square of them is
looked at as one, with their mean as its key and value, and counts as many times as it has tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pool_maps(x_bmc: Tensor, grid_hw: tuple[int, int], num_unplaced: int, side: int) -> Tensor:
    """The mean of each square of ``side`` x ``side`` tokens of every map; the last ``num_unplaced`` stay as they are.

    (B, R * h * w + num_unplaced, C) -> (B, R * h * w / side^2 + num_unplaced, C).
    """
    placed = x_bmc.shape[1] - num_unplaced
    height, width = grid_hw
    squares = x_bmc[:, :placed].unflatten(1, (-1, height // side, side, width // side, side))
    return torch.cat((squares.mean(dim=(3, 5)).flatten(1, 3), x_bmc[:, placed:]), dim=1)


def weight_of_squares(num_tokens: int, num_unplaced: int, side: int, like: Tensor) -> Tensor:
    """(num_tokens,): what is added to the score of each pooled key, so that a square weighs as much as its tokens."""
    bias_m = like.new_full((num_tokens,), 2 * math.log(side))
    bias_m[num_tokens - num_unplaced :] = 0
    return bias_m
