"""The latency benchmark: its figures on hand-made answers, and a short run of it."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sam2_ros.demo.stream import stamp_with_index

pytestmark = pytest.mark.usefixtures("import_benchmarks")
MS = 1_000_000
HALF_MINUTE_NS = 30_000_000_000


@pytest.fixture
def rig(import_benchmarks: None) -> ModuleType:
    return importlib.import_module("node_rig")


@pytest.fixture
def table(import_benchmarks: None) -> ModuleType:
    return importlib.import_module("latency_table")


def answer_to(rig: ModuleType, index: int, latency_ms: float = 30.0, **fields: Any) -> Any:
    """Frame ``index`` of a camera at 10 Hz; the model takes 20 ms, and the objects are sent after 24 ms."""
    stamp_ns = stamp_with_index(HALF_MINUTE_NS + index * 100 * MS, index)
    values = {
        "stamp_ns": stamp_ns,
        "received_ns": stamp_ns + round(latency_ms * MS),
        "objects_received_ns": stamp_ns + 27 * MS,
        "inference_ms": 20.0,
        "age_ms": 24.0,
        "frames_dropped": 0,
        "object_count": 1,
    }
    return rig.Answer(**{**values, **fields})


def summarize(table: ModuleType, answers: list[Any], frames: int, **fields: Any) -> Any:
    values = {"size": "640x480", "asked_rate_hz": 10.0, "objects": 1, "diagnostics": {}, "frames": frames}
    return table.summarize(answers, **{**values, **fields})


def test_overhead_is_what_the_model_did_not_take(rig: ModuleType, table: ModuleType) -> None:
    latencies_ms = [999.0, *range(25, 46)]  # the first answer is where the counting starts, and does not count
    run = summarize(table, [answer_to(rig, 50 + i, ms) for i, ms in enumerate(latencies_ms)], 21)
    assert (run.frames, run.dropped, run.dropped_in_node) == (21, 0, 0)
    assert (run.latency_ms_p50, run.latency_ms_p95) == (pytest.approx(35), pytest.approx(44))
    assert (run.overhead_ms_p50, run.overhead_ms_p95) == (pytest.approx(15), pytest.approx(24))
    assert run.inference_ms_p50 == 20
    assert run.until_published_ms_p50 == pytest.approx(4)
    assert run.delivery_ms_p50 == pytest.approx(3)
    assert run.rate_hz == pytest.approx(10, rel=1e-4)
    assert run.prompt_ms_p50 is None


def test_images_without_an_answer_are_dropped_also_at_the_end(rig: ModuleType, table: ModuleType) -> None:
    there = [answer_to(rig, index, frames_dropped=40 + index // 3) for index in (10, 11, 12, 15, 16, 18, 21, 22)]
    run = summarize(table, there, 10)  # 11..20, of which 13, 14, 17, 19 and 20 are missing
    assert (run.frames, run.dropped) == (10, 5)
    assert run.dropped_in_node == 3  # by the node's own count from 10 until 18
    assert run.rate_hz == pytest.approx(10, rel=1e-4)  # of the camera, not of what came


def test_the_nodes_own_account_counts_only_when_nearly_all_of_it_is_of_this_run(
    rig: ModuleType, table: ModuleType
) -> None:
    diagnostics = {"latency p50 [ms]": "26.5", "inference p50 [ms]": "20.0"}
    long, short = ([answer_to(rig, index) for index in range(count + 1)] for count in (270, 269))
    assert summarize(table, long, 270, diagnostics=diagnostics).inside_ms_p50 == 6.5
    assert summarize(table, short, 269, diagnostics=diagnostics).inside_ms_p50 is None
    assert summarize(table, long, 270).inside_ms_p50 is None


def test_a_run_without_answers_is_told(rig: ModuleType, table: ModuleType) -> None:
    with pytest.raises(rig.BenchmarkError, match="expected answers of the node, got none"):
        summarize(table, [], 5)
    with pytest.raises(rig.BenchmarkError, match="the 5 images after number 7, got none"):
        summarize(table, [answer_to(rig, 7), answer_to(rig, 20)], 5)


def test_the_table(rig: ModuleType, table: ModuleType) -> None:
    run = summarize(table, [answer_to(rig, index) for index in range(4)], 3, prompt_ms=[50.0, 60.0, 70.0])
    head, rule, row = table.markdown([run]).splitlines()
    assert len(head.split("|")) == len(rule.split("|")) == len(row.split("|"))
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["overhead p50"] == "10.0"
    assert cells["inside"] == "-"
    assert cells["prompt to mask p50"] == "60.0"


def test_the_scene_goes_there_and_back_without_a_jump(import_benchmarks: None) -> None:
    camera = importlib.import_module("looped_camera")
    assert [camera.there_and_back(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [camera.there_and_back(i, 1) for i in range(3)] == [0, 0, 0]


def test_the_images_have_the_size_and_the_clicks_lie_in_them(import_benchmarks: None) -> None:
    from sam2_ros.demo.stream import Size

    camera = importlib.import_module("looped_camera")
    size = Size(96, 54)
    scene = camera.LoopedScene(size)
    assert {image.shape for image in scene.images_rgb} == {(54, 96, 3)}
    clicks = camera.scene_clicks(size)
    assert clicks and all(0 < click.x < 1 and 0 < click.y < 1 for click in clicks)


def test_the_head_names_no_machine(rig: ModuleType) -> None:
    import platform

    import torch

    text = rig.describe_machine("cpu", 3)
    assert f"torch {torch.__version__}" in text and text.endswith("3 threads")
    assert platform.node() not in text and str(Path.cwd()) not in text


def test_parameters_reach_the_node_as_ros_writes_them(rig: ModuleType) -> None:
    parser = argparse.ArgumentParser()
    rig.add_node_options(parser)
    args = parser.parse_args(["--weights", "random", "--threads", "2"])
    command = " ".join(rig.node_program(args, process_every_frame=True).command)
    for wanted in ("model:=nano", "weights:=random", "num_threads:=2", "process_every_frame:=true"):
        assert f"-p {wanted}" in command
    assert "checkpoint:=" not in command


def test_a_short_run(run_with_tiny_node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    files = ("--csv", str(tmp_path / "l.csv"), "--json", str(tmp_path / "l.json"))
    options = ("--size", "160x120", "--frames", "20", "--prompts", "3", "--objects", "2", "--busy", "1")
    done = run_with_tiny_node("ros_latency.py", *options, *files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "torch" in lines[0] and "beside a process with 1 busy threads" in lines[0]
    assert sum(line.startswith("| 160x120 |") for line in lines) == 2
    report = json.loads(lines[-1])
    assert json.loads((tmp_path / "l.json").read_text(encoding="utf-8")) == report
    kept_up, overloaded = report["runs"]
    assert kept_up["frames"] == overloaded["frames"] == 20
    assert 0 < kept_up["asked_rate_hz"] <= overloaded["asked_rate_hz"] == 30
    assert 0 <= kept_up["dropped"] < 20
    for run in (kept_up, overloaded):
        assert 0 < run["overhead_ms_p50"] < run["latency_ms_p50"]
        assert run["objects"] == 2 and run["busy_threads"] == 1 and run["inference_ms_p50"] > 0
        assert run["prompt_ms_p95"] >= run["prompt_ms_p50"] > 0
    with (tmp_path / "l.csv").open(encoding="utf-8") as file:
        assert [row["size"] for row in csv.DictReader(file)] == ["160x120"] * 2


def test_a_bad_option_of_the_node_is_told_with_its_reason(
    run_with_tiny_node: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    options = ("--size", "64x48", "--device", "cpu", "--node-module", "sam2_ros.node.sam2_node")
    done = run_with_tiny_node("ros_latency.py", *options, "--checkpoint", "no_such_weights.pt")
    assert done.returncode == 1
    assert "ros_latency: /sam2_node/list_objects rejects the request: not configured" in done.stderr
    assert "no_such_weights.pt" in done.stderr.splitlines()[-1]
