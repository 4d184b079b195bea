"""The limits of a tracker: J on one kind of hard clip after another, beside that of the floors.

Each object is prompted with its mask in the first frame. J is the mean over frames without the first and the last, over
objects, and over clips. If a clip has an event after which the object must be found again, the frames from there on are
also scored alone: during a long occlusion an empty mask is correct.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2_ros.evaluation.limit_clips import LimitClip, limit_clip
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.trackers import VideoTracker, mask_of


@dataclass(frozen=True)
class LimitScore:
    """One tracker on one clip, or the mean over clips."""

    region: float  # J
    region_after: float | None  # J from the clip's event on; None if it has none
    ms_per_frame: float  # of ``step``


def score_clip(tracker: VideoTracker, clip: LimitClip) -> LimitScore:
    """Track a clip from its first frame to its last."""
    tracker.reset()
    for number, mask in enumerate(clip.masks_tnhw[0]):
        tracker.add_prompt(str(number), mask=mask)
    regions_tn, seconds = [], 0.0
    for image_rgb, truth_nhw in zip(clip.images_thwc, clip.masks_tnhw, strict=True):
        started_s = time.perf_counter()
        result = tracker.step(image_rgb)
        seconds += time.perf_counter() - started_s
        regions_tn.append([region_similarity(mask_of(str(n), result), truth) for n, truth in enumerate(truth_nhw)])
    frames = np.mean(regions_tn, axis=1)
    after = None if clip.event_frame is None else float(frames[clip.event_frame : -1].mean())
    return LimitScore(float(frames[1:-1].mean()), after, 1e3 * seconds / len(frames))


def evaluate_limits(
    trackers: Mapping[str, VideoTracker],
    kinds: Sequence[str],
    seeds: int,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, dict[str, LimitScore]]:
    """Run every tracker on the same clips; scores by kind of clip, then by name of tracker.

    Args:
        trackers: by name.
        kinds: of ``LIMIT_KINDS``.
        seeds: number of clips of each kind, at least 1.
        progress: called before each clip with its kind and number.
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
            for name, tracker in trackers.items():
                scores[name].append(score_clip(tracker, clip))
        table[kind] = {name: _mean(of_one) for name, of_one in scores.items()}
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
                }
                for name, score in row.items()
            }
            for kind, row in table.items()
        },
    }


def _mean(scores: Sequence[LimitScore]) -> LimitScore:
    after = [score.region_after for score in scores if score.region_after is not None]
    return LimitScore(
        float(np.mean([score.region for score in scores])),
        float(np.mean(after)) if after else None,
        float(np.mean([score.ms_per_frame for score in scores])),
    )
