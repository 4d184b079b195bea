"""What ``/diagnostics`` says of a session, with a clock and images of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from session_rig import SessionRig, click
from tiny_model import tiny_model

from sam2_ros.node import diagnostics
from sam2_ros.node.diagnostics import DiagnosticsReporter, process_memory_mb
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.tracker import Tracker

STAMP_S = 1.0
AGES_MS = (100.0, 300.0)  # of the two images


@pytest.fixture
def rig() -> Iterator[SessionRig]:
    """A session that has tracked two objects, of which one is out of sight, in two images."""
    rig = SessionRig(Tracker(tiny_model(), lost_after_frames=2))
    rig.prompt(click("a"), click("b", x=7))
    for age_ms in AGES_MS:
        rig.now_ns = round((STAMP_S + age_ms / 1e3) * 1e9)
        rig.show(np.zeros((8, 10, 3), np.uint8), STAMP_S)
    rig.settle()
    yield rig
    rig.close()


def report(rig: SessionRig | None, **parameters: object) -> tuple[DiagnosticStatus, dict[str, str]]:
    reporter = DiagnosticsReporter("node", lambda: parse(parameters))
    session: Any = None if rig is None else rig.session
    status = reporter.report(session, state="active", trouble="", silent=False)
    return status, {pair.key: pair.value for pair in status.values}


def test_objects_by_state_ages_stages_and_memory(rig: SessionRig) -> None:
    status, values = report(rig)
    assert status.level == DiagnosticStatus.OK
    assert (values["objects"], values["objects TRACKED"], values["objects LOST"]) == ("2", "2", "0")
    assert (values["age p50 [ms]"], values["age p95 [ms]"]) == ("200.0", "290.0")
    for stage in ("latency", "waiting", "inference", "publishing"):
        assert float(values[f"{stage} p95 [ms]"]) >= float(values[f"{stage} p50 [ms]"]) >= 0
    assert float(values["latency p50 [ms]"]) >= float(values["inference p50 [ms]"]) > 0
    assert float(values["process memory [MiB]"]) > 50  # torch is in it
    assert values["device memory [MiB]"] == ""  # no GPU is in use


@pytest.mark.parametrize(
    ("parameters", "level", "message"),
    [
        ({"warn_age_ms": 289.0}, DiagnosticStatus.WARN, "masks are old: p95 age [ms] 290, warn_age_ms is 289"),
        ({"warn_age_ms": 291.0}, DiagnosticStatus.OK, "active"),
        ({"error_age_ms": 200.0, "warn_age_ms": 100.0}, DiagnosticStatus.ERROR, "error_age_ms is 200"),
        ({"warn_memory_mb": 1}, DiagnosticStatus.WARN, "much memory is in use [MiB]"),
        ({"error_memory_mb": 1, "warn_age_ms": 1.0}, DiagnosticStatus.ERROR, "error_memory_mb is 1"),
        ({"error_age_ms": 1.0, "warn_memory_mb": 1}, DiagnosticStatus.ERROR, "error_age_ms is 1"),
    ],
)
def test_thresholds(rig: SessionRig, parameters: dict[str, object], level: bytes, message: str) -> None:
    status, _ = report(rig, **parameters)
    assert status.level == level
    assert message in status.message


@pytest.mark.parametrize(("state", "level"), [("active", DiagnosticStatus.WARN), ("inactive", DiagnosticStatus.OK)])
def test_depth_is_missed_only_while_the_node_is_active(rig: SessionRig, state: str, level: bytes) -> None:
    reporter, session = DiagnosticsReporter("node", lambda: parse({})), rig.session
    status = reporter.report(session, state=state, trouble="", silent=False, depth_trouble="no depth")
    assert status.level == level


def test_without_a_session_and_without_an_image_there_is_nothing_to_compare() -> None:
    status, values = report(None, error_age_ms=1.0)
    assert (status.level, values["state"]) == (DiagnosticStatus.OK, "active")


def test_a_system_that_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch, rig: SessionRig) -> None:
    monkeypatch.setattr(diagnostics, "Path", lambda name: Missing())
    assert process_memory_mb() is None
    assert report(rig, error_memory_mb=1)[0].level == DiagnosticStatus.OK


class Missing:
    def read_text(self) -> str:
        raise FileNotFoundError
