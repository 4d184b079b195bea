"""Windows and pooling of the Hiera trunk, and the feature pyramid on top of either trunk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_model import TINY, tiny_model
from torch import nn

from sam2_ros.model import hiera
from sam2_ros.model.config import EfficientNetLiteSpec
from sam2_ros.model.hiera import MultiScaleBlock, join_windows, pool_2x2, split_windows
from sam2_ros.model.image_encoder import FpnNeck, ImageEncoder

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 4), (8, 12, 4), (7, 9, 4), (1, 5, 8), (14, 15, 7)])
def test_join_windows_undoes_split_windows(height: int, width: int, size: int) -> None:
    x = torch.randn(2, height, width, 3)
    windows = split_windows(x, size)
    assert windows.shape == (2 * -(-height // size) * -(-width // size), size, size, 3)
    torch.testing.assert_close(join_windows(windows, height, width), x, rtol=0, atol=0)


def test_windows_go_along_rows_and_are_padded_with_zeros() -> None:
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, ..., None]
    expected = [[[1, 2], [4, 5]], [[3, 0], [6, 0]], [[7, 8], [0, 0]], [[9, 0], [0, 0]]]
    assert split_windows(x, 2)[..., 0].tolist() == expected


def test_pooling_takes_the_largest_of_each_square() -> None:
    x = torch.tensor([[1.0, 5, 0, 0], [2, 3, 0, -1]])[None, ..., None]
    assert pool_2x2(x)[0, ..., 0].tolist() == [[5, 0]]


def test_attention_in_a_window_sees_nothing_outside_it() -> None:
    torch.manual_seed(0)
    block = MultiScaleBlock(8, 8, num_heads=2, window=4, pool=False)
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[:, :4, :4] += 1.0
    difference = (block(changed) - block(x)).abs().amax(-1)[0]
    assert (difference[:4, :4] > 1e-3).all()
    assert difference[4:].max() == 0
    assert difference[:, 4:].max() == 0


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("strip_bytes", [1, 40000, 2**30])
def test_strips_of_windows_are_the_whole(monkeypatch: pytest.MonkeyPatch, pool: bool, strip_bytes: int) -> None:
    """The last strip has fewer rows, and padding."""
    monkeypatch.setattr(hiera, "_STRIP_BYTES", strip_bytes)
    torch.manual_seed(0)
    block = MultiScaleBlock(8, 16, num_heads=2, window=4, pool=pool)
    x = torch.randn(2, 14, 10, 8)
    heights: list[int] = []
    whole = block.forward_whole
    monkeypatch.setattr(block, "forward_whole", lambda strip: heights.append(strip.shape[1]) or whole(strip))
    with torch.inference_mode():
        torch.testing.assert_close(block(x), whole(x))
        assert heights == {1: [4, 4, 4, 2], 40000: [8, 6], 2**30: [14]}[strip_bytes]
        assert block(x[:0]).shape == (0, *whole(x).shape[1:])


def test_padding_takes_part_in_attention() -> None:
    """The released weights were trained so: a padded window is not the same as a window cut to size."""
    torch.manual_seed(0)
    padded = MultiScaleBlock(8, 8, num_heads=1, window=4, pool=False)
    whole = MultiScaleBlock(8, 8, num_heads=1, window=0, pool=False)
    whole.load_state_dict(padded.state_dict())
    x = torch.randn(1, 3, 3, 8)
    assert (padded(x) - whole(x)).abs().max() > 1e-3


def test_last_block_of_each_stage_is_handed_on() -> None:
    trunk = tiny_model().image_encoder.trunk
    levels = trunk(torch.randn(2, 3, 64, 64))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]


def test_position_embedding_is_a_stretched_map_plus_tiled_windows() -> None:
    trunk = tiny_model().image_encoder.trunk
    position = trunk.position_embedding(16, 24)
    coarse = F.interpolate(trunk.pos_embed, size=(16, 24), mode="bicubic")[0].permute(1, 2, 0)
    window = trunk.pos_embed_window[0].permute(1, 2, 0)
    for y, x in ((0, 0), (3, 9), (15, 23)):
        torch.testing.assert_close(position[0, y, x], coarse[y, x] + window[y % 8, x % 8])


def test_position_embedding_is_kept_until_its_parameters_change() -> None:
    trunk = tiny_model().image_encoder.trunk
    with torch.inference_mode():
        first = trunk.kept_position_embedding(16, 24)
        assert trunk.kept_position_embedding(16, 24) is first
        assert trunk.kept_position_embedding(24, 16).shape == (1, 24, 16, 8)
    with torch.no_grad():
        trunk.pos_embed += 1
        torch.testing.assert_close(trunk.kept_position_embedding(16, 24), first + 1)
    trunk.kept_position_embedding(16, 24).sum().backward()
    assert trunk.pos_embed.grad is not None


@pytest.fixture
def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 16), (5, 8), (7, 4), (9, 2))
    return [torch.randn(1, channels, side, side, generator=generator) for channels, side in shapes]


def test_only_stride_16_gets_features_from_above(levels: list[torch.Tensor]) -> None:
    neck, conv_s0, conv_s1 = FpnNeck((3, 5, 7, 9), 6), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 4, 1)
    lateral = [conv(level) for conv, level in zip(reversed(neck.convs), levels, strict=True)]
    stride4, stride8, stride16 = neck(levels, conv_s0, conv_s1)
    torch.testing.assert_close(stride4, conv_s0(lateral[0]))  # made as one convolution
    torch.testing.assert_close(stride8, conv_s1(lateral[1]))
    nearest = lateral[3].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(stride16, lateral[2] + nearest)


def test_neck_has_the_deepest_level_first() -> None:
    assert [conv.conv.in_channels for conv in FpnNeck((3, 5, 7, 9), 6).convs] == [9, 7, 5, 3]


@pytest.mark.parametrize("trunk", [TINY.trunk, EfficientNetLiteSpec()], ids=["hiera", "lite0"])
def test_encoder_gives_strides_4_8_and_16(trunk) -> None:  # type: ignore[no-untyped-def]
    encoder = ImageEncoder(replace(TINY, trunk=trunk)).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, 64, 64), nn.Conv2d(32, 4, 1), nn.Conv2d(32, 8, 1))
    assert [tuple(m.shape) for m in maps] == [(1, 4, 16, 16), (1, 8, 8, 8), (1, 32, 4, 4)]
