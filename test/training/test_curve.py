"""The learning curve: a row for each measured checkpoint, of photographs and clips that the run never sees."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.training import curve as curve_module
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.curve import measure_run
from sam2_ros.training.train import train

COLUMNS = ["weights", "step", "hours", "photos_1", "photos_5", "clips_j", "false_tracked", "false_absent"]


@pytest.fixture
def config(tmp_path: Path, tiny_entry: str, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Twelve photographs with two large objects each; about every second one is held out."""
    root = tmp_path / "photos"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    index = np.zeros((120, 160), np.uint8)
    cv2.circle(index, (45, 60), 26, 1, -1)
    cv2.rectangle(index, (90, 30), (140, 90), 2, -1)
    for number in range(12):
        image = np.random.default_rng(number).integers(0, 120, (120, 160, 3), dtype=np.uint8)
        image[index == 1], image[index == 2] = (250, 40, 40), (40, 250, 40)
        cv2.imwrite(str(root / "images" / f"{number:012d}.jpg"), image)
        cv2.imwrite(str(root / "masks" / f"{number:012d}.png"), index)
    monkeypatch.setattr(curve_module, "NUM_CLIPS", 1)
    monkeypatch.setattr(curve_module, "NUM_CUTS", 1)
    monkeypatch.setattr(curve_module, "INSTANCES_PER_FOLDER", 4)
    stage = Stage(steps=4, size_px=64, frames=1, clips_per_batch=1, lr=1e-3, lr_end=0.0)
    folder = PhotoFolder(str(root), held_out_every=2)
    return TrainConfig(tiny_entry, (stage,), (folder,), workers=0, threads=1, save_every=2, keep_every=2, log_every=1)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_measurement_is_a_row_with_step_and_hours_of_all_training(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, steps_before=1000, hours_before=2.5)
    out = tmp_path / "run"
    train(config, out)
    said: list[str] = []
    kept, last = measure_run(config, out, "weights_00000002.pt", said.append), measure_run(config, out)
    first, second = rows_of(out)
    assert list(first) == [*COLUMNS, "negative_excluded", "seconds_to_measure"]
    assert [row["weights"] for row in (first, second)] == ["weights_00000002.pt", "weights.pt"]
    assert [row["step"] for row in (first, second)] == ["1002", "1004"]
    assert 2.5 <= kept.hours <= last.hours < 2.6
    assert 0 <= float(first["photos_1"]) <= 1 and 0 <= float(first["clips_j"]) <= 1
    assert any("photos: photograph 1 of" in text for text in said) and any("synthetic" in text for text in said)


def test_the_same_weights_get_the_same_scores(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path)
    first, second = (measure_run(config, tmp_path) for _ in range(2))
    assert repr(first) == repr(second)  # a score that cannot be measured is not a number, and not equal to itself


def test_a_curve_has_one_set_of_columns(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path)
    (tmp_path / "curve.csv").write_text("weights,step,hours,other_1\n")
    with pytest.raises(ValueError, match="has the columns weights, step, hours, other_1; move it away"):
        measure_run(config, tmp_path)


def test_what_cannot_be_measured_is_told(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no weights\.pt; weights there: none"):
        measure_run(config, tmp_path)
    train(config, tmp_path)
    with pytest.raises(ValueError, match="no photograph is held out"):
        measure_run(replace(config, photo_roots=(replace(config.photo_roots[0], held_out_every=0),)), tmp_path)
    assert not (tmp_path / "curve.csv").exists()
