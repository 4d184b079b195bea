"""The log of a run: rows in order, also after it was killed, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sam2_ros.training import journal as journal_module
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.journal import LOG_COLUMNS, Journal
from sam2_ros.training.losses import Losses
from sam2_ros.training.unroll import UnrollResult

RESULT = UnrollResult(Losses(*(torch.tensor(value) for value in (0.5, 0.25, 0.125, 2.0, 4.0))), 0.75, 0.5)
SMALL = Stage(steps=10, size_px=64, frames=1, clips_per_batch=2, lr=1e-3, lr_end=0.0)
LARGE = replace(SMALL, size_px=(64, 128), frames=4)
CONFIG = TrainConfig("nano", (SMALL, LARGE), log_every=1)


def write(folder: Path, steps: range, resumed_at: int = 0) -> None:
    journal = Journal(folder, resumed_at, CONFIG)
    for step in steps:
        journal.note(step, 1, 1e-3, RESULT, 12.6)


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_row_has_every_column(tmp_path: Path) -> None:
    write(tmp_path, range(3, 4))
    header, row = rows_of(tmp_path)
    assert tuple(header) == LOG_COLUMNS
    values = ["14.3750", "0.5000", "0.2500", "0.1250", "2.0000", "4.0000", "0.7500", "0.5000"]
    assert row == ["3", "1", *values, "1.00e-03", "12.60"]


def test_rows_of_steps_that_are_made_again_are_taken_out(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    with (tmp_path / "log.csv").open("a") as file:
        file.write("6,1,0.")  # killed while writing
    write(tmp_path, range(4, 7), resumed_at=3)
    assert [row[0] for row in rows_of(tmp_path)] == ["step", "1", "2", "3", "4", "5", "6"]


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[Any, ...]] = []
    made: list[tuple[Any, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            made.append((folder, purge_step))

        def add_scalar(self, *args: Any) -> None:
            scalars.append(args)

        def flush(self) -> None:
            scalars.append(("flushed",))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Journal(tmp_path, 4, replace(CONFIG, tensorboard=True)).note(5, 0, 1e-3, RESULT, 1.0)
    assert made == [(str(tmp_path / "tensorboard"), 5)]
    assert [call[0] for call in scalars] == [*LOG_COLUMNS[2:-1], "flushed"]
    assert ("dice", 0.25, 5) in scalars
    assert ("lr", 1e-3, 5) in scalars


def test_missing_tensorboard_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Journal(tmp_path, 0, replace(CONFIG, tensorboard=True))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    yield now


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_first_step_is_told_and_then_a_line_every_ten_seconds(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    journal = Journal(tmp_path, 2, replace(CONFIG, log_every=4))
    for step in range(3, 11):
        clock[0] += 4.0
        journal.note(step, 0, 1e-3, RESULT, 0.0)
    assert [line.split()[1] for line in lines_of(caplog)] == ["3/20", "6/20", "9/20"]
    assert [row[0] for row in rows_of(tmp_path)] == ["step", "4", "8"], "rows have a rhythm of their own"


def test_time_left_counts_the_pixels_of_the_stages_to_come(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Ten steps of one frame of 64 px, then ten of four frames of 64 or 128 px: each ten times as long."""
    caplog.set_level("INFO")
    clock[0] -= 2.0
    journal = Journal(tmp_path, 4, CONFIG)
    clock[0] += 2.0
    journal.note(5, 0, 1e-3, RESULT, 0.0)
    clock[0] += 20.0
    journal.note(15, 1, 1e-3, RESULT, 0.0)
    first, second = lines_of(caplog)
    assert first.endswith(", 0:03:30 left")  # 5 + 10 * 10 units of 2 s
    assert second.endswith(", 0:00:20 left")  # 56 units took 22 s, 50 are to come
