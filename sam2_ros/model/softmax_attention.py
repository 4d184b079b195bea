"""Softmax attention by the fastest method for the device and type."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.packed import pack, packed_product, pays_packed

# Scores computed at once: about what a last-level cache holds, and below the size for which the C library requests new
# memory from the system every time.
_MAX_SCORE_BYTES = 30 * 2**20


def _largest_power_of_two(limit: float) -> int:
    """The largest power of two that is at most ``limit``, and at least 1."""
    return int(2 ** math.floor(math.log2(max(1, limit))))


def prefers_products(q: Tensor, value_width: int) -> bool:
    """Whether two matrix products and a softmax are faster than PyTorch's fused kernel.

    On CPUs that kernel computes bfloat16 at the speed of float32, while their matrix product is several times faster;
    and it needs values as wide as the keys, although narrower values would be less work.
    """
    is_less_work = q.dtype == torch.bfloat16 or value_width < q.shape[-1]
    return q.device.type == "cpu" and is_less_work and not torch.is_grad_enabled()


def softmax_attention(
    q_bhnc: Tensor, k_bhmc: Tensor, v_bhmd: Tensor, valid_bm: Tensor | None = None, bias_m: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(c) + bias) v: (B, heads, N, c) queries, M keys, values of width d -> (B, heads, N, d).

    Args:
        q_bhnc, k_bhmc, v_bhmd: queries, keys and values.
        valid_bm: (B, M) bool, False for keys that are masked out; None: all are valid.
        bias_m: (M,), added to the scores of each key; None: no bias.
    """
    if valid_bm is None and prefers_products(q_bhnc, v_bhmd.shape[-1]):
        q_gnc = (q_bhnc * q_bhnc.shape[-1] ** -0.5).flatten(0, 1)
        return _by_products(q_gnc, k_bhmc.flatten(0, 1), v_bhmd.flatten(0, 1), bias_m).unflatten(0, q_bhnc.shape[:2])
    mask = None if valid_bm is None else valid_bm[:, None, None]
    if bias_m is not None:
        mask = bias_m[None, None, None] if mask is None else torch.where(mask, bias_m, -torch.inf)
    return F.scaled_dot_product_attention(q_bhnc, k_bhmc, v_bhmd, attn_mask=mask)


def _by_products(q_gnc: Tensor, k_gmc: Tensor, v_gmd: Tensor, bias_m: Tensor | None) -> Tensor:
    """Compute as many scores at a time as fit in the cache, in one buffer: fresh memory costs more than the work."""
    groups, n, m = q_gnc.shape[0], q_gnc.shape[1], k_gmc.shape[1]
    max_scores = _MAX_SCORE_BYTES // q_gnc.element_size()
    many = max(1, min(groups, max_scores // (n * m)))  # several whole groups, or one group in slices of rows
    rows = n if n * m <= max_scores else _largest_power_of_two(max_scores / m)  # a power of two is a fifth faster
    if rows < n and pays_packed(k_gmc[:1], rows):
        return _by_packed_products(q_gnc, k_gmc, v_gmd, bias_m, rows)
    out_gnd = q_gnc.new_empty(groups, n, v_gmd.shape[2])
    buffer = q_gnc.new_empty(many * rows * m)
    for group in range(0, groups, many):
        q, k, v = (t[group : group + many] for t in (q_gnc, k_gmc, v_gmd))
        for row in range(0, n, rows):
            q_part = q[:, row : row + rows]
            scores = buffer[: q_part.shape[0] * q_part.shape[1] * m].view(q_part.shape[0], q_part.shape[1], m)
            torch.bmm(q_part, k.transpose(1, 2), out=scores)
            if bias_m is not None:
                scores += bias_m
            torch.softmax(scores, dim=2, out=scores)
            out_gnd[group : group + many, row : row + rows] = scores @ v
    return out_gnd


def _by_packed_products(q_gnc: Tensor, k_gmc: Tensor, v_gmd: Tensor, bias_m: Tensor | None, rows: int) -> Tensor:
    """Process each group in slices of ``rows`` queries, which share its packed keys."""
    out_gnd = q_gnc.new_empty(*q_gnc.shape[:2], v_gmd.shape[2])
    for group, (q_nc, k_mc, v_md) in enumerate(zip(q_gnc, k_gmc, v_gmd, strict=True)):
        packed = pack(k_mc, rows)
        for row in range(0, q_nc.shape[0], rows):
            scores = packed_product(q_nc[row : row + rows], packed, bias_m)
            torch.softmax(scores, dim=1, out=scores)
            torch.mm(scores, v_md, out=out_gnd[group, row : row + rows])
            del scores  # the next ones reuse the same memory, which is still in the cache
    return out_gnd
