"""Interactive video segmentation: the accuracy that corrections bring, and the clicks that memory saves.

The protocols of the SAM 2 paper (section 6.1), one object at a time, three clicks per frame: the first in the middle of
the object, or of the largest error if there is a mask already, the others in the middle of the largest remaining error.

- offline: up to eight passes over the video. Each adds clicks in the frame that was worst in the previous pass.
- online: one pass, which stops for clicks wherever the IoU falls below 0.75, in at most eight frames.

Here a correction uses earlier frames only. The official predictor, which holds the whole video, also propagates it
backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.sequences import VideoSequence
from sam2_ros.evaluation.metrics import Score, mean_score, region_similarity, score_frame, score_object
from sam2_ros.evaluation.prompt_sampling import Click, center_click, correction_click
from sam2_ros.evaluation.trackers import VideoTracker, add_clicks, fork, mask_of

GOOD_IOU = 0.75  # online: below this a user would correct
CLICKS_PER_FRAME = 3
MAX_FRAMES = 8  # with clicks, per object
MAX_RECOVERY_CLICKS = 10

_ID = "object"


@dataclass(frozen=True)
class Recovery:
    """Clicks that brought a lost object back to ``GOOD_IOU`` in one frame; None: more than ``MAX_RECOVERY_CLICKS``."""

    frame_index: int
    with_memory: int | None  # correcting the tracked mask
    from_scratch: int | None  # prompting the object as a new one


@dataclass(frozen=True)
class Pass:
    """One run through the video."""

    frames: Mapping[int, Score]  # of the annotated frames, from the first that shows the object
    clicks: Mapping[int, tuple[Click, ...]]  # by frame
    recoveries: tuple[Recovery, ...] = ()

    @property
    def score(self) -> Score | None:
        """Mean without the first and the last annotated frame, as in the video benchmarks."""
        return score_object(list(self.frames.values()))

    @property
    def click_count(self) -> int:
        return sum(len(clicks) for clicks in self.clicks.values())


@dataclass(frozen=True)
class _Plan:
    """Where a pass clicks. The first frame that shows the object always gets clicks."""

    recorded: Mapping[int, tuple[Click, ...]]  # clicks of earlier passes by frame, which are repeated
    stops_at: Callable[[int, float], bool]  # whether a frame gets new clicks, given its index and IoU
    measures_recovery: bool = False  # at each stop


@dataclass
class _Run:
    """The running results of a pass."""

    tracker: VideoTracker
    frames: dict[int, Score] = field(default_factory=dict)
    clicks: dict[int, tuple[Click, ...]] = field(default_factory=dict)
    recoveries: list[Recovery] = field(default_factory=list)


@dataclass(frozen=True)
class _Corrected:
    """One frame after some clicks."""

    tracker: VideoTracker  # as of after the frame
    mask: NDArray[np.bool_]  # (H, W)
    clicks: tuple[Click, ...]


class InteractiveEvaluator:
    """Simulates the user of one tracker.

    Args:
        tracker: accepts clicks; reset before each pass.
        progress: called after each frame with the frames done and in all of the pass.
    """

    def __init__(self, tracker: VideoTracker, progress: Callable[[int, int], None] | None = None) -> None:
        self._tracker = tracker
        self._progress = progress

    def online(self, sequence: VideoSequence, value: int) -> Pass:
        """One pass that stops where the object is lost, and counts the clicks to recover it with and without memory."""
        return self._run(sequence, value, _Plan({}, lambda _, iou: iou < GOOD_IOU, measures_recovery=True))

    def offline(self, sequence: VideoSequence, value: int, passes: int = MAX_FRAMES) -> tuple[Pass, ...]:
        """Several passes, each with clicks in one more frame; fewer if nothing is left to correct."""
        done = [self._run(sequence, value, _Plan({}, lambda _index, _iou: False))]
        while len(done) < passes:
            worst = _worst_frame(done[-1])
            if worst is None:
                break
            done.append(self._run(sequence, value, _Plan(done[-1].clicks, partial(_is_frame, worst))))
        return tuple(done)

    def _run(self, sequence: VideoSequence, value: int, plan: _Plan) -> Pass:
        """Track the object with this value from the first frame that shows it to the end."""
        self._tracker.reset()
        run = _Run(self._tracker)
        for index in range(len(sequence)):
            image_rgb = sequence.frame_rgb(index)
            truth = true_mask(sequence, index, value)
            if run.clicks or (truth is not None and truth.any()):
                _process_frame(run, plan, index, image_rgb, truth)
            else:
                run.tracker.step(image_rgb)
            if self._progress:
                self._progress(index + 1, len(sequence))
        return Pass(run.frames, run.clicks, tuple(run.recoveries))


def _process_frame(
    run: _Run, plan: _Plan, index: int, image_rgb: NDArray[np.uint8], truth: NDArray[np.bool_] | None
) -> None:
    """Track the object into one frame, and click if the plan says so. ``truth`` is None if it is not annotated."""
    before = fork(run.tracker)
    mask: NDArray[np.bool_] | None = None
    if run.clicks or index in plan.recorded:
        if index in plan.recorded:
            run.clicks[index] = plan.recorded[index]
            add_clicks(run.tracker, _ID, run.clicks[index])
        mask = mask_of(_ID, run.tracker.step(image_rgb))
    if truth is None:
        return
    may_stop = index not in run.clicks and len(run.clicks) < MAX_FRAMES
    if mask is None or (may_stop and plan.stops_at(index, region_similarity(mask, truth))):
        if mask is not None and plan.measures_recovery and truth.any():
            run.recoveries.append(_recovery(index, before, image_rgb, truth, mask))
        *_, corrected = clicking(before, image_rgb, truth, mask, CLICKS_PER_FRAME)
        run.tracker, mask, run.clicks[index] = corrected.tracker, corrected.mask, corrected.clicks
    run.frames[index] = score_frame(mask, truth)


def _recovery(
    index: int, before: VideoTracker, image_rgb: NDArray[np.uint8], truth: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> Recovery:
    fresh = fork(before)
    fresh.reset()
    return Recovery(
        index, clicks_to_good(before, image_rgb, truth, mask), clicks_to_good(fresh, image_rgb, truth, None)
    )


def clicks_to_good(
    before: VideoTracker, image_rgb: NDArray[np.uint8], truth: NDArray[np.bool_], mask: NDArray[np.bool_] | None
) -> int | None:
    """Number of clicks in one frame for an IoU of at least ``GOOD_IOU``; None if it exceeds ``MAX_RECOVERY_CLICKS``.

    Args:
        before, image_rgb, truth, mask: see ``clicking``.
    """
    for corrected in clicking(before, image_rgb, truth, mask, MAX_RECOVERY_CLICKS):
        if region_similarity(corrected.mask, truth) >= GOOD_IOU:
            return len(corrected.clicks)
    return None


def clicking(
    before: VideoTracker,
    image_rgb: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_] | None,
    count: int,
) -> Iterator[_Corrected]:
    """Yield the frame after each of up to ``count`` clicks, each placed in the error that the earlier ones left.

    Args:
        before: the tracker as of before the frame; not changed.
        image_rgb: (H, W, 3) uint8.
        truth: (H, W) bool, not equal to the mask.
        mask: the tracked mask; None if the tracker does not know the object.
        count: at least 1.
    """
    clicks: tuple[Click, ...] = ()
    while len(clicks) < count:
        following = center_click(truth) if mask is None else correction_click(mask, truth)
        if following is None:
            return
        clicks = (*clicks, following)
        after = fork(before)
        add_clicks(after, _ID, clicks)
        mask = mask_of(_ID, after.step(image_rgb))
        yield _Corrected(after, mask, clicks)


def true_mask(sequence: VideoSequence, index: int, value: int) -> NDArray[np.bool_] | None:
    """The object's true mask in a frame; None if it is not annotated."""
    if not sequence.is_annotated(index, value):
        return None
    masks = sequence.masks(index)
    if value in masks:
        return masks[value]
    height, width = sequence.frame_rgb(index).shape[:2]
    return np.zeros((height, width), bool)


