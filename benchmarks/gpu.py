"""All rows of the GPU table in one go: each model with 1, 4 and 16 objects beside the official code, and training.

    python benchmarks/gpu.py --out gpu_results                    # with an NVIDIA GPU; all rows take about an hour
    python benchmarks/gpu.py --out try --device cpu --small       # a try of this script, on any machine

Models are timed by `sam2-ros bench`, each in a process of its own: ours in float32, bfloat16 and compiled, and the
official predictor in both types and compiled. EdgeTAM's official code fails with more than one object, and nano has
none. A training step is one of `sam2-ros train` on rendered photographs. What --out has already is not measured again,
so a run that was stopped goes on; what fails, for want of memory or of a compiler, is told and the others go on.

OUT gets model.csv, training.csv, machine.json, and table.md with both tables: the files to send back.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import torch
import yaml

from sam2_ros.data.files.masks import write_index_png
from sam2_ros.demo.tabletop.scene import Tabletop

MODELS = ("nano", "edgetam:512", "edgetam:1024", "sam2.1_hiera_tiny", "sam2.1_hiera_base_plus")
SMALL_PX = {"edgetam": 256}  # with --small; of the others 64
WARM_STEPS = 3  # of training, before those that are timed
PHOTOGRAPHS = 4
ATTEMPT_TIMEOUT_S = 1800.0
SMALL_OPTIONS = ("--width", "96", "--height", "64", "--frames", "1", "--threads", "1", "--compile-backend", "eager")


@dataclass(frozen=True)
class Comparison:
    """One run of `sam2-ros bench`."""

    model: str
    image_size: int | None  # px; None: the model's own
    objects: int

    @classmethod
    def of(cls, text: str, objects: int, small: bool) -> Comparison:
        """Of a model's name, with ":" and a size if it is not its own."""
        model, _, size = text.partition(":")
        return cls(model, SMALL_PX.get(model, 64) if small else int(size) if size else None, objects)

    def options(self) -> list[str]:
        size = [] if self.image_size is None else ["--image-size", str(self.image_size)]
        return ["--model", self.model, *size, "--objects", str(self.objects)]

    def is_in(self, rows: Sequence[Mapping[str, str]]) -> bool:
        return any(
            (row["model"], row["objects"]) == (self.model, str(self.objects))
            and self.image_size in (None, int(row["image_size"]))
            for row in rows
        )


@dataclass(frozen=True)
class Training:
    """One run of `sam2-ros train`."""

    model: str
    size_px: int
    frames: int
    clips_per_batch: int
    bf16: bool
    steps: int

    @property
    def name(self) -> str:
        return f"{self.model}, {self.size_px} px, {self.frames} frames, {'bfloat16' if self.bf16 else 'float32'}"

    def config(self, photographs: Path, device: str) -> dict[str, Any]:
        stage = {"steps": WARM_STEPS + self.steps, "size_px": self.size_px, "frames": self.frames}
        stage |= {"clips_per_batch": self.clips_per_batch, "lr": 1e-5, "lr_end": 1e-6, "trunk_lr": 1e-6}
        where = {"device": device, "bf16": self.bf16, "threads": 1, "workers": 2 if device != "cpu" else 0}
        often = {"log_every": 1, "save_every": WARM_STEPS + self.steps}
        return {"model": self.model, "stages": [stage], "photo_roots": [str(photographs)], **where, **often}


def trainings(small: bool) -> Iterator[Training]:
    if small:
        yield Training("nano", 64, 2, 1, False, 2)
        return
    for bf16 in (False, True):
        yield Training("nano", 320, 8, 4, bf16, 20)
        yield Training("sam2.1_hiera_tiny", 512, 8, 2, bf16, 10)


def rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def attempt(name: str, command: Sequence[str]) -> str:
    """Run it; empty, or why it failed."""
    print(f"gpu: {name}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=ATTEMPT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"not finished in {ATTEMPT_TIMEOUT_S:.0f} s"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else f"exit status {done.returncode}: {said[-1][:300] if said else ''}"


def compare_all(args: argparse.Namespace, table: Path, others: Sequence[str]) -> Iterator[str]:
    """Fill the table of models; yields what failed."""
    for comparison in (Comparison.of(m, n, args.small) for m in args.models for n in args.objects):
        if comparison.is_in(rows_of(table)):
            continue
        command = [sys.executable, "-m", "sam2_ros.cli", "bench", *comparison.options(), "--device", args.device]
        command += ["--compile", "--csv", str(table)]
        command += [*SMALL_OPTIONS] if args.small else ["--frames", str(args.frames)]
        name = " ".join(comparison.options())
        if reason := attempt(name, [*command, *others]):
            yield f"{name}: {reason}"


def train_all(args: argparse.Namespace, table: Path) -> Iterator[str]:
    """Fill the table of training steps; yields what failed."""
    known = {row["training"] for row in rows_of(table)}
    for training in trainings(args.small):
        if training.name in known:
            continue
        with tempfile.TemporaryDirectory(prefix="sam2_ros_") as scratch:
            config, out = Path(scratch, "train.yaml"), Path(scratch, "out")
            render_photographs(Path(scratch, "photographs"))
            config.write_text(yaml.safe_dump(training.config(Path(scratch, "photographs"), args.device)))
            command = [sys.executable, "-m", "sam2_ros.cli", "train", str(config), "--out", str(out)]
            if reason := attempt(f"training, {training.name}", command):
                yield f"training, {training.name}: {reason}"
                continue
            seconds = [float(row["seconds"]) for row in rows_of(out / "log.csv")]
        steps_ms = [1e3 * (after - before) for before, after in pairwise(seconds[WARM_STEPS - 1 :])]
        row = {"training": training.name, "ms": round(statistics.median(steps_ms), 1), **asdict(training)}
        append(table, row)


def render_photographs(root: Path) -> None:
    """Photographs with masks to train on: pictures of the rendered tabletop."""
    scene = Tabletop()
    (root / "images").mkdir(parents=True)
    for index in range(PHOTOGRAPHS):
        frame = scene.render(40 * index)
        cv2.imwrite(str(root / "images" / f"{index}.jpg"), frame.image_rgb[:, :, ::-1])
        write_index_png(root / "masks" / f"{index}.png", frame.ids)


def append(table: Path, row: Mapping[str, Any]) -> None:
    is_new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def markdown(models: Sequence[Mapping[str, str]], training: Sequence[Mapping[str, str]], machine: str) -> str:
    """Both tables. Of ours and of the official code the fastest way counts, eager and compiled apart."""
    lines = [machine, "", "| model | px | objects | official | official, compiled | ours | ours, compiled | times |"]
    lines.append("|" + " --- |" * 8)
    for key in dict.fromkeys((row["model"], row["image_size"], row["objects"]) for row in models):
        ms = {r["contender"]: float(r["ms"]) for r in models if (r["model"], r["image_size"], r["objects"]) == key}
        cells = [
            min(
                (v for name, v in ms.items() if name.startswith(who) and ("compiled" in name) == compiled), default=None
            )
            for who in ("official", "ours")
            for compiled in (False, True)
        ]
        theirs, ours = ([v for v in pair if v is not None] for pair in (cells[:2], cells[2:]))
        times = f"{min(theirs) / min(ours):.2f}" if theirs and ours else ""
        lines.append(
            f"| {' | '.join(key)} | {' | '.join('' if v is None else f'{v:.1f} ms' for v in cells)} | {times} |"
        )
    lines += ["", "| step of training | clips | ms |", "| --- | --- | --- |"]
    lines += [f"| {row['training']} | {row['clips_per_batch']} | {row['ms']} |" for row in training]
    return "\n".join(lines)


def describe_machine(device: str) -> dict[str, str]:
    found = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
    found["torch"] = torch.__version__
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing; 0, or 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the tables are, or go")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, ... or cpu")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME[:PX]", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--objects", nargs="+", type=int, default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="timed in each comparison (default: 20)")
    parser.add_argument("--small", action="store_true", help="tiny images and no compiler: times mean nothing")
    args, others = parser.parse_known_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("gpu: PyTorch finds no CUDA device; --device cpu --small tries the script without one", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    model_table, training_table = args.out / "model.csv", args.out / "training.csv"
    machine = describe_machine(args.device)
    (args.out / "machine.json").write_text(json.dumps(machine, indent=2) + "\n")
    failures = [*compare_all(args, model_table, others), *train_all(args, training_table)]
    text = markdown(rows_of(model_table), rows_of(training_table), ", ".join(machine.values()))
    text = "\n".join([text, *(["", *(f"- failed: {each}" for each in failures)] if failures else [])])
    (args.out / "table.md").write_text(text + "\n")
    print(text, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
