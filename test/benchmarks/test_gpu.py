"""``benchmarks/gpu.py`` on a CPU: all of it but the GPU."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_models_and_training_are_measured_once_and_what_fails_is_told(tmp_path: Path) -> None:
    out = tmp_path / "results"
    options = ["--out", str(out), "--device", "cpu", "--small", "--without-official", "--encoder-engine", "torch"]
    done = run(*options, "--models", "nano", "nanoo", "--objects", "1", "2")
    assert done.returncode == 1, done.stderr
    rows = rows_of(out / "model.csv")
    assert {(row["model"], row["objects"], row["image_size"]) for row in rows} == {
        ("nano", "1", "64"),
        ("nano", "2", "64"),
    }
    assert any(row["contender"].endswith(", compiled") for row in rows)
    (training,) = rows_of(out / "training.csv")
    assert float(training["ms"]) > 0 and training["training"] == "nano, 64 px, 2 frames, float32"
    table = (out / "table.md").read_text()
    assert table == done.stdout
    assert "| nano | 64 | 2 |" in table and "- failed: --model nanoo" in table and "unknown model 'nanoo'" in table
    assert json.loads((out / "machine.json").read_text())["torch"] == torch.__version__

    before = (out / "model.csv").read_text(), (out / "training.csv").read_text()
    again = run(*options, "--models", "nano", "--objects", "1", "2")
    assert again.returncode == 0, again.stderr
    assert "gpu: " not in again.stderr  # nothing was left to measure
    assert before == ((out / "model.csv").read_text(), (out / "training.csv").read_text())


def test_fastest_ways_stand_beside_each_other(import_benchmarks: None) -> None:
    import gpu

    names = ("official float32", "official bfloat16", "official compiled bfloat16", "ours float32", "ours a, compiled")
    same = {"model": "m", "image_size": "8", "objects": "1"}
    rows = [{**same, "contender": name, "ms": ms} for name, ms in zip(names, ("9", "8", "6", "5", "2"), strict=True)]
    rows.append({**same, "objects": "4", "contender": "ours float32", "ms": "7"})
    text = gpu.markdown(rows, [], "a machine")
    assert "| m | 8 | 1 | 8.0 ms | 6.0 ms | 5.0 ms | 2.0 ms | 3.00 |" in text
    assert "| m | 8 | 4 |  |  | 7.0 ms |  |  |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a CUDA device")
def test_without_a_gpu_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == "gpu: PyTorch finds no CUDA device; --device cpu --small tries the script without one"
    assert not list(tmp_path.iterdir())
