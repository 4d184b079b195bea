"""Memory that is looked at with fewer keys, and what else an approximation may ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.model.config import MODELS, Approximations, PooledMemory, approximate
from sam2_ros.model.pooled_memory import PooledRotaryAttention, pool_maps, weight_of_squares
from sam2_ros.model.softmax_attention import softmax_attention
from sam2_ros.tracking.tracker import Tracker

pytestmark = pytest.mark.numeric


def test_squares_of_each_map_become_their_mean() -> None:
    two_maps = [[0, 2, 10, 10], [4, 6, 10, 10]], [[1, 1, 0, 0], [1, 1, 0, 8]]
    tokens = [value for rows in two_maps for row in rows for value in row]
    pooled = pool_maps(torch.tensor([*tokens, 7.0, 9.0])[None, :, None], (2, 4), num_unplaced=2, side=2)
    assert pooled[0, :, 0].tolist() == [3, 10, 1, 2, 7, 9]


def test_a_square_weighs_as_much_as_its_tokens() -> None:
    """Four equal keys and values, and one that stands for them, give the same mean with an odd one beside them."""
    generator = torch.Generator().manual_seed(0)
    q, one, odd = (torch.randn(1, 1, n, 8, generator=generator) for n in (3, 1, 1))
    value, odd_value = torch.randn(1, 1, 1, 4, generator=generator), torch.randn(1, 1, 1, 4, generator=generator)
    four = [one] * 4, [value] * 4
    expected = softmax_attention(q, torch.cat((*four[0], odd), 2), torch.cat((*four[1], odd_value), 2))
    bias = weight_of_squares(2, num_unplaced=1, side=2, like=q)
    keys, values = torch.cat((one, odd), 2), torch.cat((value, odd_value), 2)
    torch.testing.assert_close(softmax_attention(q, keys, values, bias_m=bias), expected)
    with torch.inference_mode():  # the other way
        torch.testing.assert_close(softmax_attention(q, keys, values, bias_m=bias), expected)
    valid = torch.tensor([[True, False]])
    torch.testing.assert_close(softmax_attention(q, keys, values, valid, bias), value.expand(1, 1, 3, 4))


@pytest.mark.parametrize(
    "approximations", [Approximations(memory_pooling=2), Approximations(recent_memories=1)], ids=str
)
def test_a_tracker_runs_with_less_memory_and_gives_other_masks(approximations: Approximations) -> None:
    exact, rough = tiny_model(TINY), tiny_model(approximate(TINY, approximations))
    rough.load_state_dict(exact.state_dict())
    trackers = Tracker(exact), Tracker(rough)
    for tracker in trackers:
        tracker.add_prompt("a", box=(10, 10, 50, 40))
    differences = []
    for image in noise_frames(6):
        a, b = (tracker.step(image)["a"].low_res_logits for tracker in trackers)
        differences.append(float(np.abs(a - b).max()))
    assert differences[0] == 0  # there is no memory yet
    assert differences[-1] > 0


@pytest.mark.parametrize(
    ("approximations", "message"),
    [
        (Approximations(memory_pooling=0), "memory_pooling: expected a divisor of 64, .*, got 0"),
        (Approximations(memory_pooling=3), "memory_pooling: expected a divisor of 64, .*, got 3"),
        (Approximations(recent_memories=0), "recent_memories: expected 1 to 6 for sam2.1_hiera_tiny, got 0"),
        (Approximations(recent_memories=7), "recent_memories: expected 1 to 6 for sam2.1_hiera_tiny, got 7"),
    ],
)
def test_what_cannot_be_is_rejected(approximations: Approximations, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        approximate(MODELS["sam2.1_hiera_tiny"], approximations)


def test_nothing_is_approximated_unless_asked_for() -> None:
    for config in MODELS.values():
        assert config.approximations == Approximations()
        assert approximate(config, Approximations()) == config
        fewer = Approximations(recent_memories=2)
        assert approximate(config, fewer) == replace(config, approximations=fewer)


@pytest.mark.parametrize("name", ["edgetam", "efficienttam_ti_1", "efficienttam_s_2"])
def test_what_was_trained_with_few_memory_tokens_is_not_pooled_again(name: str) -> None:
    with pytest.raises(ValueError, match=f"memory_pooling: expected 1 for {name}, which pools its memories itself"):
        approximate(MODELS[name], Approximations(memory_pooling=2))


MAPS, TOKENS, POINTERS = 3, 16, 2


def look(pooled: PooledMemory, maps: int, valid: list[bool] | None = None) -> torch.Tensor:
    """Queries of a 4x4 image look at ``maps`` random memories, and at pointers."""
    torch.manual_seed(0)
    attention = PooledRotaryAttention(TINY, pooled)
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(1, TOKENS, TINY.d_model, generator=generator)
    memory = torch.randn(1, MAPS * TOKENS, TINY.memory_dim, generator=generator)[:, : maps * TOKENS]
    pointers = torch.randn(1, POINTERS, TINY.memory_dim, generator=generator)
    tokens = torch.cat((memory, pointers), dim=1)
    valid_bm = None
    if valid is not None:
        valid_bm = torch.tensor([[v for v in valid for _ in range(TOKENS)] + [True] * POINTERS])
        tokens = tokens * (valid_bm[..., None] | (torch.rand(tokens.shape, generator=generator) > 0.5))
    return attention.forward_on_grid(q, tokens, tokens, (4, 4), POINTERS, valid_bm)


@pytest.mark.parametrize("weight_in_keys", [False, True], ids=["_1", "_2"])
@torch.inference_mode()
def test_memories_in_fixed_slots_are_looked_at_as_without_slots(weight_in_keys: bool) -> None:
    """Also a lone one, which is not pooled."""
    pooled = PooledMemory(weight_in_keys=weight_in_keys)
    for maps in (1, 2, 3):
        slots = look(pooled, MAPS, [index < maps for index in range(MAPS)])
        torch.testing.assert_close(slots, look(pooled, maps), rtol=1e-4, atol=1e-5)
    whole = look(replace(pooled, side=1), 1)
    torch.testing.assert_close(look(pooled, 1), whole, rtol=1e-4, atol=1e-5)
    assert (look(pooled, 2) - look(replace(pooled, side=1), 2)).abs().max() > 1e-3
    always = look(replace(pooled, lone_map_whole=False), 1)
    assert (always - whole).abs().max() > 1e-3


@torch.inference_mode()
def test_weight_in_the_keys_is_another_network_than_weight_in_the_scores() -> None:
    assert (look(PooledMemory(), 2) - look(PooledMemory(weight_in_keys=True), 2)).abs().max() > 1e-3
