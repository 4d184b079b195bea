"""The log of a run: rows in order, also after it was killed, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sam2_ros.training.journal import LOG_COLUMNS, Journal
from sam2_ros.training.losses import Losses
from sam2_ros.training.unroll import UnrollResult

RESULT = UnrollResult(Losses(*(torch.tensor(value) for value in (0.5, 0.25, 0.125, 2.0))), 0.75, 0.5)


def write(folder: Path, steps: range, resumed_at: int = 0) -> None:
    journal = Journal(folder, resumed_at, 10, tensorboard=False)
    for step in steps:
        journal.write(step, 1, 1e-3, RESULT, 12.6)


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_row_has_every_column(tmp_path: Path) -> None:
    write(tmp_path, range(3, 4))
    header, row = rows_of(tmp_path)
    assert tuple(header) == LOG_COLUMNS
    values = ["12.3750", "0.5000", "0.2500", "0.1250", "2.0000", "0.7500", "0.5000"]
    assert row == ["3", "1", *values, "1.00e-03", "13"]


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
    Journal(tmp_path, 4, 10, tensorboard=True).write(5, 0, 1e-3, RESULT, 1.0)
    assert made == [(str(tmp_path / "tensorboard"), 5)]
    assert [call[0] for call in scalars] == [*LOG_COLUMNS[2:-1], "flushed"]
    assert ("dice", 0.25, 5) in scalars
    assert ("lr", 1e-3, 5) in scalars


def test_missing_tensorboard_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Journal(tmp_path, 0, 10, tensorboard=True)
