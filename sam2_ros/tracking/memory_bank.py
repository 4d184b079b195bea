"""The memory bank: which frames are kept and attended to, and the tokens that memory attention reads of them.

SAM 2 paper, section 4 "Memory bank"; slots and pointers are numbered as in the official code. ``BankPolicy`` decides
with frame numbers alone; only ``gather_tokens`` and ``stack_tokens`` touch tensors. ``rules/memory_selection.py`` has
policies that look at scores too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.sam2 import SAM2, MemoryTokens


@dataclass(frozen=True)
class SpatialChoice:
    frame: int
    slot: int  # row of the learned temporal encoding: 0 = the previous frame, num_spatial - 1 = a conditioning frame


@dataclass(frozen=True)
class PointerChoice:
    frame: int
    age: int  # in frames: current frame minus this one; negative for a later conditioning frame


@dataclass(frozen=True)
class MemorySelection:
    """What one frame attends to, in token order."""

    spatial: tuple[SpatialChoice, ...]
    pointers: tuple[PointerChoice, ...]


@dataclass(frozen=True)
class FrameScore:
    """What a remembered frame is worth to the policies that doubt; that of a prompted frame is the default."""

    confidence: float = 1.0  # 0..1: predicted IoU of the mask times how sure the object's presence is
    is_empty: bool = False  # no pixel of the mask is set
    is_anchor: bool = False  # a conditioning frame that a policy made, not a prompt


@dataclass(frozen=True)
class BankPolicy:
    """The rules of SAM 2's memory bank, for an endless stream.

    A frame attends to the conditioning frames, to the spatial memories of the ``num_spatial - 1`` frames before it, and
    to the object pointers of the ``max_pointers - 1`` frames before it. A memory is dropped as soon as no later frame
    can attend to it; this is exact, not an approximation. The one deviation from the official code: of more than
    ``num_conditioning`` conditioning frames only the first (what the user meant) and the latest stay; the others become
    tracked frames.

    With ``max_in_attention`` a frame attends to at most that many conditioning frames as such: the nearest one before
    it, the nearest one after it, then the closest others. One that is left out counts as a tracked frame while it is
    recent enough.

    Frames are given as collections of their numbers; a policy with ``needs_scores`` gets mappings to ``FrameScore``.
    """

    num_spatial: int
    max_pointers: int
    max_conditioning: int = 8
    max_in_attention: int | None = None  # None = all kept ones
    num_recent: int | None = None  # approximation: spatial memories of fewer frames; None = num_spatial - 1 (exact)

    name: ClassVar[str] = "recent"
    needs_scores: ClassVar[bool] = False
    finds_anchors: ClassVar[bool] = False  # ``may_anchor`` can be true

    def __post_init__(self) -> None:
        if self.max_in_attention is not None and self.max_in_attention < 2:
            raise ValueError(
                f"conditioning frames in attention: expected 2 or more, or None for all, got {self.max_in_attention}"
            )

    @classmethod
    def of(cls, config: ModelConfig) -> BankPolicy:
        return cls(
            config.num_spatial_memories,
            config.max_pointers,
            max_in_attention=config.max_conditioning_in_attention,
            num_recent=config.approximations.recent_memories,
        )

    @property
    def reach(self) -> int:
        """Number of previous frames whose spatial memory is attended to."""
        return self.num_spatial - 1 if self.num_recent is None else self.num_recent

    @property
    def most_anchors(self) -> int:
        """Number of conditioning frames that the tracker itself may add to those of an object's user."""
        return 0

    @property
    def num_conditioning(self) -> int:
        """Conditioning frames to keep: enough that attention sees the same ones as with an unbounded history."""
        return max(self.max_conditioning, 1 + (self.max_in_attention or 0))

    def select(self, frame: int, conditioning: Collection[int], recent: Collection[int]) -> MemorySelection:
        """What ``frame`` attends to.

        Args:
            frame: the current frame.
            conditioning: remembered conditioning frames.
            recent: remembered tracked frames.
        """
        attended = self._attended(frame, sorted(conditioning))
        recent = {*recent, *conditioning} - set(attended)
        spatial = [SpatialChoice(f, self.num_spatial - 1) for f in attended]
        # Oldest first: slot 0 is the previous frame.
        for slot in range(self.reach - 1, -1, -1):
            if frame - slot - 1 in recent:
                spatial.append(SpatialChoice(frame - slot - 1, slot))
        pointers = [PointerChoice(f, frame - f) for f in attended]
        for age in range(1, self.max_pointers):
            if frame - age in recent:
                pointers.append(PointerChoice(frame - age, age))
        return MemorySelection(tuple(spatial), tuple(pointers))

    def _attended(self, frame: int, conditioning: list[int]) -> list[int]:
        """The conditioning frames that ``frame`` attends to as such; both lists are oldest first."""
        if self.max_in_attention is None or len(conditioning) <= self.max_in_attention:
            return conditioning
        before, after = [f for f in conditioning if f < frame], [f for f in conditioning if f >= frame]
        nearest = before[-1:] + after[:1]
        others = sorted((f for f in conditioning if f not in nearest), key=lambda f: abs(f - frame))
        return sorted((nearest + others)[: self.max_in_attention])

    def without_spatial(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames whose spatial memory no frame from ``next_frame`` on attends to; their pointers stay."""
        return [f for f in recent if f < next_frame - self.reach]

    def expired(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames of which no frame from ``next_frame`` on attends to anything."""
        return [f for f in recent if f < next_frame - max(self.reach, self.max_pointers - 1)]

    def surplus_conditioning(self, conditioning: Collection[int]) -> list[int]:
        """Conditioning frames that must become tracked frames: the oldest ones after the first."""
        ordered = sorted(conditioning)
        return ordered[1 : 1 + max(0, len(ordered) - self.num_conditioning)]

    def may_anchor(
        self, frame: int, conditioning: Collection[int], predicted_iou: float, area_px: int, areas_px: Sequence[int]
    ) -> bool:
        """Whether a tracked frame becomes a conditioning frame if it shows a rival of the object.

        Args:
            frame: the current frame.
            conditioning: remembered conditioning frames.
            predicted_iou: of its mask, 0..1.
            area_px: of its mask; 0: empty.
            areas_px: of the latest masks before it that were not empty.
        """
        return False

    def shows_rival(self, box_iou: float) -> bool:
        """Whether something stands beside the object; ``box_iou`` from ``rules.rivals.rival_box_iou``."""
        return False


@dataclass(frozen=True)
class FrameMemory:
    """The memory of one frame, for a batch of objects (the tracker keeps B = 1)."""

    spatial_bchw: Tensor | None  # (B, memory_dim, h, w); None once no later frame attends to it
    pointer_bc: Tensor  # (B, d_model)
    score: FrameScore | None = None  # with a policy that needs them


def gather_tokens(model: SAM2, selection: MemorySelection, frames: Mapping[int, FrameMemory]) -> MemoryTokens:
    """The selected memories as one token sequence: spatial maps first, then pointers split into tokens.

    Args:
        model: for its position encodings.
        selection: what to attend to, with at least one spatial memory.
        frames: remembered frames by frame number.
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
    """The tokens of several objects as one batch; all must have equally many maps and pointers."""
    return MemoryTokens(
        torch.cat([t.tokens_bmc for t in tokens]),
        torch.cat([t.position_bmc for t in tokens]),
        tokens[0].num_pointer_tokens,
        tuple(slots for t in tokens for slots in t.slots),
        tuple(ages for t in tokens for ages in t.ages),
    )
