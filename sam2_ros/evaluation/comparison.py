"""What a comparison of latencies found, as rows, as a table and as a summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np
import torch

from sam2_ros.evaluation.latency import STAGES, Measured, ious

FIXED_THREADS = ", fixed threads"  # what a contender whose threads do not follow the load has after its name


@dataclass(frozen=True)
class Comparison:
    """The measurements, and what they were made on."""

    model: str
    image_size: int
    num_objects: int
    size_hw: tuple[int, int]  # of the camera image, px
    device: str
    threads: int
    measured: list[Measured]
    default: str  # name of the contender with default settings
    ceiling_tflop_per_s: dict[str, float]  # by type, in one large matrix product
    compile_s: dict[str, float]  # by name, of compiled contenders
    busy_threads: int = 0  # of the process that was busy beside them while ``busy_ms`` was measured
    busy_ms: dict[str, list[float]] = field(default_factory=dict)  # by name, of each frame beside it

    def rows(self) -> list[dict[str, Any]]:
        """One row per contender."""
        reference = self.measured[0]
        return [
            {
                "model": self.model,
                "image_size": self.image_size,
                "objects": self.num_objects,
                "camera": f"{self.size_hw[1]}x{self.size_hw[0]}",
                "contender": m.name,
                "ms": round(m.frame_ms_p50, 2),
                "ratio": round(reference.frame_ms_p50 / m.frame_ms_p50, 2),
                **{stage: round(ms, 2) for stage, ms in m.stage_ms_p50.items()},
                "gflop": round(m.gflop, 1),
                "tflop_per_s": round(m.tflop_per_s, 3),
                "of_ceiling": round(m.tflop_per_s / self._ceiling(m.name), 2),
                "mean_iou": round(mean(ious(m.masks, reference.masks)), 4),
                "worst_iou": round(min(ious(m.masks, reference.masks)), 4),
                "busy_threads": self.busy_threads,
                "busy_ms_p50": self._busy(m.name, 50),
                "busy_ms_p95": self._busy(m.name, 95),
                "threads": self.threads,
                "device": self.device,
            }
            for m in self.measured
        ]

    def table(self) -> str:
        """The rows as Markdown, below a description of the setting."""
        columns = ("contender", "ms", "ratio", *STAGES, "gflop", "tflop_per_s", "of_ceiling", "mean_iou", "worst_iou")
        ceilings = ", ".join(f"{value:.3f} in {name}" for name, value in self.ceiling_tflop_per_s.items())
        emulated = "" if "bfloat16" in self.ceiling_tflop_per_s else "; bfloat16 is emulated here and was left out"
        lines = [
            f"{self.model} at {self.image_size} px, {self.num_objects} object(s), camera image "
            f"{self.size_hw[1]}x{self.size_hw[0]}; {self.device}, {self.threads} thread(s), torch {torch.__version__}",
            f"medians of {len(self.measured[0].frame_ms)} frames in steady state; one large matrix product: {ceilings} "
            f"TFLOP/s{emulated}",
            "",
            "| " + " | ".join(columns) + " |",
            "|" + " --- |" * len(columns),
        ]
        lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in self.rows()]
        lines += self._busy_lines()
        lines += [f"{name}: compiled in {spent_s:.0f} s" for name, spent_s in self.compile_s.items()]
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """The JSON summary; ``speedup_vs_official`` is our default against the fastest official one, None without."""
        by_name = {m.name: m for m in self.measured}
        official = [m.frame_ms_p50 for m in self.measured if m.name.startswith("official")]
        ours_ms = by_name[self.default].frame_ms_p50
        return {
            "model": self.model,
            "image_size": self.image_size,
            "objects": self.num_objects,
            "device": self.device,
            "threads": self.threads,
            "default": self.default,
            "ms": {name: round(m.frame_ms_p50, 2) for name, m in by_name.items()},
            "speedup_vs_official": round(min(official) / ours_ms, 3) if official else None,
            "mean_iou": {row["contender"]: row["mean_iou"] for row in self.rows()},
            "worst_iou": {row["contender"]: row["worst_iou"] for row in self.rows()},
            "busy_threads": self.busy_threads,
            "busy_ms_p50": {name: self._busy(name, 50) for name in self.busy_ms},
            "busy_ms_p95": {name: self._busy(name, 95) for name in self.busy_ms},
            "compile_s": {name: round(value, 1) for name, value in self.compile_s.items()},
            "ceiling_tflop_per_s": {name: round(value, 3) for name, value in self.ceiling_tflop_per_s.items()},
        }

    def _ceiling(self, contender: str) -> float:
        return self.ceiling_tflop_per_s["bfloat16" if "bfloat16" in contender else "float32"]

    def _busy(self, name: str, percentile: float) -> float | None:
        return round(float(np.percentile(self.busy_ms[name], percentile)), 2) if name in self.busy_ms else None

    def _busy_lines(self) -> list[str]:
        if not self.busy_ms:
            return []
        quiet_ms = {m.name: m.frame_ms_p50 for m in self.measured}
        lines = ["", f"beside a process with {self.busy_threads} busy thread(s)", ""]
        lines += ["| contender | ms, quiet | p50 | p95 | p95 / quiet |", "|" + " --- |" * 5]
        for name in self.busy_ms:
            p50, p95 = self._busy(name, 50), self._busy(name, 95) or 0.0
            quiet = quiet_ms[name.removesuffix(FIXED_THREADS)]
            lines.append(f"| {name} | {quiet:.1f} | {p50} | {p95} | {p95 / quiet:.2f} |")
        return lines
