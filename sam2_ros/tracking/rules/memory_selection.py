"""Which tracked frames an object attends to: SAM 2's rule, and two that leave out doubtful frames.

SAM 2 attends to the frames just before the current one, whatever they showed: one bad frame affects the next
seven. Both rules here need no training. They decide with frame numbers and scores alone; the tensors are in ``Track``.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sam2_ros.model.config import ModelConfig
from sam2_ros.tracking.memory_bank import (
    BankPolicy,
    FrameScore,
    MemorySelection,
    PointerChoice,
    SpatialChoice,
)

MEMORY_SELECTIONS = ("auto", "recent", "confident", "distractor")
AREAS_KEPT = 10  # of an object's latest masks, whose median a new anchor's area is compared with


@dataclass(frozen=True)
class ConfidentPolicy(BankPolicy):
    """Attend to the latest frames in which the object was certainly seen, and to the previous frame (SAM 3's tracker).

    A frame counts when its confidence is above ``least_confidence``. A memory's slot, and its pointer's age, are its
    place in that order, not its age in frames. Where every frame counts this selects what ``BankPolicy`` does;
    conditioning frames have a place for that reason. (SAM 3 itself then takes one pointer less.)
    """

    least_confidence: float = 0.01
    needs_scores = True
    name = "confident"

    def select(self, frame: int, conditioning: Collection[int], recent: Collection[int]) -> MemorySelection:
        scores = {**_scores(recent), **_scores(conditioning)}
        attended = self._attended(frame, sorted(conditioning))
        before = sorted((f for f in scores if f < frame), reverse=True)
        order = [f for f in before if f == frame - 1 or self._counts(scores[f])][: self._places]
        spatial = [SpatialChoice(f, self.num_spatial - 1) for f in attended]
        spatial += [SpatialChoice(f, slot) for slot, f in _backwards(order[: self.reach]) if f not in attended]
        pointers = [PointerChoice(f, frame - f) for f in attended]
        pointers += [
            PointerChoice(f, place + 1) for place, f in enumerate(order[: self.max_pointers - 1]) if f not in attended
        ]
        return MemorySelection(tuple(spatial), tuple(pointers))

    def without_spatial(self, next_frame: int, recent: Collection[int]) -> list[int]:
        return self._beyond(self.reach, next_frame, _scores(recent))

    def expired(self, next_frame: int, recent: Collection[int]) -> list[int]:
        return self._beyond(self._places, next_frame, _scores(recent))

    @property
    def _places(self) -> int:
        return max(self.reach, self.max_pointers - 1)

    def _beyond(self, places: int, next_frame: int, scores: Mapping[int, FrameScore]) -> list[int]:
        """Frames that are neither the latest one nor among the latest ``places`` that count.

        A doubtful frame is dropped when the next one comes; it does not count among these places.
        """
        counting = sorted((f for f, score in scores.items() if self._counts(score)), reverse=True)
        kept = {next_frame - 1, *counting[:places]}
        return [f for f in scores if f not in kept]

    def _counts(self, score: FrameScore) -> bool:
        return score.confidence > self.least_confidence


@dataclass(frozen=True)
class DistractorPolicy(BankPolicy):
    """Attend to frames further apart, and keep frames in which something similar was told apart (DAM4SAM, CVPR 2025).

    Tracked frames with an empty mask are never attended to. Of the others the newest is, and every ``stride``-th; their
    slot is their place in that order. Pointers are those of ``BankPolicy`` without the empty frames.

    An *anchor* is a tracked frame that becomes a conditioning frame, because a surely seen object stood beside
    something that was nearly taken for it. The latest ``max_anchors`` are kept beside the user's.
    """

    stride: int = 5  # frames
    max_anchors: int = 3
    least_iou: float = 0.8  # predicted, of an anchor
    least_area: float = 0.8  # of an anchor's mask, in medians of the object's latest ones
    most_area: float = 1.2
    frames_between: int = 5  # an anchor comes more than this after the last conditioning frame
    most_box_iou: float = 0.7  # of the mask's box, and its box with the rival: a rival lies outside of the mask
    needs_scores = True
    finds_anchors = True
    name = "distractor"

    @property
    def most_anchors(self) -> int:
        return self.max_anchors

    def select(self, frame: int, conditioning: Collection[int], recent: Collection[int]) -> MemorySelection:
        scores = {**_scores(recent), **_scores(conditioning)}
        attended = self._attended(frame, sorted(conditioning))
        seen = {f: score for f, score in scores.items() if f < frame and not score.is_empty}
        order = self._order(seen)[: self.reach]
        spatial = [SpatialChoice(f, self.num_spatial - 1) for f in attended]
        spatial += [SpatialChoice(f, slot) for slot, f in _backwards(order) if f not in attended]
        pointers = [PointerChoice(f, frame - f) for f in attended]
        pointers += [
            PointerChoice(f, frame - f)
            for f in sorted(seen, reverse=True)
            if frame - f < self.max_pointers and f not in attended
        ]
        return MemorySelection(tuple(spatial), tuple(pointers))

    def without_spatial(self, next_frame: int, recent: Collection[int]) -> list[int]:
        # One more than the reach: the newest frame may lie between two strides, or on one.
        kept = set(self._order(_scores(recent))[: self.reach + 1])
        return [f for f in recent if f not in kept]

    def expired(self, next_frame: int, recent: Collection[int]) -> list[int]:
        scores = _scores(recent)
        return [
            f
            for f in self.without_spatial(next_frame, recent)
            if next_frame - f >= self.max_pointers or scores[f].is_empty
        ]

    def surplus_conditioning(self, conditioning: Collection[int]) -> list[int]:
        scores = _scores(conditioning)
        anchors = [f for f in sorted(conditioning) if scores[f].is_anchor]
        given = super().surplus_conditioning([f for f in conditioning if f not in anchors])
        return sorted([*given, *anchors[: max(0, len(anchors) - self.max_anchors)]])

    def may_anchor(
        self, frame: int, conditioning: Collection[int], predicted_iou: float, area_px: int, areas_px: Sequence[int]
    ) -> bool:
        return (
            area_px > 0
            and predicted_iou > self.least_iou
            and frame - max(conditioning, default=frame) > self.frames_between
            and bool(areas_px)
            and self.least_area <= area_px / statistics.median(areas_px) <= self.most_area
        )

    def shows_rival(self, box_iou: float) -> bool:
        return box_iou <= self.most_box_iou

    def _order(self, scores: Mapping[int, FrameScore]) -> list[int]:
        """The newest frame with a mask, then those with one that lie on a stride, newest first."""
        seen = sorted((f for f, score in scores.items() if not score.is_empty), reverse=True)
        return seen[:1] + [f for f in seen[1:] if f % self.stride == 0]


def bank_policy(config: ModelConfig, memory_selection: str = "auto") -> BankPolicy:
    """The policy of one of ``MEMORY_SELECTIONS`` for a network; "auto" is the one that its table names.

    Raises:
        ValueError: any other name.
    """
    policies = {"recent": BankPolicy, "confident": ConfidentPolicy, "distractor": DistractorPolicy}
    if memory_selection not in MEMORY_SELECTIONS:
        raise ValueError(f"memory_selection: expected one of {', '.join(MEMORY_SELECTIONS)}, got {memory_selection!r}")
    return policies[config.memory_selection if memory_selection == "auto" else memory_selection].of(config)


def _backwards(order: Sequence[int]) -> list[tuple[int, int]]:
    """(slot, frame), the oldest first: the order of the tokens."""
    return list(reversed(list(enumerate(order))))


def _scores(frames: Collection[int]) -> Mapping[int, FrameScore]:
    """The scores that come with the frames; of frames alone, those of good ones."""
    return frames if isinstance(frames, Mapping) else dict.fromkeys(frames, FrameScore())
