"""A model's ONNX files as TensorRT engines, timed: for a Jetson, or any machine with TensorRT's `trtexec`.

    sam2-ros export --model edgetam --image-size 512 --checkpoint edgetam.pt --out onnx_edgetam   # on any machine
    python3 tensorrt.py onnx_edgetam                                                              # on the Jetson

It needs Python alone, so that this file and the folder are all that has to be copied. Each graph is built in float32
and, where docs/export.md says that it is safe, with fp16; an engine that is there already is timed again and not built
again. The table at the end, also in FOLDER/tensorrt.md and .csv, says what the device is: please send it back.

A frame of one object is image_encoder + memory_attention + mask_decoder + memory_encoder. That is the time on the GPU;
what a program does between the graphs comes on top. Nothing here checks masks: see docs/export.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

HALF_IS_SAFE = ("image_encoder", "memory_attention")  # rounding in the others accumulates through the memories
OF_A_FRAME = ("image_encoder", "memory_attention", "mask_decoder", "memory_encoder")
TRTEXEC = ("trtexec", "/usr/src/tensorrt/bin/trtexec")  # the second: where JetPack puts it
BUILD_TIMEOUT_S = 3600.0
POINTS = {"min": 1, "opt": 2, "max": 16}  # of one call of a mask decoder
_TIME = re.compile(r"GPU Compute Time: .*?median = ([\d.]+) ms.*?percentile\(99%\) = ([\d.]+) ms")
_VERSION = re.compile(r"TensorRT v(\d+)")


@dataclass(frozen=True)
class Timed:
    """One engine, or why there is none."""

    graph: str
    precision: str  # fp32 or fp16
    ms_p50: float | None
    ms_p99: float | None
    engine_mb: float | None
    trouble: str = ""


def shape_options(graph: str) -> list[str]:
    """The mask decoders take any number of points, which an engine has to know the range of."""
    if not graph.startswith("mask_decoder"):
        return []
    return [f"--{which}Shapes=points:1x{count}x2,labels:1x{count}" for which, count in POINTS.items()]


def time_graph(trtexec: str, folder: Path, graph: str, precision: str, seconds: int) -> tuple[Timed, str]:
    """Build the engine of a graph unless it is there, and time it; and TensorRT's version as it says it."""
    engine = folder / f"{graph}.{precision}.plan"
    build = [f"--onnx={folder / f'{graph}.onnx'}", f"--saveEngine={engine}", *shape_options(graph)]
    build += ["--fp16"] if precision == "fp16" else ["--noTF32"]
    load = [f"--loadEngine={engine}"]
    load += [f"--shapes=points:1x{POINTS['opt']}x2,labels:1x{POINTS['opt']}"] if shape_options(graph) else []
    options = [*(load if engine.exists() else build), f"--duration={seconds}", "--useSpinWait"]
    try:
        done = subprocess.run([trtexec, *options], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Timed(graph, precision, None, None, None, f"not built in {BUILD_TIMEOUT_S:.0f} s"), ""
    version = _VERSION.search(done.stdout)
    found = _TIME.search(done.stdout)
    if done.returncode or found is None:
        engine.unlink(missing_ok=True)  # so that a broken one is not timed the next time
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line] or [done.stderr.strip()]
        reason = f"trtexec failed with {done.returncode}: {lines[0][:200]}"
        return Timed(graph, precision, None, None, None, reason), version[1] if version else ""
    megabytes = round(engine.stat().st_size / 1e6, 1)
    return Timed(graph, precision, float(found[1]), float(found[2]), megabytes), version[1] if version else ""


def describe_device() -> Iterator[str]:
    """What tells one device from another: its name, its system's release and its power mode."""
    for file in ("/proc/device-tree/model", "/etc/nv_tegra_release"):
        if Path(file).is_file():
            yield Path(file).read_text(errors="replace").strip("\0\n ").splitlines()[0]
    for command in (["nvpmodel", "-q"], ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]):
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
            yield " ".join(said[:2])


def frame_ms(timed: Sequence[Timed], half: bool) -> float | None:
    """Time of a frame with one object, with fp16 where it is safe or all in float32; None if a graph has no engine."""
    total = 0.0
    for graph in OF_A_FRAME:
        precision = "fp16" if half and graph in HALF_IS_SAFE else "fp32"
        ms = next((t.ms_p50 for t in timed if (t.graph, t.precision) == (graph, precision)), None)
        if ms is None:
            return None
        total += ms
    return total


def markdown(model: dict[str, object], device: str, timed: Sequence[Timed]) -> str:
    lines = [f"`{model['model']}` at {model['image_size']} px, {model['memory_slots']} memory slots; {device}", ""]
    lines += ["| graph | type | ms, median | ms, 99 % | engine |", "| --- | --- | --- | --- | --- |"]
    for each in timed:
        cells = (f"{each.ms_p50:.2f}", f"{each.ms_p99:.2f}", f"{each.engine_mb} MB") if each.ms_p50 else ("failed",) * 3
        lines.append(f"| {each.graph} | {each.precision} | {' | '.join(cells)} |")
    for name, half in (("a frame, float32", False), ("a frame, fp16 where it is safe", True)):
        total = frame_ms(timed, half)
        lines.append(f"| {name} | | {'incomplete' if total is None else f'{total:.2f}'} | | |")
    return "\n".join([*lines, *(f"\n{t.graph}, {t.precision}: {t.trouble}" for t in timed if t.trouble)])


def main(argv: Sequence[str] | None = None) -> int:
    """Build, time, write the table; 0, 1 when a graph failed, 2 when nothing can be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where `sam2-ros export` wrote its files; the engines go there too")
    parser.add_argument("--trtexec", help="TensorRT's program (default: on the PATH, else JetPack's)")
    parser.add_argument("--seconds", type=int, default=5, help="each engine is timed for so long (default: 5)")
    args = parser.parse_args(argv)
    trtexec = args.trtexec or next((found for name in TRTEXEC if (found := shutil.which(name))), None)
    if trtexec is None or not os.access(shutil.which(trtexec) or trtexec, os.X_OK):
        looked = args.trtexec or " and ".join(TRTEXEC)
        print(
            f"tensorrt: expected TensorRT's program trtexec, found none ({looked}); name it: --trtexec", file=sys.stderr
        )
        return 2
    try:
        model = json.loads((args.folder / "model.json").read_text())
        graphs = list(model["graphs"])
    except (OSError, ValueError, KeyError) as error:
        print(f"tensorrt: {args.folder}: expected the files of `sam2-ros export` ({error!r})", file=sys.stderr)
        return 2
    timed, version = [], ""
    for graph in graphs:
        for precision in ("fp32", "fp16") if graph in HALF_IS_SAFE else ("fp32",):
            print(f"tensorrt: {graph}, {precision}", file=sys.stderr, flush=True)
            row, said = time_graph(trtexec, args.folder, graph, precision, args.seconds)
            timed.append(row)
            version = said or version
    device = ", ".join([*describe_device(), f"TensorRT {version or 'of unknown version'}"])
    text = markdown(model, device, timed)
    (args.folder / "tensorrt.md").write_text(text + "\n")
    with (args.folder / "tensorrt.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["model", "image_size", "device", *(f.name for f in fields(Timed))])
        writer.writeheader()
        for each in timed:
            same = {"model": model["model"], "image_size": model["image_size"], "device": device}
            writer.writerow({**same, **asdict(each)})
    print(text)
    return 1 if any(each.trouble for each in timed) else 0


if __name__ == "__main__":
    sys.exit(main())
