"""The learning curve of a run: weights measured on photographs and clips that no run sees.

Checkpoints are chosen by this curve and not by a benchmark, because choosing on a benchmark would be training on it. A
point takes about a minute on one core; all points use the same photographs, clicks and clips.
"""

from __future__ import annotations

import csv
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from sam2_ros import load_image_predictor, load_tracker
from sam2_ros.data.clips.photos import PhotoLibrary
from sam2_ros.data.files.sequences import LabelledImage
from sam2_ros.evaluation.images import MIN_AREA_PX, click_ious
from sam2_ros.evaluation.presence import PresenceCounts, evaluate_presence
from sam2_ros.evaluation.presence_scenes import synthetic_cut_scenes, synthetic_scenes
from sam2_ros.torch_files import why_unreadable
from sam2_ros.training.config import TrainConfig
from sam2_ros.training.held_out import held_out_images, held_out_of_run

CLICKS = 5
INSTANCES_PER_FOLDER = 80
NUM_CLIPS, NUM_CUTS = 8, 4
EMBEDDED = "embedded"


@dataclass(frozen=True)
class CurvePoint:
    """One row of ``curve.csv``."""

    weights: str  # file name
    step: int  # of all training, with that of the weights the run began with
    hours: float  # likewise
    scores: dict[str, float]  # mean IoU after 1 and CLICKS clicks by folder; J and presence on the clips


def measure_run(
    config: TrainConfig, out: Path, weights: str = "weights.pt", progress: Callable[[str], None] | None = None
) -> CurvePoint:
    """Measure weights of a run and append the point to ``curve.csv`` in its folder.

    Args:
        config: of the run, with the held-out photographs to measure on.
        out: the run's folder.
        weights: a file in it, or "embedded" for those the package brings.
        progress: called with a description of each step.

    Raises:
        ValueError: nothing is held out, the weights do not fit, or the curve has other columns.
        FileNotFoundError: no such weights.
    """
    progress = progress or (lambda _: None)
    point = _when(config, out, weights)
    started = time.monotonic()
    torch.set_num_threads(config.threads)
    checkpoint = None if weights == EMBEDDED else out / weights
    scores = _on_photographs(config, checkpoint, progress) | _on_clips(config, checkpoint, progress)
    point = CurvePoint(point.weights, point.step, point.hours, scores)
    _append(out / "curve.csv", point, time.monotonic() - started)
    return point


def _when(config: TrainConfig, out: Path, weights: str) -> CurvePoint:
    """The point without its scores."""
    if weights == EMBEDDED:
        return CurvePoint(weights, config.steps_before, config.hours_before, {})
    if not (out / weights).is_file():
        kept = ", ".join(sorted(path.name for path in out.glob("weights*.pt"))) or "none"
        raise FileNotFoundError(f"expected weights of the run in {out}, there is no {weights}; weights there: {kept}")
    if numbered := re.fullmatch(r"weights_(\d+)\.pt", weights):
        step = int(numbered[1])
        seconds = _seconds_at(out / "log.csv", step)
    else:
        step, seconds = _latest(out / "last.pt")
    return CurvePoint(weights, config.steps_before + step, config.hours_before + seconds / 3600, {})


def _latest(path: Path) -> tuple[int, float]:
    """Step and training time of a run's newest state."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["step"]), float(state["seconds"])
    except OSError:
        raise
    except Exception as error:  # of the file's reader, or of a name that is not there
        raise ValueError(f"{path}: expected the state of a training run ({why_unreadable(error)})") from error


def _seconds_at(path: Path, step: int) -> float:
    """Training time when a step was done, as far as the log's rows tell."""
    with path.open(newline="") as file:
        rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    steps, seconds = zip(*rows, strict=True) if rows else ((0,), (0.0,))
    return float(np.interp(step, steps, seconds))


def _on_photographs(config: TrainConfig, checkpoint: Path | None, progress: Callable[[str], None]) -> dict[str, float]:
    held_out_of_run(config)  # raises if there is nothing to measure on
    predictor = load_image_predictor(config.model, checkpoint)
    scores = {}
    for folder in config.photo_roots:
        name, images = Path(folder.root).name, held_out_images(folder)
        if not images:
            continue
        ious: list[tuple[float, ...]] = []
        for number, image in enumerate(images, 1):
            progress(f"{name}: photograph {number} of {len(images)}")
            image_rgb, masks = image.read()
            chosen = _sample(image, masks, max(1, INSTANCES_PER_FOLDER // len(images)))
            if chosen:
                predictor.set_image(image_rgb)
            ious += [click_ious(predictor, masks[value], CLICKS) for value in chosen]
        for click in (1, CLICKS):
            scores[f"{name}_{click}"] = float(np.mean([row[click - 1] for row in ious])) if ious else float("nan")
    return scores


def _sample(image: LabelledImage, masks: dict[int, np.ndarray], count: int) -> list[int]:
    """``count`` instances of a photograph that are large enough, always the same ones."""
    usable = [value for value, mask in masks.items() if np.count_nonzero(mask) >= MIN_AREA_PX]
    rng = np.random.default_rng(zlib.crc32(image.name.encode()))
    return [int(value) for value in rng.permutation(usable)[:count]]


def _on_clips(config: TrainConfig, checkpoint: Path | None, progress: Callable[[str], None]) -> dict[str, float]:
    tracker = load_tracker(config.model, checkpoint)
    library = PhotoLibrary.held_out(config.photo_roots)
    scenes = chain(synthetic_scenes(library, NUM_CLIPS), synthetic_cut_scenes(library, NUM_CUTS))
    counts = sum(evaluate_presence(tracker, scenes, progress).values(), PresenceCounts())
    found = {
        "clips_j": counts.region,
        "false_tracked": counts.false_tracked,
        "false_absent": counts.false_absent,
        "negative_excluded": counts.negative_excluded,
    }
    return {name: float("nan") if value is None else value for name, value in found.items()}


def _append(path: Path, point: CurvePoint, seconds: float) -> None:
    header = ["weights", "step", "hours", *point.scores, "seconds_to_measure"]
    row = [point.weights, str(point.step), f"{point.hours:.3f}", *(f"{v:.4f}" for v in point.scores.values())]
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="") as file:
            before = next(csv.reader(file), [])
        if before != header:
            raise ValueError(
                f"{path} has the columns {', '.join(before)}; move it away to begin one with other folders"
            )
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(header)
        writer.writerow([*row, f"{seconds:.0f}"])
