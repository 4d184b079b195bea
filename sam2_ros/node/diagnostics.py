"""``/diagnostics`` once a second: rates, drops, ages, latencies, memory and objects by state, or why there are none."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.session.stats import TOO_OLD_S, SessionStats, describe_too_old
from sam2_ros.tracking.types import ObjectState

PERCENTILES = (50, 95)


class DiagnosticsReporter:
    """Turns a session's counters into a status; rates are over the time since the previous report."""

    def __init__(
        self, name: str, parameters: Callable[[], NodeParameters], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._parameters = parameters
        self._clock = clock
        self._before = (clock(), 0, 0, 0)

    def report(
        self, session: Session | None, *, state: str, trouble: str, silent: bool, depth_trouble: str = ""
    ) -> DiagnosticStatus:
        """``trouble``: why there is no session, empty otherwise; ``silent``: active, but no images come;
        ``depth_trouble``: why the latest image had no depth, empty when it had or needed none."""
        status = DiagnosticStatus(name=f"{self._name}: tracking", hardware_id=self._name, level=DiagnosticStatus.OK)
        memory_mb = process_memory_mb()
        values: dict[str, str] = {"state": state, "process memory [MiB]": _one_decimal(memory_mb)}
        values["device memory [MiB]"] = _one_decimal(device_memory_mb())
        status.message = state
        if session is None:
            if trouble:
                status.level, status.message = DiagnosticStatus.ERROR, trouble
        else:
            stats = session.stats()
            self._describe(session, stats, status, values, silent, depth_trouble)
            self._compare(status, "masks are old: p95 age [ms]", _percentile(stats.age_ms, 95), "age_ms")
            self._compare(status, "much memory is in use [MiB]", memory_mb, "memory_mb")
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status

    def _compare(self, status: DiagnosticStatus, what: str, value: float | None, parameter: str) -> None:
        """Raise the level to what the thresholds say; what is worse already stays."""
        for level, prefix in ((DiagnosticStatus.ERROR, "error"), (DiagnosticStatus.WARN, "warn")):
            limit = getattr(self._parameters(), f"{prefix}_{parameter}")
            if limit and value is not None and value > limit and status.level < level:
                status.level = level
                status.message = f"{what} {value:.0f}, {prefix}_{parameter} is {limit:g}"

    def _describe(
        self,
        session: Session,
        stats: SessionStats,
        status: DiagnosticStatus,
        values: dict[str, str],
        silent: bool,
        depth_trouble: str,
    ) -> None:
        now_s = self._clock()
        then_s, received, processed, failed = self._before
        self._before = (now_s, stats.received, stats.processed, stats.failed)
        elapsed_s = max(now_s - then_s, 1e-3)
        values["enabled"] = str(session.enabled).lower()
        values["objects"] = str(len(session.view.objects))
        states = Counter(item.tracked.state for item in session.view.objects)
        for object_state in ObjectState:
            values[f"objects {object_state.name}"] = str(states[object_state])
        values["objects behind"] = str(len(session.view.frames_behind))
        values["images in [Hz]"] = f"{max(stats.received - received, 0) / elapsed_s:.1f}"
        values["images out [Hz]"] = f"{max(stats.processed - processed, 0) / elapsed_s:.1f}"
        values["images dropped"] = str(stats.dropped)
        values["images skipped"] = str(stats.skipped)
        values["images failed"] = str(stats.failed)
        values["last error"] = stats.last_error
        values["no depth because"] = depth_trouble
        for name in ("age", "latency", "waiting", "inference", "publishing"):
            for percent in PERCENTILES:
                values[f"{name} p{percent} [ms]"] = _one_decimal(_percentile(getattr(stats, f"{name}_ms"), percent))
        if session.failure:
            status.level, status.message = DiagnosticStatus.ERROR, session.failure
        elif stats.failed > failed:
            status.level, status.message = DiagnosticStatus.WARN, stats.last_error
        elif silent and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, "no images"
        elif stats.too_old_for_s >= TOO_OLD_S and values["state"] == "active" and session.enabled:
            status.level = DiagnosticStatus.WARN
            status.message = describe_too_old(stats.too_old_s, self._parameters().max_image_age_s)
        elif depth_trouble and values["state"] == "active" and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, depth_trouble
        elif not session.enabled:
            status.message = "disabled"


def process_memory_mb() -> float | None:
    """Resident memory in MiB; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError):
        return None


def device_memory_mb() -> float | None:
    """What PyTorch holds of a GPU's memory in MiB; None where it uses none."""
    torch = sys.modules.get("torch")  # a node that has not loaded a model need not import it for this
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(float(torch.cuda.memory_reserved(index)) for index in range(torch.cuda.device_count())) / 2**20


def _percentile(samples: np.ndarray, percent: float) -> float | None:
    return float(np.percentile(samples, percent)) if len(samples) else None


def _one_decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
