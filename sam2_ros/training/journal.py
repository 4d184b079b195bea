"""The record of a run: a CSV file, the log, and TensorBoard if the config asks for it."""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from sam2_ros.training.config import TrainConfig
from sam2_ros.training.losses import Losses
from sam2_ros.training.unroll import UnrollResult

_log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0
_PARTS = tuple(part.name for part in fields(Losses))
LOG_COLUMNS = ("step", "stage", "loss", *_PARTS, "click_iou", "last_iou", "lr", "seconds")


class Journal:
    """The log of the run in one folder. Rows after ``step``, which a killed run left behind, are removed."""

    def __init__(self, folder: Path, step: int, config: TrainConfig) -> None:
        """Open the log of a run that continues after ``step``.

        Raises:
            ValueError: TensorBoard is asked for and not installed.
        """
        self._path = folder / "log.csv"
        self._config, self._first_step = config, step
        self._started = self._said = time.monotonic()
        self._writer = _summary_writer(folder, step) if config.tensorboard else None
        if self._path.exists():
            with self._path.open(newline="") as file:
                header, *rows = list(csv.reader(file)) or [list(LOG_COLUMNS)]
            self._rewrite([header, *(row for row in rows if row and row[0].isdecimal() and int(row[0]) <= step)])

    def _rewrite(self, rows: list[list[str]]) -> None:
        part = self._path.with_suffix(".part")
        with part.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        part.replace(self._path)

    def note(self, step: int, stage: int, lr: float, result: UnrollResult, seconds: float) -> None:
        """Record a finished step: a row every ``log_every`` steps, a log line at first and about every ten seconds."""
        now = time.monotonic()
        speaks = step == self._first_step + 1 or now - self._said >= SECONDS_BETWEEN_LINES
        writes = step % self._config.log_every == 0
        if not speaks and not writes:
            return  # reading the values would wait for the GPU
        losses = result.losses
        values = (
            float(losses.total.detach()),
            *(float(getattr(losses, part).detach()) for part in _PARTS),
            result.click_iou,
            result.last_iou,
        )
        row = [str(step), str(stage), *(f"{v:.4f}" for v in values), f"{lr:.2e}", f"{seconds:.2f}"]
        if writes:
            self._append(row)
            if self._writer is not None:
                for name, value in zip(LOG_COLUMNS[2:], (*values, lr), strict=False):
                    self._writer.add_scalar(name, value, step)
                self._writer.flush()
        if speaks:
            self._said = now
            shown = " ".join(f"{name} {value}" for name, value in zip(LOG_COLUMNS[2:], row[2:], strict=True))
            left = self._seconds_left(step, now - self._started)
            _log.info("step %d/%d %s, %s left", step, self._config.total_steps, shown, timedelta(seconds=round(left)))

    def _append(self, row: list[str]) -> None:
        is_new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(LOG_COLUMNS)
            writer.writerow(row)

    def _seconds_left(self, step: int, seconds: float) -> float:
        """The remaining time, if a pixel keeps costing what it has cost since this process started."""
        done, total = _pixels(self._config, step), _pixels(self._config, self._config.total_steps)
        return seconds * (total - done) / (done - _pixels(self._config, self._first_step))


def _pixels(config: TrainConfig, steps: int) -> float:
    """Pixels of all frames in the first ``steps`` steps of a run."""
    pixels = 0.0
    for stage in config.stages:
        in_stage = min(steps, stage.steps)
        side_px2 = sum(size**2 for size in stage.sizes_px) / len(stage.sizes_px)
        frames = stage.image_share + (1 - stage.image_share) * stage.frames
        pixels += in_stage * stage.clips_per_batch * frames * side_px2
        steps -= in_stage
    return pixels


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard: true needs the package of that name: pip install tensorboard") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
