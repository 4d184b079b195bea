"""Which frames to keep and which to attend to: frame numbers only, no tensors.

SAM 2 paper, section 4 "Memory bank"; the numbering of slots and pointers is that of the official code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class SpatialChoice:
    frame: int
    slot: int  # row of the learned time encoding: 0 = the frame just before, num_spatial - 1 = a prompted frame


@dataclass(frozen=True)
class PointerChoice:
    frame: int
    age: int  # frames before the current one


@dataclass(frozen=True)
class MemorySelection:
    """What one frame attends to, in the order in which the tokens are laid out."""

    spatial: tuple[SpatialChoice, ...]
    pointers: tuple[PointerChoice, ...]


@dataclass(frozen=True)
class BankPolicy:
    """The rule of SAM 2's memory bank for an endless stream.

    Attending: every kept conditioning frame, the spatial memories of the ``num_spatial - 1`` frames before this one,
    and the pointers of the ``max_pointers - 1`` frames before this one. Whatever no later frame can attend to is
    dropped; this is exact, not an approximation. The one deviation: of a long history of prompts only
    ``max_conditioning`` are kept, the first (what the user meant) and the latest.
    """

    num_spatial: int
    max_pointers: int
    max_conditioning: int = 8

    def select(self, frame: int, conditioning: Collection[int], recent: Collection[int]) -> MemorySelection:
        """What ``frame`` attends to, given the frames remembered as conditioning and as tracked."""
        prompted = sorted(conditioning)
        spatial = [SpatialChoice(f, self.num_spatial - 1) for f in prompted]
        # Oldest first: slot 0 is the frame just before.
        for slot in range(self.num_spatial - 2, -1, -1):
            if frame - slot - 1 in recent:
                spatial.append(SpatialChoice(frame - slot - 1, slot))
        pointers = [PointerChoice(f, frame - f) for f in prompted]
        for age in range(1, self.max_pointers):
            if frame - age in recent:
                pointers.append(PointerChoice(frame - age, age))
        return MemorySelection(tuple(spatial), tuple(pointers))

    def without_spatial(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames whose spatial memory no frame from ``next_frame`` on attends to."""
        return [f for f in recent if f < next_frame - (self.num_spatial - 1)]

    def expired(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames of which nothing is attended to from ``next_frame`` on."""
        return [f for f in recent if f < next_frame - max(self.num_spatial - 1, self.max_pointers - 1)]

    def surplus_conditioning(self, conditioning: Collection[int]) -> list[int]:
        """Conditioning frames to let go: the oldest ones after the first."""
        ordered = sorted(conditioning)
        return ordered[1 : 1 + max(0, len(ordered) - self.max_conditioning)]
