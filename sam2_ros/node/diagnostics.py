"""``/diagnostics`` once a second: rates, drops and latencies, or why there are none."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from sam2_ros.node.session import Session

PERCENTILES = (50, 95)


class DiagnosticsReporter:
    """Turns a session's counters into a status; rates are over the time since the previous report."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._before = (clock(), 0, 0, 0)

    def report(
        self, session: Session | None, *, state: str, trouble: str, silent: bool, depth_trouble: str = ""
    ) -> DiagnosticStatus:
        """``trouble``: why there is no session, empty otherwise; ``silent``: active, but no images come;
        ``depth_trouble``: why the latest image had no depth, empty when it had or needed none."""
        status = DiagnosticStatus(name=f"{self._name}: tracking", hardware_id=self._name, level=DiagnosticStatus.OK)
        values: dict[str, str] = {"state": state}
        status.message = state
        if session is None:
            if trouble:
                status.level, status.message = DiagnosticStatus.ERROR, trouble
        else:
            self._describe(session, status, values, silent, depth_trouble)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status

    def _describe(
        self, session: Session, status: DiagnosticStatus, values: dict[str, str], silent: bool, depth_trouble: str
    ) -> None:
        stats = session.stats()
        now_s = self._clock()
        then_s, received, processed, failed = self._before
        self._before = (now_s, stats.received, stats.processed, stats.failed)
        elapsed_s = max(now_s - then_s, 1e-3)
        values["enabled"] = str(session.enabled).lower()
        values["objects"] = str(len(session.view.objects))
        values["objects behind"] = str(len(session.view.frames_behind))
        values["images in [Hz]"] = f"{max(stats.received - received, 0) / elapsed_s:.1f}"
        values["images out [Hz]"] = f"{max(stats.processed - processed, 0) / elapsed_s:.1f}"
        values["images dropped"] = str(stats.dropped)
        values["images skipped"] = str(stats.skipped)
        values["images failed"] = str(stats.failed)
        values["last error"] = stats.last_error
        values["no depth because"] = depth_trouble
        for name, samples_ms in (("latency", stats.latency_ms), ("inference", stats.inference_ms)):
            for percent in PERCENTILES:
                known = f"{np.percentile(samples_ms, percent):.1f}" if len(samples_ms) else ""
                values[f"{name} p{percent} [ms]"] = known
        if session.failure:
            status.level, status.message = DiagnosticStatus.ERROR, session.failure
        elif stats.failed > failed:
            status.level, status.message = DiagnosticStatus.WARN, stats.last_error
        elif silent and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, "no images"
        elif depth_trouble and session.enabled:
            status.level, status.message = DiagnosticStatus.WARN, depth_trouble
        elif not session.enabled:
            status.message = "disabled"
