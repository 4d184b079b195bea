"""The data engine's three phases with a simulated annotator: what a masklet costs, and what a given effort brings.

After section 5.1 of the SAM 2 paper. The annotator has the true masks, goes through the video once, and edits a frame
when its IoU is below 0.75:

1. every frame for itself, clicks from nothing (SAM per frame);
2. the mask is propagated; a bad one is made anew, clicks from nothing, and propagated from there (SAM + SAM 2 Mask);
3. the mask is propagated; a bad one is corrected by clicks with the full memory (SAM 2).

Clicks lie in the middle of the largest error. Where ``MAX_CLICKS`` of them are not enough the annotator paints the
frame, and where the object is not there, erases it: both count as a painted frame. The paper measured people's seconds;
here clicks, edited and painted frames are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.sequences import VideoSequence
from sam2_ros.evaluation.interactive import GOOD_IOU, clicking, true_mask
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.trackers import VideoTracker, fork, mask_of

PHASES = (1, 2, 3)
MAX_CLICKS = 10  # in one frame; then it is painted

_ID = "object"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EngineRun:
    """One masklet, made in one phase."""

    phase: int
    regions: Mapping[int, float]  # J by annotated frame, from the first that shows the object
    clicks: int
    edited_frames: int  # clicked or painted
    painted_frames: int

    @property
    def region(self) -> float:
        """Mean J over all annotated frames; those that were edited count too, as they are part of the masklet."""
        return sum(self.regions.values()) / len(self.regions)


@dataclass
class _Annotator:
    """One pass over a video, as it goes."""

    phase: int
    budget: int | None  # clicks; None: as many as it takes, and paint
    tracker: VideoTracker  # as of the frame before
    started: bool = False
    regions: dict[int, float] = field(default_factory=dict)
    clicks: int = 0
    edited: int = 0
    painted: int = 0

    def see(self, index: int, image: Any, truth: Mask | None, nothing: Mask) -> None:
        """The next frame: track into it, and edit it if it is bad. ``truth`` is None if it is not annotated."""
        before = fork(self.tracker)
        mask = nothing
        if self.started and self.phase != 1:
            mask = mask_of(_ID, self.tracker.step(image))
        if truth is None or not (self.started or truth.any()):
            return
        if region_similarity(mask, truth) < GOOD_IOU:
            mask = self._edit(before, image, truth, mask)
        self.started = True
        self.regions[index] = region_similarity(mask, truth)

    def _edit(self, before: VideoTracker, image: Any, truth: Mask, mask: Mask) -> Mask:
        """The mask after clicks, or paint; the tracker continues from it."""
        left = MAX_CLICKS if self.budget is None else min(MAX_CLICKS, self.budget - self.clicks)
        if left <= 0:
            return mask
        with_memory = self.phase == 3 and self.started
        start = before if with_memory else _without_objects(before)
        best: tuple[float, Mask, VideoTracker] = (region_similarity(mask, truth), mask, self.tracker)
        if truth.any():
            for corrected in clicking(start, image, truth, mask if with_memory else None, left):
                self.clicks += 1
                score = region_similarity(corrected.mask, truth)
                if score > best[0]:
                    best = (score, corrected.mask, corrected.tracker)
                if score >= GOOD_IOU:
                    break
            self.edited += 1
        elif self.budget is None:
            self.edited += 1
        if best[0] < GOOD_IOU and self.budget is None:
            self.painted += 1
            best = (1.0, truth, best[2])
        _, mask, edited = best
        if self.phase == 3 and mask is not truth:
            self.tracker = edited
        elif self.phase != 1 and mask.any():
            self.tracker = before  # it continues from the mask
            self.tracker.add_prompt(_ID, mask=mask)
            self.tracker.step(image)
        return mask


def annotate(
    tracker: VideoTracker,
    sequence: VideoSequence,
    value: int,
    phase: int,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EngineRun:
    """Make the masklet of one object.

    Args:
        tracker: takes clicks and masks; it is reset, and left in some state.
        sequence: with true masks.
        value: of the object in them.
        phase: 1, 2 or 3.
        budget: stop editing after so many clicks, and paint nothing; None: edit until no frame is bad.
        progress: called after each frame with the frames done and in all.
    """
    if phase not in PHASES:
        raise ValueError(f"phase: expected 1, 2 or 3, got {phase}")
    tracker.reset()
    annotator = _Annotator(phase, budget, tracker)
    for index in range(len(sequence)):
        image_rgb = sequence.frame_rgb(index)
        # Encoded once, however often the frame is tried.
        image = tracker.prefetch(image_rgb) if hasattr(tracker, "prefetch") else image_rgb
        nothing = np.zeros(image_rgb.shape[:2], np.bool_)
        annotator.see(index, image, true_mask(sequence, index, value), nothing)
        if progress:
            progress(index + 1, len(sequence))
    if not annotator.regions:
        raise ValueError(f"{sequence.name}: no frame shows object {value}")
    return EngineRun(phase, annotator.regions, annotator.clicks, annotator.edited, annotator.painted)


def _without_objects(tracker: VideoTracker) -> VideoTracker:
    fresh = fork(tracker)
    fresh.reset()
    return fresh


@dataclass(frozen=True)
class EngineResult:
    """One object in one phase."""

    sequence: str
    value: int  # in the ground truth
    until_good: EngineRun
    at_budget: EngineRun


def engine_report(results: Sequence[EngineResult], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON report: the settings, the means over masklets by phase, and a row per masklet and phase."""
    phases = sorted({result.until_good.phase for result in results})
    return {
        **settings,
        "masklets": len({(result.sequence, result.value) for result in results}),
        "phases": {
            str(phase): _means([result for result in results if result.until_good.phase == phase]) for phase in phases
        },
        "rows": [
            {"sequence": result.sequence, "object": result.value, "phase": result.until_good.phase, **_means([result])}
            for result in results
        ],
    }


def _means(results: Sequence[EngineResult]) -> dict[str, float]:
    runs, limited = [result.until_good for result in results], [result.at_budget for result in results]
    frames = sum(len(run.regions) for run in runs)
    return {
        "clicks_per_masklet": round(float(np.mean([run.clicks for run in runs])), 2),
        "edited_frames_per_masklet": round(float(np.mean([run.edited_frames for run in runs])), 2),
        "edited_share": round(sum(run.edited_frames for run in runs) / frames, 4),
        "painted_share": round(sum(run.painted_frames for run in runs) / frames, 4),
        "J": round(float(np.mean([run.region for run in runs])), 4),
        "J_at_budget": round(float(np.mean([run.region for run in limited])), 4),
        "clicks_at_budget": round(float(np.mean([run.clicks for run in limited])), 2),
    }
