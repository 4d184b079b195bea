"""Position encodings against plain loops, and what rotary attention may and may not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from sam2_ros.model.attention import RotaryAttention
from sam2_ros.model.position_encoding import (
    RandomFourierEncoding,
    rotary_table,
    rotate_pairs,
    sine_map,
    sine_of_time,
)

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def test_sine_map_is_that_of_a_plain_loop() -> None:
    channels, height, width = 8, 3, 5
    half = channels // 2
    expected = torch.zeros(channels, height, width)
    for y in range(height):
        for x in range(width):
            for c in range(half):
                wave = math.sin if c % 2 == 0 else math.cos
                period = 10000 ** (2 * (c // 2) / half)
                expected[c, y, x] = wave((y + 1) / (height + 1e-6) * 2 * math.pi / period)
                expected[half + c, y, x] = wave((x + 1) / (width + 1e-6) * 2 * math.pi / period)
    torch.testing.assert_close(sine_map(channels, height, width, CPU)[0], expected)


def test_sine_of_time_has_all_sines_before_all_cosines() -> None:
    times = torch.tensor([-0.5, 0.0, 2.0])
    expected = [
        [wave(t / 10000 ** (2 * (c // 2) / 4)) for wave in (math.sin, math.cos) for c in range(4)]
        for t in times.tolist()
    ]
    torch.testing.assert_close(sine_of_time(times, 8), torch.tensor(expected))


def test_grid_of_fourier_features_holds_the_pixel_centres() -> None:
    torch.manual_seed(0)
    encoding = RandomFourierEncoding(8)
    grid = encoding.grid(4, 6)
    assert grid.shape == (1, 8, 4, 6)
    torch.testing.assert_close(grid[0, :, 1, 4], encoding(torch.tensor([4.5 / 6, 1.5 / 4])))


def turned(vector_c: torch.Tensor, x: int, y: int, side: int = 8) -> torch.Tensor:
    """The vector as rotary encoding turns it at that place of a side x side map."""
    cos, sin = rotary_table(len(vector_c), side, side, CPU)
    return rotate_pairs(vector_c.expand(1, 1, side * side, -1), cos, sin)[0, 0, y * side + x]


@pytest.mark.parametrize("shift_xy", [(0, 3), (3, 0), (2, 4)])
def test_product_of_turned_vectors_depends_on_their_distance_only(shift_xy: tuple[int, int]) -> None:
    torch.manual_seed(1)
    q, k = torch.randn(2, 8)
    here = turned(q, 1, 2) @ turned(k, 2, 0)
    moved = turned(q, 1 + shift_xy[0], 2 + shift_xy[1]) @ turned(k, 2 + shift_xy[0], shift_xy[1])
    torch.testing.assert_close(here, moved)
    assert not torch.isclose(here, q @ k)


def test_first_half_of_the_channels_turns_with_x_and_the_second_with_y() -> None:
    ones = torch.ones(8)
    to_the_right, below, at_the_corner = turned(ones, 5, 0), turned(ones, 0, 5), turned(ones, 0, 0)
    assert at_the_corner.tolist() == ones.tolist()
    assert to_the_right[4:].tolist() == below[:4].tolist() == [1.0] * 4
    assert (to_the_right[:4] != 1).all()
    torch.testing.assert_close(below[4:], to_the_right[:4])


def test_adjacent_channels_are_the_pairs() -> None:
    vector = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(turned(vector, 1, 0)[:2], torch.tensor([math.cos(1), math.sin(1)]))


def test_table_is_repeated_for_each_memory() -> None:
    torch.manual_seed(2)
    cos, sin = rotary_table(8, 2, 3, CPU)
    memories = torch.randn(2, 1, 3 * 6, 8)
    whole = rotate_pairs(memories, cos, sin)
    parts = [rotate_pairs(part, cos, sin) for part in memories.split(6, dim=2)]
    torch.testing.assert_close(whole, torch.cat(parts, dim=2), rtol=0, atol=0)


def test_unplaced_keys_are_not_turned() -> None:
    torch.manual_seed(3)
    attention = RotaryAttention(8, 1)
    q, k, v = torch.randn(1, 6, 8), torch.randn(1, 12 + 2, 8), torch.randn(1, 12 + 2, 8)
    table = rotary_table(8, 2, 3, CPU)
    q_bhnc, k_bhnc, v_bhnc = (
        attention.split_heads(proj(x))
        for proj, x in ((attention.q_proj, q), (attention.k_proj, k), (attention.v_proj, v))
    )
    k_bhnc = torch.cat((rotate_pairs(k_bhnc[:, :, :12], *table), k_bhnc[:, :, 12:]), dim=2)
    expected = attention.attend(rotate_pairs(q_bhnc, *table), k_bhnc, v_bhnc)
    torch.testing.assert_close(attention.forward_on_grid(q, k, v, (2, 3), num_unplaced=2), expected)


def test_attention_over_memory_does_not_depend_on_the_order_of_its_maps() -> None:
    """Each map is turned by the same table: only the added position tells memories apart."""
    torch.manual_seed(3)
    attention = RotaryAttention(8, 2)
    q, first, second = torch.randn(3, 1, 6, 8)
    one, other = torch.cat((first, second), dim=1), torch.cat((second, first), dim=1)
    torch.testing.assert_close(
        attention.forward_on_grid(q, one, one, (2, 3)), attention.forward_on_grid(q, other, other, (2, 3))
    )


def test_tables_made_while_tracking_can_be_trained_with() -> None:
    """They are kept for a whole process: validation between training steps makes them in inference mode."""
    rotary_table.cache_clear()
    sine_map.cache_clear()
    with torch.inference_mode():
        sine_map(8, 2, 2, CPU)
        rotary_table(8, 2, 2, CPU)
    x = torch.randn(1, 1, 4, 8, requires_grad=True)
    rotate_pairs(x * sine_map(8, 2, 2, CPU)[0].flatten(1).T, *rotary_table(8, 2, 2, CPU)).sum().backward()
    assert x.grad is not None


def test_tables_made_under_autocast_are_float32() -> None:
    rotary_table.cache_clear()
    sine_map.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert {t.dtype for t in (*rotary_table(8, 2, 2, CPU), sine_map(8, 2, 2, CPU))} == {torch.float32}
