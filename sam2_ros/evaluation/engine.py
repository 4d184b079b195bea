"""The data engine's three phases with a simulated annotator: what a masklet costs, and what a given effort brings.

After section 5.1 of the SAM 2 paper. The annotator has the true masks and works with what the page works with, the
``Segmenter``: goes through the video once, stops at the first frame whose IoU is below 0.75, edits it, and goes on from
there:

1. every frame for itself, clicks from nothing (SAM per frame);
2. the mask is propagated; a bad one is made anew, clicks from nothing, and propagated from there (SAM + SAM 2 Mask);
3. the mask is propagated; a bad one is corrected by clicks with the memory, and propagated from there (SAM 2).

As in the page an edited frame is a conditioning frame from then on, in phases 2 and 3 alike: they differ by how a frame
is edited. Clicks lie in the middle of the largest error. Where ``MAX_CLICKS`` of them are not enough the annotator
paints the frame, and where the object is not there, erases it: both count as a painted frame. The paper measured
people's seconds; here clicks, edited and painted frames are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource
from sam2_ros.annotate.segmenter import PHASES, Propagation
from sam2_ros.data.files.sequences import VideoSequence
from sam2_ros.evaluation.interactive import GOOD_IOU, true_mask
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.prompt_sampling import center_click, correction_click

MAX_CLICKS = 10  # in one frame; then it is painted

Mask = NDArray[np.bool_]


class Segments(Protocol):
    """The part of ``Segmenter``, over the frames of the sequence, that the annotator uses."""

    def click(
        self, masklet: Masklet | None, index: int, prompts: Sequence[FramePrompt], phase: int = 3
    ) -> MaskletFrame: ...

    def propagate(self, masklets: Sequence[Masklet], start: int, stop: int) -> Iterator[Propagation]: ...


@dataclass(frozen=True)
class EngineRun:
    """One masklet, made in one phase."""

    phase: int
    regions: Mapping[int, float]  # J by annotated frame, from the first that shows the object
    clicks: int
    edited_frames: int  # clicked or painted
    clicked_frames: int
    painted_frames: int

    @property
    def region(self) -> float:
        """Mean J over all annotated frames; those that were edited count too, as they are part of the masklet."""
        return sum(self.regions.values()) / len(self.regions)


@dataclass
class _Annotator:
    """One pass over a video, as it goes."""

    segmenter: Segments
    phase: int
    truths: Mapping[int, Mask]  # of the annotated frames, from the first that shows the object
    budget: int | None  # clicks; None: as many as it takes, and paint
    masklet: Masklet
    clicks: int = 0
    clicked: set[int] = field(default_factory=set)
    painted: set[int] = field(default_factory=set)

    def region(self, index: int) -> float:
        return region_similarity(self._mask(index), self.truths[index])

    def is_bad(self, index: int) -> bool:
        """Whether the annotator stops here: the mask is bad, and may be edited."""
        if index not in self.truths or self.region(index) >= GOOD_IOU:
            return False
        return self.budget is None or (self.clicks < self.budget and bool(self.truths[index].any()))

    def propagate(self, start: int, stop: int) -> Iterator[int]:
        """Take over what is propagated from a frame, and yield each frame after it."""
        if self.phase == 1 or not self.has_mask(start):
            yield from range(start + 1, stop + 1)
            return
        for step in self.segmenter.propagate([self.masklet], start, stop):
            if (frame := step.frames.get(self.masklet.masklet_id)) is not None:
                self._store({step.index: frame})
            yield step.index

    def has_mask(self, index: int) -> bool:
        """Whether the annotator has made a frame, and shows the object there."""
        return self.masklet.is_kept(index) and self.masklet.frames[index].visible

    def edit(self, index: int) -> None:
        """Click until the frame is good, then paint or erase it if nothing else helps and no budget forbids it."""
        truth = self.truths[index]
        if truth.any():
            self._click(index, truth)
        if self.region(index) < GOOD_IOU and self.budget is None:
            self.painted.add(index)
            self._store({index: MaskletFrame.of_mask(truth, MaskSource.BRUSH)})

    def _click(self, index: int, truth: Mask) -> None:
        """Click while it helps; the best of what the clicks gave stays, if it is better than what was there."""
        left = MAX_CLICKS if self.budget is None else min(MAX_CLICKS, self.budget - self.clicks)
        corrects = self.phase == 3 and bool(self.masklet.frames)
        mask = self._mask(index) if corrects else None
        best, best_region = None, self.region(index)
        prompts: list[FramePrompt] = []
        while len(prompts) < left:
            click = center_click(truth) if mask is None else correction_click(mask, truth)
            if click is None:
                break
            prompts.append(FramePrompt(((click.x, click.y),), (click.label,)))
            frame = self.segmenter.click(self.masklet, index, prompts, self.phase)
            mask = frame.mask()
            region = region_similarity(mask, truth)
            if region > best_region:
                best, best_region = frame, region
            if region >= GOOD_IOU:
                break
        self.clicks += len(prompts)
        self.clicked.add(index)
        if best is not None:
            self._store({index: best})

    def _mask(self, index: int) -> Mask:
        frame = self.masklet.frames.get(index)
        return np.zeros(self.truths[index].shape, np.bool_) if frame is None else frame.mask()

    def _store(self, frames: Mapping[int, MaskletFrame]) -> None:
        self.masklet = self.masklet.with_frames(frames)


def annotate(
    segmenter: Segments,
    sequence: VideoSequence,
    value: int,
    phase: int,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EngineRun:
    """Make the masklet of one object.

    Args:
        segmenter: over the frames of the sequence.
        sequence: with true masks.
        value: of the object in them.
        phase: 1, 2 or 3.
        budget: stop editing after so many clicks, and paint nothing; None: edit until no frame is bad.
        progress: called with the frames done and in all.
    """
    if phase not in PHASES:
        raise ValueError(f"phase: expected 1, 2 or 3, got {phase}")
    truths = _truths(sequence, value)
    annotator = _Annotator(segmenter, phase, truths, budget, Masklet("object", "object", phase=phase))
    for index in _bad_frames(annotator, len(sequence), progress):
        annotator.edit(index)
    regions = {index: annotator.region(index) for index in truths}
    edited = annotator.clicked | annotator.painted
    return EngineRun(phase, regions, annotator.clicks, len(edited), len(annotator.clicked), len(annotator.painted))


def _bad_frames(annotator: _Annotator, num_frames: int, progress: Callable[[int, int], None] | None) -> Iterator[int]:
    """The frames that the annotator edits, one after the other; each before the next is looked for."""
    start = min(annotator.truths)
    yield start
    while True:
        for index in annotator.propagate(start, num_frames - 1):
            if progress:
                progress(index + 1, num_frames)
            if annotator.is_bad(index):
                yield index
                if annotator.phase != 1 and annotator.has_mask(index):
                    start = index
                    break
        else:
            return


def _truths(sequence: VideoSequence, value: int) -> dict[int, Mask]:
    """The true masks of the annotated frames, from the first that shows the object."""
    truths: dict[int, Mask] = {}
    for index in range(len(sequence)):
        truth = true_mask(sequence, index, value)
        if truth is not None and (truths or truth.any()):
            truths[index] = truth
    if not truths:
        raise ValueError(f"{sequence.name}: no frame shows object {value}")
    return truths


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
    clicks, clicked = sum(run.clicks for run in runs), sum(run.clicked_frames for run in runs)
    return {
        "clicks_per_masklet": round(clicks / len(runs), 2),
        "clicks_per_clicked_frame": round(clicks / max(1, clicked), 2),
        "edited_frames_per_masklet": round(float(np.mean([run.edited_frames for run in runs])), 2),
        "edited_share": round(sum(run.edited_frames for run in runs) / frames, 4),
        "painted_share": round(sum(run.painted_frames for run in runs) / frames, 4),
        "J": round(float(np.mean([run.region for run in runs])), 4),
        "J_at_budget": round(float(np.mean([run.region for run in limited])), 4),
        "clicks_at_budget": round(float(np.mean([run.clicks for run in limited])), 2),
    }
