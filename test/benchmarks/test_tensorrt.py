"""``benchmarks/tensorrt.py`` with a stand-in for trtexec that has its options and says what it says."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sam2_ros.export.graphs import INPUTS, OUTPUTS
from sam2_ros.export.onnx_files import DESCRIPTION

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "tensorrt.py"
# Options and lines as those of TensorRT 10.3. A graph takes as many ms as its ONNX file has bytes, half with fp16.
TRTEXEC = f"""#!{sys.executable}
import re, sys
from pathlib import Path
known = "onnx|saveEngine|loadEngine|fp16|noTF32|duration|useSpinWait|shapes|minShapes|optShapes|maxShapes"
given = dict(re.fullmatch(f"--({{known}})(?:=(.*))?", option).groups() for option in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # " + " ".join(sys.argv))
if "loadEngine" in given:
    size = float(Path(given["loadEngine"]).read_text())
else:
    content = Path(given["onnx"]).read_text()
    if content == "broken":
        print("[08/01/2026-10:00:00] [E] Error[4]: could not parse the graph")
        print("&&&& FAILED TensorRT.trtexec [TensorRT v100300]")
        sys.exit(1)
    if content.startswith("points") != ("optShapes" in given):
        print("[08/01/2026-10:00:00] [E] Error[4]: dynamic shapes and no profile, or the reverse")
        sys.exit(1)
    size = len(content) / (2 if "fp16" in given else 1)
    Path(given["saveEngine"]).write_text(str(size))
if "loadEngine" not in given or "optShapes" not in given:
    times = f"min = {{size / 2}} ms, max = {{3 * size}} ms, mean = {{size}} ms, median = {{size}} ms, "
    times += f"percentile(90%) = {{size}} ms, percentile(95%) = {{size}} ms, percentile(99%) = {{2 * size}} ms"
    print("[08/01/2026-10:00:00] [I] Latency: " + times.replace("median = ", "median = 9"))
    print("[08/01/2026-10:00:00] [I] GPU Compute Time: " + times)
    print("&&&& PASSED TensorRT.trtexec [TensorRT v100300]")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    description = {"model": "edgetam", "image_size": 512, "memory_slots": 7}
    description["graphs"] = {name: {"inputs": INPUTS[name], "outputs": OUTPUTS[name]} for name in INPUTS}
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    for name in INPUTS:
        (tmp_path / f"{name}.onnx").write_text("points" if name.startswith("mask_decoder") else "four")
    return tmp_path


@pytest.fixture
def trtexec(tmp_path: Path) -> str:
    program = tmp_path / "trtexec"
    program.write_text(TRTEXEC)
    program.chmod(0o755)
    return str(program)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", str(SCRIPT), *arguments]  # without site-packages, as on a bare device
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_each_graph_is_built_once_and_timed(folder: Path, trtexec: str) -> None:
    done = run(str(folder), "--trtexec", trtexec)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "tensorrt.md").read_text()
    assert "`edgetam` at 512 px, 7 memory slots" in done.stdout and "TensorRT 100300" in done.stdout
    assert "| image_encoder | fp16 | 2.00 | 4.00 |" in done.stdout
    assert "| mask_decoder | fp32 | 6.00 | 12.00 |" in done.stdout
    assert "| a frame, float32 | | 18.00 |" in done.stdout  # 4 + 4 + 6 + 4
    assert "| a frame, fp16 where it is safe | | 14.00 |" in done.stdout
    with (folder / "tensorrt.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["graph"] for row in rows if row["precision"] == "fp32"} == INPUTS.keys()
    assert {row["graph"] for row in rows if row["precision"] == "fp16"} == {"image_encoder", "memory_attention"}

    for name in INPUTS:
        (folder / f"{name}.onnx").unlink()
    again = run(str(folder), "--trtexec", trtexec)  # from the engines alone
    assert again.returncode == 0 and again.stdout == done.stdout


def test_graph_that_fails_leaves_the_others_and_says_why(folder: Path, trtexec: str) -> None:
    (folder / "memory_attention.onnx").write_text("broken")
    done = run(str(folder), "--trtexec", trtexec)
    assert done.returncode == 1
    assert "| memory_attention | fp16 | failed |" in done.stdout and "| memory_encoder | fp32 | 4.00 |" in done.stdout
    assert (
        "memory_attention, fp32: trtexec failed with 1: " in done.stdout and "could not parse the graph" in done.stdout
    )
    assert "| a frame, float32 | | incomplete |" in done.stdout


def test_nothing_to_build_or_to_build_with_is_one_line(folder: Path, trtexec: str, tmp_path: Path) -> None:
    for arguments, message in (
        ((str(folder), "--trtexec", str(tmp_path / "no_such")), "expected TensorRT's program trtexec, found none"),
        ((str(tmp_path / "elsewhere"), "--trtexec", trtexec), "expected the files of `sam2-ros export`"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
