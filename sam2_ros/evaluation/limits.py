"""The limits of a tracker: J on one kind of hard clip after another, beside that of the floors.

Each object is prompted with its mask in the first frame. J is the mean over frames without the first and the last, over
objects, and over clips. If a clip has an event after which the object must be found again, the frames from there on are
also scored alone: during a long occlusion an empty mask is correct.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.sequences import VideoSequence
from sam2_ros.evaluation.limit_clips import LimitClip, limit_clip
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.trackers import VideoTracker, mask_of
from sam2_ros.tracking.types import FrameResult, ObjectState

RIGHT_IOU, WRONG_IOU = 0.5, 0.3  # a mask that is found again has more than the one; a wrong one has less than the other
SURE_QUALITY = 0.5
_LAST_FRAMES = 4  # of a clip, which tell how it ended


@dataclass(frozen=True)
class LimitScore:
    """One tracker on one clip, or the mean over clips."""

    region: float  # J
    region_after: float | None  # J from the clip's event on; None if it has none
    ms_per_frame: float  # of ``step``
    recovered: float | None = None  # share of the objects that are TRACKED and right at the end; None without an event
    swapped: float | None = None  # share of the objects that end on another one's place; None of a clip with one object
    wrong_tracked: float = 0.0  # share of the object-frames with a wrong mask that is called TRACKED
    wrong_sure: float = 0.0  # and has a ``mask_quality`` above ``SURE_QUALITY``


@dataclass(frozen=True)
class _Seen:
    """One object in one frame."""

    iou: float
    is_tracked: bool
    quality: float
    is_on_other: bool  # the mask is more another object's than its own

    @property
    def is_wrong(self) -> bool:
        return self.is_tracked and self.iou < WRONG_IOU


def score_clip(tracker: VideoTracker, clip: LimitClip, shown: list[tuple[float, float]] | None = None) -> LimitScore:
    """Track a clip from its first frame to its last; ``shown`` gets the quality and the IoU of each TRACKED mask."""
    tracker.reset()
    for number, mask in enumerate(clip.masks_tnhw[0]):
        tracker.add_prompt(str(number), mask=mask)
    seen_tn: list[list[_Seen]] = []
    seconds = 0.0
    for image_rgb, truth_nhw in zip(clip.images_thwc, clip.masks_tnhw, strict=True):
        started_s = time.perf_counter()
        result = tracker.step(image_rgb)
        seconds += time.perf_counter() - started_s
        seen_tn.append([_look(result, number, truth_nhw) for number in range(len(truth_nhw))])
    frames = np.array([np.mean([seen.iou for seen in seen_n]) for seen_n in seen_tn])
    after = None if clip.event_frame is None else float(frames[clip.event_frame : -1].mean())
    later = [seen for seen_n in seen_tn[1:] for seen in seen_n]
    if shown is not None:
        shown += [(seen.quality, seen.iou) for seen in later if seen.is_tracked]
    by_object = list(zip(*seen_tn[-_LAST_FRAMES:], strict=True))
    found = [np.mean([seen.is_tracked and seen.iou > RIGHT_IOU for seen in last]) > 0.5 for last in by_object]
    swapped = [np.mean([seen.is_tracked and seen.is_on_other for seen in last]) > 0.5 for last in by_object]
    return LimitScore(
        float(frames[1:-1].mean()),
        after,
        1e3 * seconds / len(frames),
        None if clip.event_frame is None else float(np.mean(found)),
        float(np.mean(swapped)) if len(by_object) > 1 else None,
        float(np.mean([seen.is_wrong for seen in later])),
        float(np.mean([seen.is_wrong and seen.quality > SURE_QUALITY for seen in later])),
    )


def _look(result: FrameResult, number: int, truth_nhw: NDArray[np.bool_]) -> _Seen:
    mask = mask_of(str(number), result)
    own = region_similarity(mask, truth_nhw[number])
    if str(number) not in result or not mask.any():
        return _Seen(own, False, 0.0, False)
    tracked = result[str(number)]
    others = [region_similarity(mask, truth) for other, truth in enumerate(truth_nhw) if other != number]
    is_on_other = max(others, default=0.0) > max(own, WRONG_IOU)
    return _Seen(own, tracked.state == ObjectState.TRACKED, tracked.mask_quality, is_on_other)


def evaluate_limits(
    trackers: Mapping[str, VideoTracker],
    kinds: Sequence[str],
    seeds: int,
    progress: Callable[[str, int], None] | None = None,
    sequences: Sequence[VideoSequence] = (),
    shown: list[tuple[float, float]] | None = None,
) -> dict[str, dict[str, LimitScore]]:
    """Run every tracker on the same clips; scores by kind of clip, then by name of tracker.

    Args:
        trackers: by name.
        kinds: of ``LIMIT_KINDS``.
        seeds: number of clips of each kind, at least 1.
        progress: called before each clip with its kind and number.
        sequences: real videos, each a kind of its own with one clip.
        shown: gets the quality and the IoU of the first tracker's masks, see ``score_clip``.
    """
    if seeds < 1:
        raise ValueError(f"seeds: expected 1 or more, got {seeds}")
    table: dict[str, dict[str, LimitScore]] = {}
    for kind in kinds:
        scores: dict[str, list[LimitScore]] = {name: [] for name in trackers}
        for seed in range(seeds):
            if progress:
                progress(kind, seed)
            clip = limit_clip(kind, seed)
            for place, (name, tracker) in enumerate(trackers.items()):
                scores[name].append(score_clip(tracker, clip, None if place else shown))
        table[kind] = {name: _mean(of_one) for name, of_one in scores.items()}
    for sequence in sequences:
        if progress:
            progress(sequence.name, 0)
        clip = clip_of_sequence(sequence)
        table[sequence.name] = {
            name: score_clip(tracker, clip, None if place else shown)
            for place, (name, tracker) in enumerate(trackers.items())
        }
    return table


def limits_report(table: Mapping[str, Mapping[str, LimitScore]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as JSON: the settings, and a row per kind of clip with the scores of each tracker."""
    return {
        **settings,
        "rows": {
            kind: {
                name: {
                    "J": round(score.region, 4),
                    "J_after": None if score.region_after is None else round(score.region_after, 4),
                    "ms_per_frame": round(score.ms_per_frame, 2),
                    "recovered": None if score.recovered is None else round(score.recovered, 4),
                    "swapped": None if score.swapped is None else round(score.swapped, 4),
                    "wrong_tracked": round(score.wrong_tracked, 4),
                    "wrong_sure": round(score.wrong_sure, 4),
                }
                for name, score in row.items()
            }
            for kind, row in table.items()
        },
    }


def clip_of_sequence(sequence: VideoSequence) -> LimitClip:
    """A real video whose frames are all annotated; objects that its first frame does not show are left out."""
    first = [value for value, mask in sequence.masks(0).items() if mask.any()]
    images = [sequence.frame_rgb(index) for index in range(len(sequence))]
    nothing = np.zeros(images[0].shape[:2], np.bool_)
    masks = [[sequence.masks(index).get(value, nothing) for value in first] for index in range(len(sequence))]
    return LimitClip(sequence.name, np.stack(images), np.array(masks), None)


def _mean(scores: Sequence[LimitScore]) -> LimitScore:
    return LimitScore(*(_mean_of([getattr(score, each.name) for score in scores]) for each in fields(LimitScore)))


def _mean_of(values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
