"""The memory bank: which frames are attended to, that no dropped frame would have been, and the order of tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.config import MODELS
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.memory_bank import (
    BankPolicy,
    FrameMemory,
    MemorySelection,
    PointerChoice,
    SpatialChoice,
    gather_tokens,
    stack_tokens,
)

pytestmark = pytest.mark.numeric

OFFICIAL = BankPolicy(num_spatial=7, max_pointers=16)
SMALL = BankPolicy(num_spatial=4, max_pointers=6)


def spatial(selection: MemorySelection) -> list[tuple[int, int]]:
    return [(choice.frame, choice.slot) for choice in selection.spatial]


def pointers(selection: MemorySelection) -> list[tuple[int, int]]:
    return [(choice.frame, choice.age) for choice in selection.pointers]


# Frame, conditioning frames, tracked frames; then (frame, slot) and (frame, age) in the order of the tokens.
SELECTIONS = {
    "second frame": (1, [0], [], [(0, 3)], [(0, 1)]),
    "third frame": (2, [0], [1], [(0, 3), (1, 0)], [(0, 2), (1, 1)]),
    "full": (
        9,
        [0],
        range(1, 9),
        [(0, 3), (6, 2), (7, 1), (8, 0)],
        [(0, 9), (8, 1), (7, 2), (6, 3), (5, 4), (4, 5)],
    ),
    "a gap keeps the slots of the others": (
        6,
        [0],
        [1, 3, 5],
        [(0, 3), (3, 2), (5, 0)],
        [(0, 6), (5, 1), (3, 3), (1, 5)],
    ),
    "only old frames": (20, [0], [3, 4], [(0, 3)], [(0, 20)]),
    "pointers reach further back than maps": (10, [0], [5, 6], [(0, 3)], [(0, 10), (6, 4), (5, 5)]),
    "several conditioning frames, oldest first, whatever the order they came in": (
        8,
        [6, 0, 4],
        [1, 2, 3, 5, 7],
        [(0, 3), (4, 3), (6, 3), (5, 2), (7, 0)],
        [(0, 8), (4, 4), (6, 2), (7, 1), (5, 3), (3, 5)],
    ),
    "a correction of the frame itself sees only what was before": (
        5,
        [0],
        [1, 2, 3, 4],
        [(0, 3), (2, 2), (3, 1), (4, 0)],
        [(0, 5), (4, 1), (3, 2), (2, 3), (1, 4)],
    ),
}


@pytest.mark.parametrize(("frame", "conditioning", "recent", "maps", "ages"), SELECTIONS.values(), ids=SELECTIONS)
def test_selection(frame, conditioning, recent, maps, ages) -> None:  # type: ignore[no-untyped-def]
    selection = SMALL.select(frame, conditioning, recent)
    assert spatial(selection) == maps
    assert pointers(selection) == ages


def test_released_models_attend_to_six_maps_and_fifteen_pointers_beside_the_prompted_frame() -> None:
    selection = OFFICIAL.select(40, [3], range(4, 40))
    assert spatial(selection) == [(3, 6), (34, 5), (35, 4), (36, 3), (37, 2), (38, 1), (39, 0)]
    assert pointers(selection) == [(3, 37), *[(40 - age, age) for age in range(1, 16)]]


# How many, frame, conditioning frames; then those attended to as conditioning frames.
LIMITED = {
    "no more than allowed": (3, 9, [0, 4, 8], [0, 4, 8]),
    "the latest": (2, 30, [0, 10, 20], [10, 20]),
    "nearest before, nearest after": (2, 10, [0, 8, 30, 40], [8, 30]),
    "the frame itself counts as after": (2, 10, [0, 8, 10, 11], [8, 10]),
    "then the closest": (3, 10, [0, 7, 8, 30], [7, 8, 30]),
    "the closest may lie after": (4, 10, [0, 1, 8, 12, 13, 30], [1, 8, 12, 13]),
    "nothing before": (2, 3, [5, 6, 7], [5, 6]),
    "of two as close the earlier": (3, 10, [6, 9, 11, 14], [6, 9, 11]),
}


@pytest.mark.parametrize(("limit", "frame", "conditioning", "attended"), LIMITED.values(), ids=LIMITED)
def test_limited_conditioning_frames(limit: int, frame: int, conditioning: list[int], attended: list[int]) -> None:
    policy = BankPolicy(num_spatial=1, max_pointers=1, max_in_attention=limit)
    selection = policy.select(frame, conditioning, [])
    assert spatial(selection) == [(f, 0) for f in attended]
    assert pointers(selection) == [(f, frame - f) for f in attended]


def test_a_conditioning_frame_left_out_counts_as_tracked_while_it_is_recent() -> None:
    policy = BankPolicy(num_spatial=4, max_pointers=6, max_in_attention=2)
    selection = policy.select(10, conditioning=[0, 5, 7, 8, 9], recent=[4, 6])
    assert spatial(selection) == [(8, 3), (9, 3), (7, 2)]
    assert pointers(selection) == [(8, 2), (9, 1), (7, 3), (6, 4), (5, 5)]


@pytest.mark.parametrize("limit", [2, 3, 8, 9, 12])
@pytest.mark.parametrize("every", [1, 2, 5, 30])
def test_with_a_limit_a_bounded_bank_selects_what_an_unbounded_one_does(limit: int, every: int) -> None:
    policy = BankPolicy(num_spatial=4, max_pointers=6, max_in_attention=limit)
    all_prompted: set[int] = set()
    all_tracked: set[int] = set()
    prompted: set[int] = set()
    tracked: set[int] = set()
    for frame in range(80):
        if frame:
            assert policy.select(frame, prompted, tracked) == policy.select(frame, all_prompted, all_tracked)
        (all_tracked if frame % every else all_prompted).add(frame)
        (tracked if frame % every else prompted).add(frame)
        surplus = policy.surplus_conditioning(prompted)
        prompted, tracked = prompted.difference(surplus), tracked.union(surplus)
        tracked.difference_update(policy.expired(frame + 1, tracked))
        assert len(prompted) <= max(8, limit + 1)
        assert len(tracked) <= 5


def test_a_limit_below_two_is_rejected() -> None:
    with pytest.raises(ValueError, match="expected 2 or more, or None for all, got 1"):
        BankPolicy(4, 6, max_in_attention=1)


def test_fewer_memories_are_the_latest_in_the_slots_that_they_always_had() -> None:
    selection = replace(OFFICIAL, num_recent=2).select(40, [3], range(4, 40))
    assert spatial(selection) == [(3, 6), (38, 1), (39, 0)]
    assert pointers(selection) == pointers(OFFICIAL.select(40, [3], range(4, 40)))


def test_policy_of_a_model() -> None:
    config = replace(MODELS["sam2.1_hiera_tiny"], max_conditioning_in_attention=4)
    assert BankPolicy.of(config) == BankPolicy(num_spatial=7, max_pointers=16, max_in_attention=4)


@pytest.mark.parametrize(
    "policy",
    [OFFICIAL, SMALL, BankPolicy(num_spatial=5, max_pointers=2), BankPolicy(1, 1), BankPolicy(7, 16, num_recent=2)],
)
@pytest.mark.parametrize("prompted", [{0}, {0, 1, 2}, {0, 7, 8, 25}, {0, 39}])
def test_a_bounded_bank_selects_what_an_unbounded_one_does(policy: BankPolicy, prompted: set) -> None:
    everything: dict[int, bool] = {}  # tracked frame: has its map
    bounded: dict[int, bool] = {}
    conditioning: list[int] = []
    for frame in range(40):
        if frame:
            expected = policy.select(frame, conditioning, everything)
            actual = policy.select(frame, conditioning, bounded)
            assert actual == expected
            assert all(bounded.get(choice.frame, True) for choice in actual.spatial), "a map was dropped too early"
        if frame in prompted:
            conditioning.append(frame)
        else:
            everything[frame] = bounded[frame] = True
        for old in policy.expired(frame + 1, bounded):
            del bounded[old]
        for old in policy.without_spatial(frame + 1, bounded):
            bounded[old] = False
        assert len(bounded) <= max(policy.num_spatial, policy.max_pointers) - 1
        assert sum(bounded.values()) <= policy.reach


@pytest.mark.parametrize(
    ("conditioning", "surplus"),
    [
        ([], []),
        ([0], []),
        ([0, 3], []),
        ([0, 3, 5], []),
        ([0, 3, 5, 8], []),
        ([0, 3, 5, 8, 9], [3]),
        ([9, 5, 0, 8, 3, 7], [3, 5]),
    ],
)
def test_of_many_prompts_the_first_and_the_latest_stay(conditioning: list[int], surplus: list[int]) -> None:
    assert BankPolicy(4, 6, max_conditioning=4).surplus_conditioning(conditioning) == surplus


@pytest.mark.parametrize("count", range(1, 12))
def test_no_prompt_is_let_go_before_there_are_too_many(count: int) -> None:
    surplus = SMALL.surplus_conditioning(range(count))
    assert len(surplus) == max(0, count - SMALL.max_conditioning)
    assert 0 not in surplus
    assert count - 1 not in surplus


SELECTION = MemorySelection(
    spatial=(SpatialChoice(0, slot=3), SpatialChoice(4, slot=0)),
    pointers=(PointerChoice(0, age=5), PointerChoice(4, age=1), PointerChoice(2, age=3)),
)


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model()


def memories(seed: int, batch: int = 1) -> dict[int, FrameMemory]:
    """Frames 0, 2 and 4, as the track keeps them; frame 2 has only its pointer left."""
    generator = torch.Generator().manual_seed(seed)

    def memory(frame: int) -> FrameMemory:
        spatial = torch.randn(batch, TINY.memory_dim, 4, 4, generator=generator).to(torch.bfloat16)
        return FrameMemory(None if frame == 2 else spatial, torch.randn(batch, TINY.d_model, generator=generator))

    return {frame: memory(frame) for frame in (0, 2, 4)}


@torch.inference_mode()
def test_maps_come_first_then_pointers_in_pieces(model: SAM2) -> None:
    frames = memories(1)
    tokens = gather_tokens(model, SELECTION, frames)
    assert tokens.num_pointer_tokens == 3 * 2
    assert tokens.tokens_bmc.shape == (1, 2 * 16 + 6, TINY.memory_dim)
    assert tokens.tokens_bmc.dtype == torch.float32
    first = frames[0].spatial_bchw
    assert first is not None
    assert torch.equal(tokens.tokens_bmc[0, 4 + 1], first[0, :, 1, 1].float())  # row 1, column 1
    pointers = torch.cat([frames[frame].pointer_bc[0].view(2, -1) for frame in (0, 4, 2)])
    assert torch.equal(tokens.tokens_bmc[0, 32:], pointers)


@torch.inference_mode()
def test_positions_are_those_of_the_slots_and_ages(model: SAM2) -> None:
    position = gather_tokens(model, SELECTION, memories(1)).position_bmc
    expected = torch.cat((model.memory_positions((3, 0)), model.pointer_positions((5, 1, 3))), dim=1)
    torch.testing.assert_close(position, expected)


@torch.inference_mode()
def test_objects_keep_their_own_memories_and_positions_in_a_batch(model: SAM2) -> None:
    later = MemorySelection(SELECTION.spatial, tuple(PointerChoice(p.frame, p.age + 1) for p in SELECTION.pointers))
    parts = [gather_tokens(model, SELECTION, memories(1)), gather_tokens(model, later, memories(2))]
    stacked = stack_tokens(parts)
    assert stacked.num_pointer_tokens == 6
    for row, part in enumerate(parts):
        assert torch.equal(stacked.tokens_bmc[row], part.tokens_bmc[0])
        assert torch.equal(stacked.position_bmc[row], part.position_bmc[0])
    assert (parts[0].position_bmc - parts[1].position_bmc).abs().max() > 1e-3


def test_map_that_was_dropped_is_named(model: SAM2) -> None:
    selection = MemorySelection((SpatialChoice(2, slot=0),), SELECTION.pointers)
    with pytest.raises(AssertionError, match="frame 2 was dropped too early"):
        gather_tokens(model, selection, memories(1))
