"""Benchmarks are scripts that lie beside each other: imported, and run, from their own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0  # several processes load torch on a busy machine


@pytest.fixture
def import_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``importlib.import_module`` find the benchmarks by their names."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def run_with_tiny_node() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run("soak.py", "--frames", "30")``: a benchmark of the node with the tiny network, as a user runs it."""

    def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        node = ("--node-module", "tiny_node", "--device", "cpu", "--threads", "1")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "test" / "support"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "benchmarks" / script), *node, *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)

    return run
