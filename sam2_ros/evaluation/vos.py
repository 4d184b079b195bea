"""Semi-supervised video object segmentation: each object is prompted once, then followed to the end, and scored.

An object is prompted on the first annotated frame that shows it. ``metrics`` defines which of its annotated frames from
there on count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.sequences import VideoSequence
from sam2_ros.evaluation.metrics import Score, mean_score, score_frame, score_object
from sam2_ros.evaluation.prompt_sampling import Click, center_click, correction_click, tight_box
from sam2_ros.evaluation.trackers import VideoTracker, add_clicks, mask_of
from sam2_ros.tracking.types import FrameResult

_LOG = logging.getLogger(__name__)

PROMPT_KINDS = ("mask", "box", "click1", "click3")


@dataclass(frozen=True)
class ObjectResult:
    """One object of one sequence."""

    value: int  # in the ground truth
    score: Score | None  # None if no annotated frame is left to score


@dataclass(frozen=True)
class SequenceResult:
    """One sequence."""

    name: str
    frame_count: int
    seconds: float  # wall time, including reading, scoring and writing
    step_seconds: float  # of that, inside ``step``
    objects: tuple[ObjectResult, ...]

    @property
    def score(self) -> Score | None:
        """Mean over objects."""
        return mean_score([scored.score for scored in self.objects if scored.score is not None])

    @property
    def fps(self) -> float:
        """Frames per second of ``step`` alone."""
        return self.frame_count / max(self.step_seconds, 1e-9)


class VosEvaluator:
    """Runs a tracker over sequences.

    Args:
        make_tracker: called once, and a second time for "click3", whose later clicks depend on the masks of the earlier
            ones: these trials must not affect the tracker that is measured.
        prompt: one of ``PROMPT_KINDS``.
        out_folder: predictions are written to ``out_folder/<sequence>/<frame>.png``, one index image per frame with
            the values of the ground truth.
        progress: called after each frame with the sequence's name, frames done and frames in all.
    """

    def __init__(
        self,
        make_tracker: Callable[[], VideoTracker],
        prompt: str,
        out_folder: Path,
        progress: Callable[[str, int, int], None] | None = None,
    ):
        if prompt not in PROMPT_KINDS:
            raise ValueError(f"expected a prompt of {', '.join(PROMPT_KINDS)}, got {prompt!r}")
        self._make_tracker = make_tracker
        self._tracker = make_tracker()
        self._trial_tracker: VideoTracker | None = None
        self._prompt = prompt
        self._out_folder = Path(out_folder)
        self._progress = progress

    def evaluate(self, sequence: VideoSequence) -> SequenceResult:
        """Track one sequence from its first frame to its last, write the predictions, and score them.

        Raises:
            ValueError: the sequence has no mask, so nothing can be prompted.
        """
        if not sequence.annotated_frames:
            raise ValueError(f"sequence {sequence.name!r} has no mask; its objects are prompted from the first one")
        started_s, step_seconds = time.perf_counter(), 0.0
        scored = len(sequence.annotated_frames) > 2  # else nothing is left after dropping the first and the last
        scores: dict[int, list[Score]] = {}
        self._tracker.reset()
        for index, path in enumerate(sequence.frame_paths):
            image_rgb = sequence.frame_rgb(index)
            truth = sequence.masks(index) if index in sequence.mask_paths else None
            for value, mask in (truth or {}).items():
                if value not in scores and mask.any():
                    scores[value] = []
                    self._prompt_object(str(value), mask, image_rgb)
            step_started_s = time.perf_counter()
            result = self._tracker.step(image_rgb)
            step_seconds += time.perf_counter() - step_started_s
            _warn_of_rejected(result, sequence.name, index)
            index_image = _index_image(result)
            write_index_png(self._out_folder / sequence.name / f"{path.stem}.png", index_image)
            if truth is not None and scored:
                for value, frames in scores.items():
                    if not sequence.is_annotated(index, value):
                        continue
                    frames.append(_score(value, truth, result, index_image, sequence.objects_may_overlap))
            if self._progress:
                self._progress(sequence.name, index + 1, len(sequence))
        objects = tuple(ObjectResult(value, score_object(frames)) for value, frames in sorted(scores.items()))
        return SequenceResult(sequence.name, len(sequence), time.perf_counter() - started_s, step_seconds, objects)

    def _prompt_object(self, object_id: str, mask: NDArray[np.bool_], image_rgb: NDArray[np.uint8]) -> None:
        if self._prompt == "mask":
            self._tracker.add_prompt(object_id, mask=mask)
        elif self._prompt == "box":
            x0, y0, x1, y1 = tight_box(mask)
            # A box must not be empty, also around a single column or row of pixels.
            box = (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
            self._tracker.add_prompt(object_id, box=np.array(box, np.float32))
        else:
            clicks = self._clicks(int(self._prompt.removeprefix("click")), mask, image_rgb)
            add_clicks(self._tracker, object_id, clicks)

    def _clicks(self, count: int, mask: NDArray[np.bool_], image_rgb: NDArray[np.uint8]) -> list[Click]:
        """The centre of the object, then that of the largest error of the mask from the clicks so far."""
        clicks = [center_click(mask)]
        while len(clicks) < count:
            if self._trial_tracker is None:
                self._trial_tracker = self._make_tracker()
            self._trial_tracker.reset()
            add_clicks(self._trial_tracker, "trial", clicks)
            result = self._trial_tracker.step(image_rgb)
            correction = correction_click(mask_of("trial", result), mask)
            if correction is None:  # nothing to correct
                break
            clicks.append(correction)
        return clicks


def report(results: list[SequenceResult], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON report: the settings, the means over all objects, and a row per sequence; null if not scored."""
    overall = mean_score([scored.score for result in results for scored in result.objects if scored.score is not None])
    return {
        **settings,
        **_score_row(overall),
        "objects": sum(len(result.objects) for result in results),
        "frames": sum(result.frame_count for result in results),
        "seconds": round(sum(result.seconds for result in results), 2),
        "fps": round(sum(r.frame_count for r in results) / max(sum(r.step_seconds for r in results), 1e-9), 2),
        "sequences": [
            {
                "name": result.name,
                **_score_row(result.score),
                "objects": {str(scored.value): _score_row(scored.score) for scored in result.objects},
                "frames": result.frame_count,
                "seconds": round(result.seconds, 2),
                "fps": round(result.fps, 2),
            }
            for result in results
        ],
    }


