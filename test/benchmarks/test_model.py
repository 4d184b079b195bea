"""``benchmarks/model.py`` runs one comparison after another."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "model.py"
SMALL = ["--image-size", "64", "--width", "96", "--height", "64", "--frames", "1", "--threads", "1"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], check=False, capture_output=True, text=True, timeout=120
    )


def test_each_number_of_objects_has_its_rows(tmp_path: Path) -> None:
    table = tmp_path / "model.csv"
    done = run("--objects", "1", "3", "--csv", str(table), *SMALL)
    assert done.returncode == 0, done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["objects"] for row in rows} == {"1", "3"}
    assert done.stdout.count("nano at 64 px") == 2


def test_what_fails_ends_it() -> None:
    done = run("--models", "nanoo", "nano", *SMALL)
    assert done.returncode == 2
    assert "unknown model 'nanoo'" in done.stderr and "nano at" not in done.stdout
