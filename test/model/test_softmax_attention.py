"""The two ways of computing attention agree, whatever fits into a slice."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sam2_ros.model import packed
from sam2_ros.model import softmax_attention as module
from sam2_ros.model.attention import RotaryAttention
from sam2_ros.model.softmax_attention import prefers_products, softmax_attention

pytestmark = pytest.mark.numeric


def random_bhnc(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("max_scores", [1, 40, 7 * 12, 2 * 7 * 12, 2**24])
@pytest.mark.parametrize("value_width", [8, 3])
@pytest.mark.parametrize("packs", [False, True], ids=["plain", "packed"])
@torch.inference_mode()
def test_products_agree_with_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, max_scores: int, value_width: int, packs: bool
) -> None:
    """Whatever fits at once, and whether or not slices of queries share packed keys."""
    monkeypatch.setattr(module, "_MAX_SCORE_BYTES", 2 * max_scores)
    packed_rows: list[int] = []
    monkeypatch.setattr(packed, "_WORTH_PRODUCTS", 1 if packs else math.inf)
    monkeypatch.setattr(packed, "_PACKABLE", frozenset({torch.bfloat16}))  # whatever this processor can
    monkeypatch.setattr(module, "pack", lambda right, rows: packed_rows.append(rows) or right)
    monkeypatch.setattr(module, "packed_product", F.linear)
    q, k, v = (random_bhnc(3, 2, n, c, seed=n) for n, c in ((7, 8), (12, 8), (12, value_width)))
    expected = F.scaled_dot_product_attention(q, k, v)
    actual = softmax_attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert len(packed_rows) == (6 if packs and max_scores < 7 * 12 else 0)  # the keys of each group once
    torch.testing.assert_close(actual.float(), expected, rtol=0.02, atol=0.02)


def test_products_are_for_bfloat16_and_narrow_values_without_gradients() -> None:
    q = torch.zeros(1, 1, 2, 4)
    assert not prefers_products(q.bfloat16(), 4)  # there is a gradient to keep the way for
    with torch.inference_mode():
        assert prefers_products(q.bfloat16(), 4)
        assert prefers_products(q, 3)
        assert not prefers_products(q, 4)


def test_gradients_pass_in_bfloat16() -> None:
    q = random_bhnc(1, 1, 4, 8, seed=1).bfloat16().requires_grad_()
    softmax_attention(q, q, q).sum().backward()
    assert q.grad is not None


def test_values_are_averaged_before_they_are_projected() -> None:
    """Exact algebra: with one head the weights add up to one, the projection's bias included."""
    torch.manual_seed(3)
    attention = RotaryAttention(32, num_heads=1, key_value_dim=8)
    q, k, v = (random_bhnc(2, n, c, seed=n + c)[:] for n, c in ((6, 32), (14, 8), (14, 8)))
    expected = attention.forward_on_grid(q, k, v, (2, 3), num_unplaced=2).detach()  # with gradients: the fused kernel
    with torch.inference_mode():
        torch.testing.assert_close(attention.forward_on_grid(q, k, v, (2, 3), num_unplaced=2), expected)
        attention.to(torch.bfloat16)
        actual = attention.forward_on_grid(q.bfloat16(), k.bfloat16(), v.bfloat16(), (2, 3), num_unplaced=2)
    torch.testing.assert_close(actual.float(), expected, rtol=0.05, atol=0.02)


@torch.inference_mode()
def test_one_query_map_serves_all_memories() -> None:
    torch.manual_seed(4)
    attention = RotaryAttention(16, num_heads=1, key_value_dim=8)
    q, k = random_bhnc(1, 6, 16, seed=1), random_bhnc(3, 12, 8, seed=2)
    expected = attention.forward_on_grid(q.expand(3, -1, -1), k, k, (2, 3))
    torch.testing.assert_close(attention.forward_on_grid(q, k, k, (2, 3)), expected)