def _score_row(score: Score | None) -> dict[str, float | None]:
    if score is None:
        return {"J": None, "F": None, "J&F": None}
    return {"J": round(score.region, 4), "F": round(score.boundary, 4), "J&F": round(score.mean, 4)}


def _index_image(result: FrameResult) -> NDArray[np.uint16]:
    """The label image with the values of the ground truth (object ids are those values as text)."""
    value_of_label = np.zeros(int(result.label_image.max(initial=0)) + 1, np.uint16)
    for tracked in result:
        if tracked.label < len(value_of_label):
            value_of_label[tracked.label] = int(tracked.object_id)
    return value_of_label[result.label_image]


def _score(
    value: int,
    truth: Mapping[int, NDArray[np.bool_]],
    result: FrameResult,
    index_image: NDArray[np.uint16],
    may_overlap: bool,
) -> Score:
    """Score the written mask, in which objects exclude each other; the object's own one if true masks may overlap."""
    predicted = mask_of(str(value), result) if may_overlap else index_image == value
    return score_frame(predicted, truth.get(value, np.zeros(predicted.shape, bool)))


def _warn_of_rejected(result: FrameResult, sequence_name: str, frame_index: int) -> None:
    for object_id, why in result.rejected:
        _LOG.warning(
            "%s frame %d: the prompt of object %s was rejected: %s", sequence_name, frame_index, object_id, why
        )
