"""Automatic masklets: what is found, tracked both ways and merged, and that no recording can stop the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import label_work
import numpy as np
import pytest
from small_project import SIZE_HW, add_block, block, make_project, painted
from tiny_model import tiny_model

from sam2_ros.annotate import auto_labels, label_jobs
from sam2_ros.annotate.auto_labels import key_frames, label_recording, merge_masklets
from sam2_ros.annotate.detections import FrameDetection, read_detections
from sam2_ros.annotate.label_jobs import (
    NICENESS,
    LabelJob,
    LabelOutcome,
    LabelSettings,
    is_done,
    run_here,
    run_on_ray,
    store_outcome,
)
from sam2_ros.annotate.masklets import Masklet, MaskletFrame, MaskSource, Origin, ProjectError, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.cli import main
from sam2_ros.tracking.mask_generator import GeneratedMask
from sam2_ros.tracking.tracker import Tracker

SETTINGS = LabelSettings(every=4, min_frames=1, min_area_share=0.0, max_area_share=1.0)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path / "p", 9) as opened:
        yield opened


@pytest.fixture(scope="module")
def network() -> object:
    return tiny_model()


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[np.ndarray]]:
    """The masks of the generator, by number of the key frame; the network does the rest."""
    masks: dict[int, list[np.ndarray]] = {}
    calls: list[int] = []

    class Generator:
        def __init__(self, _network: object) -> None: ...

        def generate(self, _image_rgb: np.ndarray) -> tuple[GeneratedMask, ...]:
            calls.append(len(calls))
            found = masks.get(calls[-1], [])
            return tuple(GeneratedMask(m, int(m.sum()), (0, 0, 1, 1), 0.75, 0.9, (0, 0), (0, 0, 1, 1)) for m in found)

    monkeypatch.setattr(auto_labels, "AutomaticMaskGenerator", Generator)
    return masks


def test_a_mask_on_a_key_frame_is_tracked_both_ways_as_the_tracker_does(
    project: Project, network: object, generated: dict[int, list[np.ndarray]]
) -> None:
    (recording,) = project.recordings
    generated[1] = [block(4)]  # frame 4
    (masklet,) = label_recording(network, recording, SETTINGS)  # type: ignore[arg-type]
    assert masklet.origin is Origin.AUTOMATIC and masklet.frame_indices == tuple(range(9))
    assert masklet.frames[4].source is MaskSource.AUTOMATIC and masklet.frames[4].quality == 0.75
    np.testing.assert_array_equal(masklet.frames[4].mask(), block(4))
    for order in (range(4, 9), range(4, -1, -1)):
        tracker = Tracker(network)  # type: ignore[arg-type]
        tracker.add_prompt("x", mask=block(4))
        for index in order:
            tracked = tracker.step(recording.frame_rgb(index))["x"]
            if index != 4:
                assert masklet.frames[index].source is MaskSource.PROPAGATED
                assert np.mean(masklet.frames[index].mask() != tracked.mask) < 0.01


def test_what_is_known_is_not_found_again_and_what_is_no_object_is_left_out(
    project: Project, network: object, generated: dict[int, list[np.ndarray]]
) -> None:
    (recording,) = project.recordings
    add_block(recording, 1)
    speck = np.zeros(SIZE_HW, bool)
    speck[40, 40] = True
    generated[0] = [block(0), speck, ~speck, block(0, y0=30), block(0, x0=11, y0=30)]
    settings = replace(SETTINGS, min_area_share=0.01, max_area_share=0.5)
    (masklet,) = label_recording(network, recording, settings)  # type: ignore[arg-type]
    np.testing.assert_array_equal(masklet.frames[0].mask(), block(0, y0=30))
    assert label_recording(network, recording, replace(settings, min_frames=10)) == []  # type: ignore[arg-type]


def test_boxes_of_a_detector_are_the_objects_and_bring_their_classes(project: Project, network: object) -> None:
    (recording,) = project.recordings
    box = FrameDetection((10.0, 8.0, 40.0, 30.0), "cup", 0.9)
    unsure, outside = replace(box, score=0.1), FrameDetection((100.0, 8.0, 140.0, 30.0), "cup", 0.8)
    found = label_recording(network, recording, SETTINGS, {5: [unsure, outside, box]})  # type: ignore[arg-type]
    assert [(each.class_name, each.frames[5].source) for each in found] == [("cup", MaskSource.AUTOMATIC)]


def test_key_frames() -> None:
    assert key_frames(9, 4) == (0, 4, 8)
    at = {index: [FrameDetection((0, 0, 1, 1))] for index in (-1, 1, 2, 5, 8, 12)}
    assert key_frames(10, 4, at) == (1, 5)


def test_parts_of_one_object_are_merged_and_others_are_not() -> None:
    def masklet(frames: dict[int, MaskletFrame]) -> Masklet:
        return Masklet("m0000", "", frames=frames)

    empty = MaskletFrame.of_mask(np.zeros(SIZE_HW, bool), MaskSource.PROPAGATED)
    long = masklet({0: empty, **{i: painted(block(i)) for i in range(1, 6)}})
    short = masklet({0: painted(block(0)), 1: painted(block(1, x0=12)), 9: painted(block(9))})
    other = masklet({i: painted(block(i, y0=30)) for i in range(3)})
    later = masklet({20: painted(block(0))})
    merged = merge_masklets([short, other, later, long])
    assert [each.frame_indices for each in merged] == [(0, 1, 2, 3, 4, 5, 9), (0, 1, 2), (20,)]
    assert merged[0].frames[0].visible and merged[0].frames[1] == long.frames[1]


DETECTION_FILES = {
    "no list": ({"a": 1}, "expected a JSON list"),
    "no frame": ([{"recording": "a", "box_xyxy": [0, 0, 1, 1]}], "entry 0"),
    "no area": ([{"recording": "a", "frame": 0, "bbox": [0, 0, 0, 1]}], "no area"),
    "three numbers": ([{"recording": "a", "frame": 0, "bbox": [0, 0, 1]}], "entry 0"),
}


def test_a_file_of_detections(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    entries = [
        {"recording": "a", "frame": 3, "bbox": [1, 2, 3, 4], "class": "cup", "score": 0.5},
        {"recording": "a", "frame": 3, "box_xyxy": [1, 2, 3, 4]},
    ]
    path.write_text(json.dumps(entries))
    first, second = read_detections(path)["a"][3]
    assert first == FrameDetection((1, 2, 4, 6), "cup", 0.5) and second.box_xyxy == (1, 2, 3, 4)
    for values, expected in DETECTION_FILES.values():
        path.write_text(json.dumps(values))
        with pytest.raises(ProjectError, match=expected):
            read_detections(path)


NAMES = ("a", "b", "dies", "dies_once", "fails")


def jobs_of(project: Project) -> list[LabelJob]:
    return [LabelJob(recording.folder, LabelSettings()) for recording in project.recordings]


def check_outcomes(project: Project, outcomes: list[LabelOutcome]) -> None:
    """All of ``NAMES`` ended as they should, and what was made can be stored."""
    errors = {outcome.job.folder.name: outcome.error for outcome in outcomes}
    assert sorted(errors) == sorted(NAMES)
    assert errors["a"] == errors["b"] == errors["dies_once"] == ""
    assert "cannot be labelled" in errors["fails"] and errors["dies"]
    tries = sorted(path.name for path in (project.path / "tries").iterdir())
    nice = [int(path.read_text()) for path in (project.path / "tries").iterdir()]
    assert min(nice) >= NICENESS, "jobs give way to who annotates on the same machine"
    assert tries == ["a.0", "b.0", "dies.0", "dies.1", "dies_once.0", "dies_once.1", "fails.0"]
    for outcome in outcomes:
        if not outcome.error:
            (masklet,) = store_outcome(project, outcome)
            assert (masklet.name, masklet.class_name, masklet.verdict) == ("object 1", "thing", Verdict.UNVERIFIED)
    assert [is_done(job) for job in jobs_of(project)] == [True, True, False, True, False]
    other = replace(jobs_of(project)[0], settings=LabelSettings(every=2))
    assert not is_done(other), "with other settings it is another result"


def test_a_failed_or_killed_process_does_not_stop_the_others(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", 2, NAMES) as project:
        seen: list[str] = []
        outcomes = run_here(jobs_of(project), 2, lambda name, done, total: seen.append(name), label_work.work)
        check_outcomes(project, list(outcomes))
        assert set(seen) == {f"p/{name}" for name in NAMES}


def test_a_killed_worker_of_ray_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray, an extra of 80 MB: pip install -e '.[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(Path(label_work.__file__).parent))  # of the workers
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    try:
        with make_project(tmp_path / "p", 2, NAMES) as project:
            counts: list[int] = []
            outcomes = run_on_ray(jobs_of(project), "auto", lambda _, done, total: counts.append(done), label_work.work)
            check_outcomes(project, list(outcomes))
            assert counts[0] == 0 and counts == sorted(counts)
    finally:
        ray.shutdown()


def test_no_cluster_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray, an extra of 80 MB: pip install -e '.[ray]'")

    def no_cluster(**_: object) -> None:  # the real one would find a cluster that another test has started
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", no_cluster)
    make_project(tmp_path / "p", 2).close()
    assert main(["dataset", "label", str(tmp_path / "p"), "--ray", "auto"]) == 2
    said = capsys.readouterr().err
    assert "no Ray cluster at 'auto'" in said and said.count("\n") == 1


def test_the_command_labels_and_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_project(tmp_path / "p", 3).close()
    detections = tmp_path / "boxes.json"
    detections.write_text(json.dumps([{"recording": "clip", "frame": 0, "bbox": [10, 8, 20, 20], "class": "cup"}]))
    command = ["dataset", "label", str(tmp_path / "p"), "--detections", str(detections), "--image-size", "64"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["failed"], summary["done_before"]) == ([], []) and len(summary["recordings"]) == 1
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["done_before"] == ["p/clip"]
    detections.write_text(json.dumps([{"recording": "other", "frame": 0, "bbox": [10, 8, 20, 20]}]))
    assert main(command) == 2
    assert "no recording 'other'" in capsys.readouterr().err
    assert main([*command[:3], "--jobs", "0"]) == 2


def test_what_was_finished_when_it_was_stopped_is_stored_and_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path / "p", 2, ("a", "b")).close()
    asked: list[list[str]] = []

    def stopped(jobs: list[LabelJob], *_: object) -> Iterator[LabelOutcome]:
        asked.append([job.folder.name for job in jobs])
        yield LabelOutcome(jobs[0], tuple(label_work.work(jobs[0], lambda *_: None)))
        raise KeyboardInterrupt

    monkeypatch.setattr(label_jobs, "run_here", stopped)
    for _ in range(2):
        assert main(["dataset", "label", str(tmp_path / "p"), "--everything"]) == 130
        assert "the same command goes on" in capsys.readouterr().err
    assert asked == [["a", "b"], ["b"]]
    with Project.open(tmp_path / "p") as project:
        assert [len(recording.masklets.all()) for recording in project.recordings] == [1, 1]
