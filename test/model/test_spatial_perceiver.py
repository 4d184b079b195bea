"""EdgeTAM's memory: latents of the whole map and of windows, and how memory attention looks at them."""

from __future__ import annotations

import pytest
import torch
from tiny_model import TINY_EDGETAM, tiny_model

from sam2_ros.model.config import model_config
from sam2_ros.model.position_encoding import rotary_table, rotate_pairs, sine_map
from sam2_ros.model.sam2 import SAM2
from sam2_ros.model.spatial_perceiver import LatentRotaryAttention, SpatialPerceiver

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
GRID = 2


def random_map(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, TINY_EDGETAM.memory_dim, 4, 4, generator=torch.Generator().manual_seed(seed))


def perceiver_of(model: SAM2) -> SpatialPerceiver:
    assert isinstance(model.spatial_perceiver, SpatialPerceiver)
    return model.spatial_perceiver


@torch.inference_mode()
def test_a_window_reaches_its_own_latent_and_all_of_the_whole_map() -> None:
    perceiver = perceiver_of(tiny_model(TINY_EDGETAM))
    before = random_map()
    after = before.clone()
    after[:, :, 0:2, 2:4] *= -1.0  # the window at the top right
    moved = (perceiver(after) - perceiver(before)).abs().amax(dim=1)
    assert moved.shape == (2, 2 * GRID, GRID)
    assert (moved[:, :GRID] > 1e-4).all(), "latents of the whole map"
    local = moved[:, GRID:] > 1e-4
    assert local.tolist() == [[[False, True], [False, False]]] * 2


@torch.inference_mode()
def test_only_latents_of_the_whole_map_know_where_in_it_something_is() -> None:
    """A map whose windows change places gives the same local latents in other places, and other global ones."""
    perceiver = perceiver_of(tiny_model(TINY_EDGETAM))
    same_latent = perceiver.latents_2d[:1].expand_as(perceiver.latents_2d).clone()
    perceiver.latents_2d.data.copy_(same_latent)
    swapped = random_map().roll(2, dims=3)
    plain, moved = perceiver(random_map()), perceiver(swapped)
    torch.testing.assert_close(moved[:, :, GRID:], plain[:, :, GRID:].flip(3))
    assert (moved[:, :, :GRID] - plain[:, :, :GRID]).abs().max() > 1e-3


@torch.inference_mode()
def test_positions_of_memories() -> None:
    model = tiny_model(TINY_EDGETAM)
    dim, tokens = TINY_EDGETAM.memory_dim, TINY_EDGETAM.memory_tokens
    position = model.memory_positions((3, 0))
    assert position.shape == (1, 2 * tokens, dim)
    for start, slot in ((0, 3), (tokens, 0)):
        time = model.maskmem_tpos_enc[slot, 0]
        whole, local = position[0, start : start + tokens].chunk(2)
        assert torch.equal(whole, time.expand_as(whole))
        torch.testing.assert_close(local, sine_map(dim, GRID, GRID, CPU)[0].flatten(1).T + time)


def test_keys_of_windows_are_turned_and_the_others_not() -> None:
    attention = LatentRotaryAttention(TINY_EDGETAM, TINY_EDGETAM.perceiver)
    k = torch.randn(1, 1, 2 * 8 + 3, 8, generator=torch.Generator().manual_seed(0))
    turned = attention.turn_keys(k, (4, 4), num_unplaced=3)
    cos, sin = rotary_table(8, GRID, GRID, CPU)
    for frame in (0, 8):
        assert torch.equal(turned[:, :, frame : frame + 4], k[:, :, frame : frame + 4])
        local = slice(frame + 4, frame + 8)
        torch.testing.assert_close(turned[:, :, local], rotate_pairs(k[:, :, local], cos, sin))
    assert torch.equal(turned[:, :, 16:], k[:, :, 16:])


def test_a_frame_is_512_tokens_at_every_size() -> None:
    for size in (256, 512, 768, 1024):
        config = model_config("edgetam", size)
        assert (config.memory_hw, config.memory_tokens) == ((32, 16), 512)
