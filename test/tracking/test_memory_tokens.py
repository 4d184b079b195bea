"""How remembered frames are laid out as tokens."""

from __future__ import annotations

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.memory_bank import MemorySelection, PointerChoice, SpatialChoice
from sam2_ros.tracking.memory_tokens import FrameMemory, gather_tokens, stack_tokens

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
    assert torch.equal(position, expected)


@torch.inference_mode()
def test_objects_keep_their_own_memories_and_positions_in_a_batch(model: SAM2) -> None:
    later = MemorySelection(SELECTION.spatial, tuple(PointerChoice(p.frame, p.age + 1) for p in SELECTION.pointers))
    parts = [gather_tokens(model, SELECTION, memories(1)), gather_tokens(model, later, memories(2))]
    stacked = stack_tokens(parts)
    assert stacked.num_pointer_tokens == 6
    for row, part in enumerate(parts):
        assert torch.equal(stacked.tokens_bmc[row], part.tokens_bmc[0])
        assert torch.equal(stacked.position_bmc[row], part.position_bmc[0])
    assert not torch.equal(parts[0].position_bmc, parts[1].position_bmc)


def test_map_that_was_dropped_is_named(model: SAM2) -> None:
    selection = MemorySelection((SpatialChoice(2, slot=0),), SELECTION.pointers)
    with pytest.raises(AssertionError, match="frame 2 was dropped too early"):
        gather_tokens(model, selection, memories(1))
