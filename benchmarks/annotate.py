"""How quickly does the annotation server answer a click, and how does it bear a long recording?

    python benchmarks/annotate.py --csv annotate.csv                # 3,000 frames of 1920x1080, nano
    python benchmarks/annotate.py --frames 300 --model edgetam

`sam2-ros annotate` runs as a process of its own on a project with masklets on all frames. Measured as by a page:
opening (the project, its recording, the first image and its masks), clicks and corrections on frames that were looked
at before (encoded ahead), clicks on frames that were not, and the process's peak memory after all.
Exit status 1 when a bar of docs/annotating.md is missed.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from sam2_ros.annotate.masklets import MaskletFrame, MaskSource
from sam2_ros.annotate.project import Project

CLICK_MS, OPEN_S, MEMORY_MB = 300.0, 3.0, 2000.0  # the bars
SIZE_HW = (1080, 1920)
PICTURES = 8  # that differ; the other frames are links to them
AHEAD_S = 2.0  # that a person looks at a frame before the first click


@dataclass(frozen=True)
class Measure:
    """One row of the result."""

    name: str
    value: float
    unit: str
    bar: float | None = None

    @property
    def is_met(self) -> bool:
        return self.bar is None or self.value <= self.bar


def make_project(path: Path, frames: int, objects: int) -> None:
    """A recording of textured pictures, and discs that move as masklets on every frame."""
    rng = np.random.default_rng(0)
    height, width = SIZE_HW
    with Project.create(path, "benchmark") as project:
        writer = project.new_recording("long")
        pictures = []
        for _ in range(PICTURES):
            coarse = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            pictures.append((image, cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes()))
        for index in range(frames):
            image, jpeg = pictures[index % PICTURES]
            writer.add(image, source_index=index, jpeg=jpeg)
        recording = project.add_recording(writer.finish(name="long", kind="images", source="-", fps=6.0))
        discs = [_disc(number, objects) for number in range(objects)]
        for disc in discs:
            masks = [MaskletFrame.of_mask(np.roll(disc, 9 * i, axis=1), MaskSource.PROPAGATED) for i in range(200)]
            frames_of = {index: masks[index % len(masks)] for index in range(1, frames)}
            recording.masklets.add(frames={0: MaskletFrame.of_mask(disc, MaskSource.CLICK), **frames_of})


def _disc(number: int, objects: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(mask, (200, (number + 1) * SIZE_HW[0] // (objects + 1)), 90, 1, -1)
    return mask.astype(bool)


class Server:
    """A running server, and how to ask it."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        parts = urlsplit(address)
        self._base = parts.path
        self.parts_ms: dict[str, float] = {}  # of the last answer, where the server says where its time went
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """The body of the answer; RuntimeError if the server refuses."""
        headers = {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        self._connection.request(method, self._base + path, text, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        parts = [part.split(";dur=") for part in answer.headers.get("server-timing", "").split(", ") if part]
        self.parts_ms = {name: float(ms) for name, ms in parts}
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return content

    def cpu_ms(self) -> float:
        """Processor time so far, of all threads: unlike wall time it does not depend on what else the machine does."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")

    def peak_memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@contextmanager
def serving(project: Path, options: list[str]) -> Iterator[Server]:
    command = [sys.executable, "-m", "sam2_ros.cli", "annotate", str(project), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} did not start")
            yield Server(process, line.split()[-1])
        finally:
            process.terminate()


def timed_ms(act: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    act()
    return (time.perf_counter() - started_s) * 1e3


def measure(server: Server, frames: int, clicks: int) -> Iterator[Measure]:
    """Do what a page does, and time it."""

    def open_page() -> None:
        for path in ("api/project", "api/recordings/long", "api/recordings/long/frames/0.jpg", _masks(0)):
            server.ask("GET", path)

    yield Measure("open, first time", timed_ms(open_page) / 1e3, "s", OPEN_S)
    yield Measure("open, again", timed_ms(open_page) / 1e3, "s", OPEN_S)
    new = json.loads(server.ask("POST", "api/recordings/long/masklets", {}))["masklet"]
    places = [int(at) for at in np.linspace(10, frames - 10, clicks)]
    for name, masklet, is_ahead, offset, bar in (
        ("click", new, True, 0, CLICK_MS),
        ("second click on the same frame", new, False, 0, CLICK_MS),
        ("correction from memory", "m0001", True, 5, CLICK_MS),
        ("click, not encoded ahead", new, False, 3, None),
    ):
        times_ms, cpu_ms, parts = [], 0.0, []
        for index in (at + offset for at in places):
            if is_ahead:
                focus = {"frame": index, "masklet": masklet, "phase": 3}
                server.ask("POST", "api/recordings/long/focus", focus)
                time.sleep(AHEAD_S)
            path = f"api/recordings/long/masklets/{masklet}/frames/{index}/prompts"
            point = {"points": [[400, 500]], "labels": [1]}
            before_ms = server.cpu_ms()
            times_ms.append(timed_ms(lambda path=path, point=point: server.ask("POST", path, point)))
            cpu_ms += server.cpu_ms() - before_ms
            parts.append({**server.parts_ms, "request": times_ms[-1] - sum(server.parts_ms.values())})
        yield Measure(f"{name}, p50", statistics.median(times_ms), "ms", bar)
        yield Measure(f"{name}, worst of {clicks}", max(times_ms), "ms")
        yield Measure(f"{name}, processor time", cpu_ms / clicks, "ms")
        for part in parts[0]:  # wait for the network's thread, prepare, decode, store, log, and the rest
            yield Measure(f"{name}: {part}, p50", statistics.median(each[part] for each in parts), "ms")
    times_ms = [timed_ms(lambda at=at: server.ask("GET", _masks(at))) for at in range(0, frames - 24, 24)]
    yield Measure("masks of 24 frames, p50", statistics.median(times_ms), "ms")
    yield Measure("peak memory", server.peak_memory_mb(), "MB", MEMORY_MB)


def _masks(first: int) -> str:
    return f"api/recordings/long/masks?first={first}&last={first + 23}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000, help="frames of 1920x1080 (default: 3000)")
    parser.add_argument("--objects", type=int, default=3, help="masklets on all of them (default: 3)")
    parser.add_argument("--clicks", type=int, default=8, help="of each kind (default: 8)")
    parser.add_argument("--model", default="nano", help="name of the model (default: nano)")
    parser.add_argument("--csv", type=Path, help="file for the result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        make_project(project, args.frames, args.objects)
        with serving(project, ["--model", args.model]) as server:
            rows = []
            for row in measure(server, args.frames, args.clicks):
                rows.append(row)
                bar = "" if row.bar is None else f" (bar {row.bar:g}{'' if row.is_met else ', MISSED'})"
                print(f"{row.name:<50} {row.value:9.2f} {row.unit}{bar}", flush=True)
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("measure", "value", "unit", "bar"))
            writer.writerows((row.name, round(row.value, 3), row.unit, row.bar or "") for row in rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