def _is_frame(wanted: int, index: int, _iou: float) -> bool:
    return index == wanted


def _worst_frame(done: Pass) -> int | None:
    """The frame with the lowest IoU among those without clicks; None if all are perfect."""
    open_frames = {index: score.region for index, score in done.frames.items() if index not in done.clicks}
    worst = min(open_frames, key=open_frames.__getitem__, default=None)
    return None if worst is None or open_frames[worst] == 1.0 else worst


def objects_of(sequence: VideoSequence) -> Sequence[int]:
    """The values of all objects that a sequence shows."""
    values: set[int] = set()
    for index in sequence.annotated_frames:
        values |= {value for value, mask in sequence.masks(index).items() if mask.any()}
    return sorted(values)


@dataclass(frozen=True)
class InteractiveResult:
    """One object of one sequence."""

    sequence: str
    value: int  # in the ground truth
    offline: tuple[Pass, ...]
    online: Pass


def interactive_report(results: Sequence[InteractiveResult], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON report: the settings, the means over objects, and a row per object; null if not scored.

    The offline list is J&F after 1, 2, ... passes; an object that needed fewer passes keeps its last score.
    """
    passes = max((len(result.offline) for result in results), default=0)
    offline = [_j_and_f([result.offline[min(n, len(result.offline) - 1)] for result in results]) for n in range(passes)]
    scored = [value for value in offline if value is not None]
    return {
        **settings,
        "objects": len(results),
        "offline_J&F": offline,
        "offline_mean_J&F": round(sum(scored) / len(scored), 4) if scored else None,
        "online_J&F": _j_and_f([result.online for result in results]),
        "online_clicked_frames": sum(len(result.online.clicks) for result in results),
        "online_clicks": sum(result.online.click_count for result in results),
        "recovery": _recovery_row([recovery for result in results for recovery in result.online.recoveries]),
        "rows": [
            {
                "sequence": result.sequence,
                "object": result.value,
                "offline_J&F": [_j_and_f([each]) for each in result.offline],
                "offline_frames": sorted(result.offline[-1].clicks),
                "online_J&F": _j_and_f([result.online]),
                "online_frames": sorted(result.online.clicks),
                "recovery": _recovery_row(result.online.recoveries),
            }
            for result in results
        ],
    }


def _j_and_f(passes: Sequence[Pass]) -> float | None:
    mean = mean_score([each.score for each in passes if each.score is not None])
    return None if mean is None else round(mean.mean, 4)


def _recovery_row(recoveries: Sequence[Recovery]) -> dict[str, Any]:
    """Mean clicks, counting the maximum for objects that stayed lost, and the number of recovered objects."""
    row: dict[str, Any] = {"losses": len(recoveries)}
    for name in ("with_memory", "from_scratch"):
        counts = [getattr(recovery, name) for recovery in recoveries]
        clicks = [MAX_RECOVERY_CLICKS if count is None else count for count in counts]
        row[f"clicks_{name}"] = round(sum(clicks) / len(clicks), 2) if clicks else None
        row[f"recovered_{name}"] = sum(count is not None for count in counts)
    return row
