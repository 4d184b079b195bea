"""What a run tells: a CSV file, the log, and TensorBoard where it is wanted."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

from sam2_ros.training.unroll import UnrollResult

_log = logging.getLogger(__name__)
LOG_COLUMNS = ("step", "stage", "loss", "focal", "dice", "iou", "presence", "click_iou", "last_iou", "lr", "seconds")


class Journal:
    """The log of the run in one folder. Rows after ``step``, of a run that was killed, are taken out."""

    def __init__(self, folder: Path, step: int, total_steps: int, tensorboard: bool) -> None:
        """Open the log of a run that goes on after ``step``.

        Raises:
            ValueError: TensorBoard is asked for and not installed.
        """
        self._path = folder / "log.csv"
        self._total_steps = total_steps
        self._writer = _summary_writer(folder, step) if tensorboard else None
        if self._path.exists():
            with self._path.open(newline="") as file:
                header, *rows = list(csv.reader(file)) or [list(LOG_COLUMNS)]
            self._rewrite([header, *(row for row in rows if row and row[0].isdecimal() and int(row[0]) <= step)])

    def _rewrite(self, rows: list[list[str]]) -> None:
        part = self._path.with_suffix(".part")
        with part.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        part.replace(self._path)

    def write(self, step: int, stage: int, lr: float, result: UnrollResult, seconds: float) -> None:
        losses = result.losses
        values = (
            *(float(x.detach()) for x in (losses.total, losses.focal, losses.dice, losses.iou, losses.presence)),
            result.click_iou,
            result.last_iou,
        )
        row = (step, stage, *(f"{v:.4f}" for v in values), f"{lr:.2e}", f"{seconds:.0f}")
        is_new = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(LOG_COLUMNS)
            writer.writerow(row)
        shown = " ".join(f"{name} {value}" for name, value in zip(LOG_COLUMNS[2:], row[2:], strict=True))
        _log.info("step %d/%d %s", step, self._total_steps, shown)
        if self._writer is not None:
            for name, value in zip(LOG_COLUMNS[2:], (*values, lr), strict=False):
                self._writer.add_scalar(name, value, step)
            self._writer.flush()


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard: true needs the package of that name: pip install tensorboard") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
