"""The memory benchmark: it sees a leak, and a short run of it goes through."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("import_benchmarks")


@pytest.fixture
def stats(import_benchmarks: None) -> ModuleType:
    return importlib.import_module("soak_stats")


@pytest.fixture
def soak(import_benchmarks: None) -> ModuleType:
    return importlib.import_module("soak")


def samples_of(stats: ModuleType, rss_kib: Sequence[float], **fixed: Any) -> list[Any]:
    """One sample every 100 images."""
    others = {"shared_kib": 40, "threads": 9, "open_files": 20, "objects": 4}
    return [
        stats.Sample(
            **{"frame": 100 * i, "elapsed_s": float(i), "rss_kib": int(kib), "private_kib": int(kib) - 40}
            | {"latency_ms_p50": 20.0, "inference_ms_p50": 15.0, "cpu_ms": 18.0}
            | others
            | fixed
        )
        for i, kib in enumerate(rss_kib, start=1)
    ]


STEADY = [1000.0 + (i % 2) for i in range(30)]
STEP = [1000.0] * 22 + [1050.0] * 8


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        (STEADY, 0.0),
        ([1000.0 + 2 * i for i in range(31)], 5.94),  # 60 of the first third's median of 1009: the growth in full
        (STEP, 5.0),  # which the slope alone does not see
        ([*STEADY[:10], 5000.0, *STEADY[11:25], 3.0, *STEADY[26:]], 0.0),  # two odd samples
        ([1000.0 - 2 * i for i in range(31)], -4.24),  # 42 between the thirds, of 991 to begin with
    ],
    ids=["steady", "leak", "step", "odd samples", "shrinks"],
)
def test_drift_of_hand_made_numbers(stats: ModuleType, values: list[float], percent: float) -> None:
    frames = [100.0 * i for i in range(len(values))]
    assert stats.drift_percent(frames, values) == pytest.approx(percent, abs=0.101)


def test_what_grows_while_it_warms_up_does_not_count(stats: ModuleType) -> None:
    samples = samples_of(stats, [500, 700, 900, *STEADY])
    assert stats.judge(samples, warmup_frames=300, bound_percent=2).status == 0
    assert stats.judge(samples, warmup_frames=0, bound_percent=2).rss_percent > 0


def test_too_few_samples_are_told(stats: ModuleType) -> None:
    with pytest.raises(stats.TooFewSamplesError, match="expected 6 samples or more after the warm-up, got 5"):
        stats.judge(samples_of(stats, [1000.0] * 8), warmup_frames=300, bound_percent=2)


def write_csv(stats: ModuleType, path: Path, samples: Sequence[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        kept = stats.SampleFile(file)
        for sample in samples:
            kept.add(sample)


@pytest.mark.parametrize(
    ("rss_kib", "status", "line"),
    [
        (STEADY, 0, "RSS drift 0.0 % over 3000 frames (bound 2 %)"),
        ([1000 + 2 * i for i in range(30)], 1, "RSS drift 5.1 % over 3000 frames (bound 2 %)"),
    ],
    ids=["steady", "leak"],
)
def test_the_exit_status_and_the_last_line_tell_a_leak(
    stats: ModuleType,
    soak: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rss_kib: list[float],
    status: int,
    line: str,
) -> None:
    path = tmp_path / "soak.csv"
    write_csv(stats, path, samples_of(stats, rss_kib))
    assert soak.main(["--judge", str(path)]) == status
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_a_slower_node_is_reported_and_does_not_decide(stats: ModuleType) -> None:
    slow = [*samples_of(stats, STEADY[:22]), *samples_of(stats, STEADY[22:], latency_ms_p50=40.0)]
    samples = [stats.Sample(**{**vars(sample), "frame": 100 * i}) for i, sample in enumerate(slow, start=1)]
    verdict = stats.judge(samples, warmup_frames=0, bound_percent=2)
    assert verdict.latency_percent == pytest.approx(100)
    assert verdict.cpu_percent == 0
    assert verdict.status == 0


def test_a_row_is_on_the_disk_at_once_and_one_cut_off_is_left_out(stats: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "soak.csv"
    samples = samples_of(stats, [1000, 1001])
    with path.open("w", newline="", encoding="utf-8") as file:
        kept = stats.SampleFile(file)
        for sample in samples:
            kept.add(sample)
        assert stats.read_samples(path) == samples  # while it is open
        file.write("300,3.0,10")
    assert stats.read_samples(path) == samples


def test_everything_happens_and_images_without_an_action_lie_between(soak: ModuleType) -> None:
    actions = [soak.action_before(frame, 3) for frame in range(61)]
    assert actions[:14] == [None] * 3 + [
        *(soak.Action.REPLACE, None, None, soak.Action.REFINE, None, None),
        *(soak.Action.UNDO, None, None, soak.Action.PAST, None),
    ]
    assert actions[51] is soak.Action.CLEAR  # in place of the fifth replacement
    counts = Counter(action.name for action in actions if action is not None)
    assert counts == {"REPLACE": 4, "REFINE": 5, "UNDO": 5, "PAST": 5, "CLEAR": 1}


def test_what_a_process_takes(stats: ModuleType) -> None:
    before = stats.read_process(os.getpid())
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])  # touched, so that it is resident
    after = stats.read_process(os.getpid())
    assert after.private_kib - before.private_kib > 60_000
    assert after.rss_kib >= after.private_kib
    assert after.threads >= 1 and after.open_files >= 3
    assert after.cpu_s == pytest.approx(sum(os.times()[:2]), abs=0.5)


def test_a_short_run(run_with_tiny_node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    options = ("--frames", "64", "--objects", "2", "--width", "160", "--height", "120", "--act-every", "3")
    path, plot = tmp_path / "new" / "soak.csv", tmp_path / "soak.png"
    # The bound is that of a node which is still warming up.
    files = ("--csv", str(path), "--plot", str(plot), "--bound-percent", "50")
    done = run_with_tiny_node("soak.py", *options, "--sample-every", "5", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("RSS drift ")
    assert done.stdout.splitlines()[-1].endswith(" % over 64 frames (bound 50 %)")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == [*range(5, 61, 5), 64]
    assert {row["objects"] for row in rows} == {"2"}
    assert all(
        int(row["rss_kib"]) > 50_000 and float(row["latency_ms_p50"]) > 0 and float(row["cpu_ms"]) >= 0 for row in rows
    )
    assert plot.stat().st_size > 0


def test_a_node_that_cannot_start_ends_the_run_with_its_reason(
    run_with_tiny_node: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_with_tiny_node("soak.py", "--width", "64", "--height", "48", "--node-module", "no_such_node")
    assert done.returncode == 2
    assert "soak: node ended with status 1" in done.stderr and "no_such_node" in done.stderr
