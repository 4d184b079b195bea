"""What ``soak.py`` samples, the file that the samples are kept in, and what they say.

The drift is how much the resident memory grew from the end of the warm-up to the end of the run, in percent. Two robust
estimates are made, and the larger counts: the median of the last third against that of the first, which sees a lasting
step in full and two thirds of a steady growth; and the Theil-Sen slope (the median of those between all pairs of
samples) over the whole time, which sees a steady growth in full, and may miss a step. Neither is moved by a few odd
samples; where they differ, this errs towards an alarm.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

import numpy as np

MIN_SAMPLES = 6


class TooFewSamplesError(ValueError):
    """There is nothing to judge yet."""


@dataclass(frozen=True)
class Sample:
    """The node after so many images; the speed is that of the images since the sample before. A row of the CSV."""

    frame: int
    elapsed_s: float
    rss_kib: int
    private_kib: int
    shared_kib: int  # with other processes: libraries, images in shared memory
    threads: int
    open_files: int
    objects: int
    latency_ms_p50: float  # from the image's stamp until the mask was here
    inference_ms_p50: float
    cpu_ms: float  # mean time of all cores per image; it hardly depends on what else the machine does


@dataclass(frozen=True)
class ProcessUse:
    """What a process takes."""

    rss_kib: int
    private_kib: int  # of it, what nobody else has mapped
    threads: int
    open_files: int
    cpu_s: float  # since it started


def read_process(pid: int) -> ProcessUse:
    """What the kernel says of a process now."""
    folder = Path(f"/proc/{pid}")
    memory = _numbers(folder / "smaps_rollup")
    times = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]  # utime, stime
    return ProcessUse(
        rss_kib=memory["Rss"],
        private_kib=memory["Private_Clean"] + memory["Private_Dirty"],
        threads=_numbers(folder / "status")["Threads"],
        open_files=sum(1 for _ in (folder / "fd").iterdir()),
        cpu_s=sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
    )


def _numbers(path: Path) -> dict[str, int]:
    """Lines such as ``Rss:   1234 kB``; the others are left out."""
    pairs = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    words = {name: value.split() for name, value in pairs}
    return {name: int(value[0]) for name, value in words.items() if value and value[0].isdecimal()}


def drift_percent(frames: Sequence[float], values: Sequence[float]) -> float:
    """How much ``values`` grew over ``frames``, in percent of where they began; see above.

    Raises:
        TooFewSamplesError: fewer than six samples.
    """
    if len(values) < MIN_SAMPLES:
        raise TooFewSamplesError(
            f"expected {MIN_SAMPLES} samples or more after the warm-up, got {len(values)}: run longer"
        )
    x, y = np.asarray(frames, float), np.asarray(values, float)
    third = len(y) // 3
    start = float(np.median(y[:third]))
    step = float(np.median(y[-third:])) - start
    before, after = np.triu_indices(len(y), k=1)
    slope = float(np.median((y[after] - y[before]) / (x[after] - x[before])))
    return 100 * max(step, slope * (x[-1] - x[0])) / start


@dataclass(frozen=True)
class Verdict:
    """What a run has shown."""

    frames: int
    rss_percent: float
    latency_percent: float  # for information, as is the next
    cpu_percent: float
    bound_percent: float

    @property
    def status(self) -> int:
        return int(self.rss_percent > self.bound_percent)

    def __str__(self) -> str:
        return f"RSS drift {self.rss_percent:.1f} % over {self.frames} frames (bound {self.bound_percent:g} %)"


def judge(samples: Sequence[Sample], *, warmup_frames: int, bound_percent: float) -> Verdict:
    """Raises TooFewSamplesError when there are too few samples after the warm-up."""
    warm = [sample for sample in samples if sample.frame > warmup_frames]
    frames = [sample.frame for sample in warm]
    return Verdict(
        frames=samples[-1].frame if samples else 0,
        rss_percent=drift_percent(frames, [sample.rss_kib for sample in warm]),
        latency_percent=drift_percent(frames, [sample.latency_ms_p50 for sample in warm]),
        cpu_percent=drift_percent(frames, [sample.cpu_ms for sample in warm]),
        bound_percent=bound_percent,
    )


def read_samples(path: Path) -> list[Sample]:
    """The rows of a CSV; a last one that was cut off is left out."""
    kinds = {field.name: int if field.type == "int" else float for field in fields(Sample)}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row.get(name) for name in kinds)]
    return [Sample(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in rows]


class SampleFile:
    """A CSV that is whole after every row."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        self._writer.writeheader()

    def add(self, sample: Sample) -> None:
        self._writer.writerow(asdict(sample))
        self._file.flush()
