"""The rows of ``ros_latency.py``: from what came of a run, to Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from node_rig import Answer, BenchmarkError

from sam2_ros.demo.stream import index_of_stamp
from sam2_ros.session.stats import LATENCIES_KEPT

INSIDE_FRAMES = 0.9 * LATENCIES_KEPT  # the node's own account is over its latest images: nearly all must be of this run


@dataclass(frozen=True)
class Run:
    """One size at one camera rate: a row of the table."""

    size: str
    asked_rate_hz: float
    rate_hz: float  # of the camera, by its stamps
    objects: int
    frames: int  # that the camera sent
    dropped: int  # of them, without an output at the client
    dropped_in_node: int  # replaced by a newer one before the model was free, about
    inference_ms_p50: float
    latency_ms_p50: float
    latency_ms_p95: float
    overhead_ms_p50: float
    overhead_ms_p95: float
    until_published_ms_p50: float
    delivery_ms_p50: float
    inside_ms_p50: float | None
    prompt_ms_p50: float | None = None
    prompt_ms_p95: float | None = None
    busy_threads: int = 0  # of another process that kept the cores busy


COLUMNS = (
    ("image", "size"),
    ("camera [Hz]", "rate_hz"),
    ("objects", "objects"),
    ("images", "frames"),
    ("dropped", "dropped"),
    ("model p50", "inference_ms_p50"),
    ("latency p50", "latency_ms_p50"),
    ("p95", "latency_ms_p95"),
    ("overhead p50", "overhead_ms_p50"),
    ("p95", "overhead_ms_p95"),
    ("until published", "until_published_ms_p50"),
    ("delivery", "delivery_ms_p50"),
    ("inside", "inside_ms_p50"),
    ("prompt to mask p50", "prompt_ms_p50"),
    ("p95", "prompt_ms_p95"),
)


def summarize(
    answers: Sequence[Answer],
    *,
    size: str,
    asked_rate_hz: float,
    frames: int,
    objects: int,
    diagnostics: Mapping[str, str],
    prompt_ms: Sequence[float] = (),
) -> Run:
    """The row of a run whose camera frames are those ``frames`` that come after the first answer's.

    Raises:
        BenchmarkError: fewer than two answers.
    """
    by_index = {index_of_stamp(answer.stamp_ns): answer for answer in answers}
    if not by_index:
        raise BenchmarkError("expected answers of the node, got none")
    first = min(by_index)
    counted = [by_index[index] for index in sorted(by_index) if first < index <= first + frames]
    if not counted:
        raise BenchmarkError(f"expected answers to the {frames} images after number {first}, got none")
    start, end = by_index[first], counted[-1]
    sent = index_of_stamp(end.stamp_ns) - first
    latency = _percentiles([answer.latency_ms for answer in counted])
    overhead = _percentiles([answer.overhead_ms for answer in counted])
    prompt = _percentiles(prompt_ms) if prompt_ms else (None, None)
    return Run(
        size=size,
        asked_rate_hz=asked_rate_hz,
        rate_hz=sent * 1e9 / (end.stamp_ns - start.stamp_ns),
        objects=objects,
        frames=frames,
        dropped=frames - len(counted),
        dropped_in_node=end.frames_dropped - start.frames_dropped,
        inference_ms_p50=_percentiles([answer.inference_ms for answer in counted])[0],
        latency_ms_p50=latency[0],
        latency_ms_p95=latency[1],
        overhead_ms_p50=overhead[0],
        overhead_ms_p95=overhead[1],
        until_published_ms_p50=_percentiles([answer.age_ms - answer.inference_ms for answer in counted])[0],
        delivery_ms_p50=_percentiles([answer.delivery_ms for answer in counted])[0],
        inside_ms_p50=_inside_ms(diagnostics) if len(counted) >= INSIDE_FRAMES else None,
        prompt_ms_p50=prompt[0],
        prompt_ms_p95=prompt[1],
    )


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)


def _inside_ms(diagnostics: Mapping[str, str]) -> float | None:
    latency, inference = (diagnostics.get(f"{name} p50 [ms]", "") for name in ("latency", "inference"))
    return float(latency) - float(inference) if latency and inference else None


def markdown(runs: Sequence[Run]) -> str:
    """The table; times in ms."""
    lines = ["| " + " | ".join(head for head, _ in COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for run in runs:
        values = [getattr(run, name) for _, name in COLUMNS]
        lines.append("| " + " | ".join(_cell(value) for value in values) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def rounded(run: Run) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(run).items()}


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Run)])
        writer.writeheader()
        writer.writerows(rounded(run) for run in runs)
