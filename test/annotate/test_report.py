"""The report: time, clicks, edited frames and verdicts, each counted for the phase it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from small_project import block, make_project, painted

from sam2_ros.annotate.masklets import MaskletFrame, MaskSource, Origin, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.report import IDLE_S, project_report
from sam2_ros.annotate.report_picture import draw_report
from sam2_ros.cli import main


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two masklets in phase 3, one in phase 1, an automatic one; and the log of the work on them."""
    project = make_project(tmp_path / "p")
    store = project.recordings[0].masklets
    tracked = MaskletFrame.of_mask(block(1), MaskSource.PROPAGATED)
    store.add(phase=3, frames={0: painted(block(0)), **dict.fromkeys(range(1, 4), tracked)})
    store.add(phase=3, frames=dict.fromkeys(range(4), tracked))
    store.add(phase=1, frames={0: painted(block(0)), 1: painted(block(0))})
    store.add(origin=Origin.AUTOMATIC, frames={0: tracked})
    for masklet_id, verdict in (("m0001", "ACCEPTED"), ("m0002", "REJECTED"), ("m0004", "NOT_TRACKABLE")):
        store.set_verdict(masklet_id, Verdict[verdict])
    log = [
        (0.0, "open", "", None),
        (2.0, "add", "m0001", 3),
        (5.0, "click", "m0001", 3),
        (7.0, "box", "m0002", 3),
        (7.5, "undo", "m0002", 3),
        (7.5 + IDLE_S + 1, "click", "m0001", 3),
        (80.0, "brush", "m0003", 1),
        (84.0, "click", "m0003", None),
        (90.0, "verdict", "m0001", None),
        (96.0, "verdict", "m0002", None),
        (97.0, "close", "", None),
        (99.0, "view", "m0001", 3),
        (98.0, "view", "m0001", 3),
    ]
    for time_s, action, masklet, phase in log:
        project.log.append(action, recording="clip", masklet=masklet, phase=phase, time_s=time_s)
    return project


def test_what_each_phase_cost(project: Project) -> None:
    report = project_report(project)
    third, first = report["phases"]["3"], report["phases"]["1"]
    assert third["seconds"] == 2 + 3 + 2 + 0.5, "a pause, the time while it was closed, and a clock set back: no work"
    assert third["clicks"] == 1 + 2 + 1 and third["clicks_per_masklet"] == 2.0 and third["undone"] == 1
    assert (third["annotated_frames"], third["edited_frames"], third["edited_share"]) == (8, 1, 0.125)
    assert third["seconds_per_frame"] == pytest.approx(7.5 / 8, abs=1e-3) and third["accepted_share"] == 0.5
    assert (first["seconds"], first["clicks"], first["brush_strokes"]) == (11.5 + 4, 1, 1)
    assert first["edited_share"] == 1.0 and first["accepted_share"] is None
    assert report["phases"]["none"]["verdicts"]["not_trackable"] == 1
    assert report["verification"] == {"verdicts": 2, "seconds": 12.0, "seconds_per_masklet": 6.0}
    assert (report["total"]["masklets"], report["total"]["clicks"], report["interactions"]) == (4, 5, 13)


def test_the_command_reports_while_the_project_is_open_elsewhere(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "new" / "report.png"
    assert main(["dataset", "report", str(project.path), "--picture", str(picture)]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["masklets"] == 4
    assert (cv2.imread(str(picture)) == draw_report(project_report(project))).all()
    assert main(["dataset", "report", str(tmp_path)]) == 2
    assert "is no project" in capsys.readouterr().err


def test_longer_bars_for_more_work_and_a_picture_of_an_empty_project(project: Project, tmp_path: Path) -> None:
    report = project_report(project)
    first_phase = (180, 119, 31)  # blue, in BGR
    before = int((draw_report(report) == first_phase).all(axis=-1).sum())
    report["phases"]["3"]["clicks_per_masklet"] *= 100  # beside which that of phase 1 is short
    assert 0 < int((draw_report(report) == first_phase).all(axis=-1).sum()) < before
    with make_project(tmp_path / "q") as empty:
        report = project_report(empty)
        assert report["phases"] == {} and report["total"]["seconds_per_frame"] is None
        assert draw_report(report).shape[1] == 960
