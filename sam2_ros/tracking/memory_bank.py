"""Which frames to keep and which to attend to: frame numbers only, no tensors.

SAM 2 paper, section 4 "Memory bank"; the numbering of slots and pointers is that of the official code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sam2_ros.model.config import ModelConfig


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

    Attending: the conditioning frames, the spatial memories of the ``num_spatial - 1`` frames before this one, and the
    pointers of the ``max_pointers - 1`` frames before this one. Whatever no later frame can attend to is dropped; this
    is exact, not an approximation. The one deviation: of a long history of prompts only ``num_conditioning`` frames
    stay conditioning frames, the first (what the user meant) and the latest; the others pass like tracked frames.

    With ``max_in_attention`` only that many conditioning frames are attended to as such: the nearest before this frame,
    the nearest after, then the closest. One that is left out counts as a tracked frame while it is recent enough.
    """

    num_spatial: int
    max_pointers: int
    max_conditioning: int = 8
    max_in_attention: int | None = None  # None = all that are kept
    num_recent: int | None = None  # an approximation: spatial memories of fewer frames; None = num_spatial - 1

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
        """How many frames before this one are attended to with their spatial memory."""
        return self.num_spatial - 1 if self.num_recent is None else self.num_recent

    @property
    def num_conditioning(self) -> int:
        """Conditioning frames kept: enough that those attended to are the ones of an unbounded history."""
        return max(self.max_conditioning, 1 + (self.max_in_attention or 0))

    def select(self, frame: int, conditioning: Collection[int], recent: Collection[int]) -> MemorySelection:
        """What ``frame`` attends to, given the frames remembered as conditioning and as tracked."""
        prompted = self._attended(frame, sorted(conditioning))
        recent = {*recent, *conditioning} - set(prompted)
        spatial = [SpatialChoice(f, self.num_spatial - 1) for f in prompted]
        # Oldest first: slot 0 is the frame just before.
        for slot in range(self.reach - 1, -1, -1):
            if frame - slot - 1 in recent:
                spatial.append(SpatialChoice(frame - slot - 1, slot))
        pointers = [PointerChoice(f, frame - f) for f in prompted]
        for age in range(1, self.max_pointers):
            if frame - age in recent:
                pointers.append(PointerChoice(frame - age, age))
        return MemorySelection(tuple(spatial), tuple(pointers))

    def _attended(self, frame: int, prompted: list[int]) -> list[int]:
        """Of the conditioning frames, oldest first, those that ``frame`` attends to as such."""
        if self.max_in_attention is None or len(prompted) <= self.max_in_attention:
            return prompted
        before, after = [f for f in prompted if f < frame], [f for f in prompted if f >= frame]
        nearest = before[-1:] + after[:1]
        others = sorted((f for f in prompted if f not in nearest), key=lambda f: abs(f - frame))
        return sorted((nearest + others)[: self.max_in_attention])

    def without_spatial(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames whose spatial memory no frame from ``next_frame`` on attends to."""
        return [f for f in recent if f < next_frame - self.reach]

    def expired(self, next_frame: int, recent: Collection[int]) -> list[int]:
        """Tracked frames of which nothing is attended to from ``next_frame`` on."""
        return [f for f in recent if f < next_frame - max(self.reach, self.max_pointers - 1)]

    def surplus_conditioning(self, conditioning: Collection[int]) -> list[int]:
        """Frames that are to be conditioning frames no longer: the oldest ones after the first."""
        ordered = sorted(conditioning)
        return ordered[1 : 1 + max(0, len(ordered) - self.num_conditioning)]
