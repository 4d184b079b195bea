"""Remembered frames as the token sequence that memory attention reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, MemoryTokens
from sam2_ros.tracking.memory_bank import MemorySelection


@dataclass(frozen=True)
class FrameMemory:
    """What is remembered of one frame, for a batch of objects (the tracker keeps B = 1)."""

    spatial_bchw: Tensor | None  # (B, memory_dim, h, w); None once no later frame attends to it
    pointer_bc: Tensor  # (B, d_model)


def gather_tokens(model: SAM2, selection: MemorySelection, frames: Mapping[int, FrameMemory]) -> MemoryTokens:
    """Lay the selected memories one after another, spatial maps first, then pointers split into tokens.

    Args:
        model: for its position encodings.
        selection: what to attend to; at least one spatial memory.
        frames: the remembered frames, by frame number.
    """
    maps = []
    for choice in selection.spatial:
        spatial = frames[choice.frame].spatial_bchw
        assert spatial is not None, f"the spatial memory of frame {choice.frame} was dropped too early"
        maps.append(spatial.float().flatten(2).transpose(1, 2))
    pointer_bpc = torch.stack([frames[choice.frame].pointer_bc for choice in selection.pointers], dim=1)
    pointer_bmc = pointer_bpc.reshape(pointer_bpc.shape[0], -1, model.config.memory_dim)
    slots = tuple(choice.slot for choice in selection.spatial)
    ages = tuple(choice.age for choice in selection.pointers)
    position = torch.cat((model.memory_positions(slots), model.pointer_positions(ages)), dim=1)
    tokens = torch.cat((*maps, pointer_bmc), dim=1)
    return MemoryTokens(tokens, position, pointer_bmc.shape[1], (slots,), (ages,))


def stack_tokens(tokens: Sequence[MemoryTokens]) -> MemoryTokens:
    """Several objects' tokens as one batch. All must have the same number of maps and pointers."""
    return MemoryTokens(
        torch.cat([t.tokens_bmc for t in tokens]),
        torch.cat([t.position_bmc for t in tokens]),
        tokens[0].num_pointer_tokens,
        tuple(slots for t in tokens for slots in t.slots),
        tuple(ages for t in tokens for ages in t.ages),
    )
