"""The trunk's convolutions with weights laid out once, against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sam2_ros.evaluation.latency import _OF_CPUS
from sam2_ros.model import packed_conv
from sam2_ros.model.efficientnet_lite import EfficientNetLite, SamePadConv
from sam2_ros.model.packed_conv import convolve

# Channels in and out, kernel, stride, groups: the kinds that the trunk has.
KINDS = [(3, 32, 3, 2, 1), (16, 96, 1, 1, 1), (24, 24, 3, 1, 24), (24, 24, 5, 1, 24), (24, 24, 3, 2, 24)]


def maps(channels: int, side: int = 12, seed: int = 0) -> Tensor:
    x = 4 * torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=torch.channels_last)


def is_packed(conv: nn.Conv2d) -> bool:
    return conv in packed_conv._packed


@pytest.mark.parametrize("relu6", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_same_as_conv2d(kind: tuple[int, int, int, int, int], relu6: bool) -> None:
    channels_in, channels_out, kernel, stride, groups = kind
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups)
    x = maps(channels_in)
    with torch.inference_mode():
        expected = conv(x)
        actual = convolve(conv, x, relu6=relu6, padding=kernel // 2)
    assert is_packed(conv)
    assert expected.max() > 0 > expected.min()
    torch.testing.assert_close(actual, F.relu6(expected) if relu6 else expected, rtol=1e-5, atol=1e-5)


def test_other_weights_and_other_sizes_are_noticed() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    with torch.inference_mode():
        convolve(conv, maps(8), relu6=False, padding=1)
    conv.load_state_dict({name: 2 * value for name, value in conv.state_dict().items()})
    with torch.inference_mode():
        for side in (12, 20):
            x = maps(8, side)
            torch.testing.assert_close(convolve(conv, x, relu6=False, padding=1), conv(x), rtol=1e-5, atol=1e-5)
    for factor in range(2, 6):  # the memory of the old ones may be given to the new ones
        conv.weight = None  # type: ignore[assignment]
        conv.weight = nn.Parameter(torch.full((8, 8, 3, 3), 0.1 * factor))
        with torch.inference_mode():
            torch.testing.assert_close(convolve(conv, x, relu6=False, padding=1), conv(x), rtol=1e-5, atol=1e-4)


def test_the_plain_way_in_training_and_in_other_types() -> None:
    conv = SamePadConv(4, 4, 3, 2)
    x = maps(4)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.abs().max() > 0
    with torch.inference_mode():
        assert conv.to(torch.float64)(x.double()).dtype == torch.float64
    assert not is_packed(conv)


def test_weights_that_do_not_count_their_changes_are_not_packed() -> None:
    with torch.inference_mode():
        conv = nn.Conv2d(4, 4, 1)
        x = maps(4)
        assert torch.equal(convolve(conv, x, relu6=True), F.relu6(conv(x)))
    assert not is_packed(conv)


def test_the_trunk_is_the_same_with_it_and_copies_do_not_share_it() -> None:
    torch.manual_seed(0)
    trunk = EfficientNetLite()
    x = maps(3, 64)
    with torch.no_grad():
        packed = trunk(x)
        assert is_packed(trunk.stem)
        other = copy.deepcopy(trunk)
        other.stem.weight.mul_(2)
        assert not is_packed(other.stem)
        assert not torch.equal(other(x)[0], packed[0])
    for level, expected in zip(packed, trunk(x), strict=True):  # with gradients: the plain way
        torch.testing.assert_close(level, expected.detach(), rtol=1e-5, atol=1e-6)


def test_work_is_counted_as_that_of_the_plain_way() -> None:
    trunk, x = EfficientNetLite(), maps(3, 64)
    counted = []
    for plain in (False, True):
        with FlopCounterMode(display=False, custom_mapping=_OF_CPUS) as counter, torch.set_grad_enabled(plain):
            trunk(x)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 1e6


def test_a_trace_takes_the_plain_way() -> None:
    trunk, x = EfficientNetLite(), maps(3, 64)
    with torch.no_grad():
        traced = torch.jit.trace(trunk, x)
        for level, expected in zip(traced(x), trunk(x), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)
