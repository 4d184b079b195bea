"""Packed products are products, and follow their weight."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sam2_ros.model import packed as module
from sam2_ros.model.packed import Linear, pack, packed_product, pays_packed

pytestmark = pytest.mark.numeric

TYPES = sorted(module._PACKABLE, key=str)
# A sum of 24 products of normal numbers is wrong by 24 * 24 * 0.64 * eps at most; bfloat16 also rounds what goes in.
TOLERANCES = {torch.float32: 5e-5, torch.bfloat16: 0.1}


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_PRODUCTS", 1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer() -> Linear:
    torch.manual_seed(1)
    return Linear(24, 10)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 7, 300])
@torch.inference_mode()
def test_product_is_that_of_the_plain_operands(dtype: torch.dtype, rows: int) -> None:
    """However many rows come, and from a slice of a larger tensor too."""
    left, right, bias = noise(2, rows, 24), noise(10, 3, 24, seed=1)[:, 1], noise(10, seed=2)
    actual = packed_product(left.to(dtype), pack(right.to(dtype), 64), bias.to(dtype))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), F.linear(left, right, bias), rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), None])
@torch.inference_mode()
def test_activations_are_those_of_the_modules(dtype: torch.dtype, activation: nn.Module | None) -> None:
    left, right = noise(50, 24).to(dtype), noise(10, 24, seed=1).to(dtype)
    expected = F.linear(left.float(), right.float())
    expected = expected if activation is None else activation(expected)
    actual = packed_product(left, pack(right, 50), None, activation).float()
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCES[dtype])
    assert (actual - F.linear(left.float(), right.float())).abs().max() > 1 or activation is None


def test_layer_packs_once_and_again_when_its_weight_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(module, "_PACKABLE", frozenset({torch.float32}))
    monkeypatch.setattr(module, "pack", lambda right, rows: calls.append(rows) or right.clone())
    monkeypatch.setattr(module, "packed_product", lambda x, packed, bias, activation: F.linear(x, packed, bias))
    linear, x = layer(), noise(5, 24)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias))
    assert calls == [5]
    changed = Linear(24, 10)
    linear.load_state_dict(changed.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(linear(x), F.linear(x, changed.weight, changed.bias))
    assert calls == [5, 5]


def test_gradients_pass_and_nothing_is_packed_for_them() -> None:
    linear = layer()
    linear(noise(5, 24)).sum().backward()
    assert linear.weight.grad is not None
    assert linear._packed is None


def test_packed_weight_is_not_kept_for_another_that_lies_where_it_was() -> None:
    linear, x = layer(), noise(5, 24)
    with torch.inference_mode():
        linear(x)
    for seed in range(2, 6):  # a freed weight's place is soon taken again
        torch.manual_seed(seed)
        linear.load_state_dict(Linear(24, 10).state_dict(), assign=True)
        with torch.inference_mode():
            torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias))


def test_writing_past_the_weight_is_noticed_after_eval() -> None:
    linear, x = layer(), noise(5, 24)
    with torch.inference_mode():
        linear(x)
    linear.weight.data.mul_(2)
    linear.eval()
    with torch.inference_mode():
        torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias))


@torch.inference_mode()
def test_autocast_decides_about_types_itself() -> None:
    linear, x = layer(), noise(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype == linear(x.bfloat16()).dtype == torch.bfloat16
    assert linear(x).dtype == torch.float32


@pytest.mark.skipif(not TYPES, reason="this processor or PyTorch has no packed products: run it on x86 with AVX2")
def test_copies_and_pickles_leave_the_packed_weight_behind() -> None:
    linear, x = layer(), noise(5, 24)
    with torch.inference_mode():
        expected = linear(x)
        assert linear._packed is not None
        for other in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
            assert other._packed is None
            torch.testing.assert_close(other(x), expected)
    assert set(linear.state_dict()) == {"weight", "bias"}


def test_small_products_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKABLE", frozenset({torch.float32}))
    monkeypatch.setattr(module, "_WORTH_PRODUCTS", 1000)
    with torch.inference_mode():
        assert pays_packed(noise(10, 20), rows=5)
        assert not pays_packed(noise(10, 20), rows=4)
        assert not pays_packed(noise(10, 20).double(), rows=5)
    assert not pays_packed(noise(10, 20), rows=5)  # gradients are wanted
