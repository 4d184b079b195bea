"""One tracked object: its identity and its bounded memory, as of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from sam2_ros.tracking.memory_bank import BankPolicy, MemorySelection
from sam2_ros.tracking.memory_tokens import FrameMemory
from sam2_ros.tracking.types import ObjectState


@dataclass
class Track:
    object_id: str
    label: int
    state: ObjectState = ObjectState.PENDING
    last_seen_frame: int = -1
    conditioning: dict[int, FrameMemory] = field(default_factory=dict)
    recent: dict[int, FrameMemory] = field(default_factory=dict)
    visible_in_a_row: int = 0  # frames; starts again in a loaded session

    def copy(self) -> Track:
        """A track of its own; the memories themselves are shared, nothing writes to them."""
        return replace(self, conditioning=dict(self.conditioning), recent=dict(self.recent))

    @property
    def has_memory(self) -> bool:
        return bool(self.conditioning)

    def select(self, policy: BankPolicy, frame: int) -> MemorySelection:
        return policy.select(frame, self.conditioning, self.recent)

    @property
    def frames(self) -> dict[int, FrameMemory]:
        return {**self.recent, **self.conditioning}

    def remember(self, policy: BankPolicy, frame: int, memory: FrameMemory, is_conditioning: bool) -> None:
        """Add this frame, the newest, and drop what no later frame attends to."""
        assert memory.spatial_bchw is not None
        # bfloat16 in every run, as the official predictor stores it: results must not depend on how long it is kept.
        kept = FrameMemory(memory.spatial_bchw.to(torch.bfloat16).contiguous(), memory.pointer_bc.clone())
        (self.conditioning if is_conditioning else self.recent)[frame] = kept
        for old in policy.surplus_conditioning(self.conditioning):
            self.recent[old] = self.conditioning.pop(old)
        self._drop_old(policy, frame + 1)

    def demote(self, policy: BankPolicy, frame: int, next_frame: int) -> None:
        """Let a conditioning frame count as a tracked one; as such it may be too old to be kept."""
        self.recent[frame] = self.conditioning.pop(frame)
        self._drop_old(policy, next_frame)

    def _drop_old(self, policy: BankPolicy, next_frame: int) -> None:
        for old in policy.expired(next_frame, self.recent):
            del self.recent[old]
        for old in policy.without_spatial(next_frame, self.recent):
            self.recent[old] = replace(self.recent[old], spatial_bchw=None)

    def update_state(self, frame: int, is_visible: bool, lost_after_frames: int, recover_after_frames: int = 1) -> None:
        """One that is out of sight must be visible in ``recover_after_frames`` frames in a row to be TRACKED again."""
        self.visible_in_a_row = self.visible_in_a_row + 1 if is_visible else 0
        is_missing = self.state in (ObjectState.OCCLUDED, ObjectState.LOST)
        is_seen = is_visible and (not is_missing or self.visible_in_a_row >= recover_after_frames)
        if is_seen or self.state == ObjectState.PENDING:  # whoever pointed at it saw it
            self.last_seen_frame = frame
        if is_seen:
            self.state = ObjectState.TRACKED
        elif frame - self.last_seen_frame > lost_after_frames:
            self.state = ObjectState.LOST
        else:
            self.state = ObjectState.OCCLUDED
