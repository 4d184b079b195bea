"""``sam2-ros bench`` on a model small enough for a test."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path

import pytest

from sam2_ros.cli import main
from sam2_ros.evaluation import compare_latency, contenders
from sam2_ros.evaluation.official import import_official_builder
from sam2_ros.tracking import loading

SMALL = ["--image-size", "64", "--width", "96", "--height", "64", "--frames", "1", "--threads", "1"]
SMALL += ["--encoder-engine", "torch"]


def test_nano_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, table = tmp_path / "new" / "bench.json", tmp_path / "bench.csv"
    assert main(["bench", *SMALL, "--objects", "2", "--json", str(report), "--csv", str(table)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads(report.read_text())
    assert (summary["model"], summary["objects"], summary["image_size"]) == ("nano", 2, 64)
    assert summary["speedup_vs_official"] is None
    assert summary["default"] in summary["ms"]
    assert min(summary["ms"].values()) > 0
    assert summary["worst_iou"]["ours float32"] == 1.0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["contender"] for row in rows] == list(summary["ms"])
    assert all(float(row["image_encoder"]) > 0 and float(row["gflop"]) > 0 for row in rows)


def test_zoom_is_timed_beside_the_whole_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SMALL, "--zoom"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert f"{summary['default']}, zoom" in summary["ms"]
    assert main(["bench", *SMALL, "--zoom", "--objects", "3"]) == 2
    assert "zoom is for at most 2 objects, got 3" in capsys.readouterr().err


@pytest.mark.skipif(import_official_builder() is None, reason="needs the official package: run `make venv`")
def test_beside_the_official_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "sam2.1_hiera_tiny", *SMALL]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    best = min(ms for name, ms in summary["ms"].items() if name.startswith("official"))
    assert summary["speedup_vs_official"] == pytest.approx(best / summary["ms"][summary["default"]], rel=0.01)
    assert summary["worst_iou"]["ours float32"] > 0.99


@pytest.mark.parametrize(
    ("fast", "arguments", "there"), [(False, [], False), (False, ["--emulated"], True), (True, [], True)]
)
def test_bfloat16_is_timed_where_it_is_not_emulated(
    fast: bool,
    arguments: list[str],
    there: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (compare_latency, loading):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: fast)
    assert main(["bench", "--without-official", *SMALL, *arguments]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert ("ours bfloat16" in json.loads(last)["ms"]) == there
    assert ("bfloat16 is emulated here" in "".join(table)) != there


def test_compiled_takes_part_and_its_cost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--without-official", "--compile", "--compile-backend", "eager", *SMALL]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    summary = json.loads(last)
    name = f"{summary['default']}, compiled"
    assert summary["ms"][name] > 0
    assert summary["worst_iou"][name] > 0.9
    assert summary["compile_s"][name] > 0
    assert any(line.startswith(f"{name}: compiled in ") for line in table)


def test_an_engine_takes_part_and_is_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[str] = []
    monkeypatch.setattr(contenders, "is_installed", lambda engine: engine == "openvino")
    monkeypatch.setattr(contenders, "choose_encoder_engine", lambda asked, *_: {"auto": "openvino"}.get(asked, asked))
    monkeypatch.setattr(contenders, "use_encoder_engine", lambda network, engine: used.append(engine))
    assert main(["bench", *SMALL, "--encoder-engine", "all"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert used[-1] == "openvino" and used.count("openvino") == 1
    assert summary["default"].endswith(", openvino") and summary["default"] in summary["ms"]
    assert min(summary["worst_iou"][summary["default"]], summary["ms"][summary["default"]]) > 0.9


def test_beside_a_busy_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbours: list[int] = []
    monkeypatch.setattr(compare_latency, "_SETTLE_FRAMES", 1)
    monkeypatch.setattr(compare_latency, "busy_process", lambda n: contextlib.nullcontext(neighbours.append(n)))
    table = tmp_path / "bench.csv"
    assert main(["bench", *SMALL, "--busy", "2", "--busy-frames", "3", "--csv", str(table)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    summary = json.loads(last)
    assert neighbours == [2, 2]
    assert summary["busy_ms_p95"].keys() == {summary["default"], f"{summary['default']}, fixed threads"}
    assert all(p95 >= summary["busy_ms_p50"][name] > 0 for name, p95 in summary["busy_ms_p95"].items())
    assert "beside a process with 2 busy thread(s)" in lines
    with table.open() as file:
        rows = {row["contender"]: row for row in csv.DictReader(file)}
    assert float(rows[summary["default"]]["busy_ms_p95"]) == summary["busy_ms_p95"][summary["default"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nanoo"], "unknown model 'nanoo'"),
        (["--objects", "0"], "at least one object"),
        (["--busy", "-1"], "0 or more busy threads"),
        (["--encoder-engine", "tensorrt"], "encoder_engine: expected one of auto, torch"),
        (["--device", "cuda:77"], "device: expected cpu"),
        (["--compile", "--compile-backend", "fortran"], "compile backend: expected one of"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *SMALL, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
