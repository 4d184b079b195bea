"""A project on disk: what is answered stays, two writers are one too many, and what is refused changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_project import SIZE_HW, add_block, block, make_project, painted

from sam2_ros.annotate import storage
from sam2_ros.annotate.masklets import (
    FramePrompt,
    Masklet,
    MaskletFrame,
    MaskSource,
    Origin,
    ProjectError,
    Verdict,
    masklet_from_json,
    masklet_to_json,
)
from sam2_ros.annotate.project import VERSION, Project
from sam2_ros.annotate.storage import InteractionLog, ProjectLockedError, write_atomically
from sam2_ros.tracking.types import ObjectState


def files(path: Path) -> dict[str, bytes]:
    """Every file of a project but the lock."""
    return {
        str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file() and p.name != "lock"
    }


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "Küche 2, Übung"
    with make_project(path) as project:
        (recording,) = project.recordings
        masklet_id = add_block(recording, 3, "mug", "cup")
        recording.masklets.lock_frames(masklet_id, [1])
        prompt = FramePrompt(((3.5, 4.0), (9.0, 1.0)), (1, 0), (1.0, 2.0, 30.0, 40.0))
        clicked = MaskletFrame.of_mask(block(4), MaskSource.CLICK, score=0.25, quality=0.5, prompts=[prompt])
        recording.masklets.set_frame(masklet_id, 4, clicked)
        recording.masklets.update(masklet_id, hidden=True, color_rgb=(1, 2, 3))
        expected = recording.masklets.set_verdict(masklet_id, Verdict.REJECTED, "leaks at the handle")
        project.set_classes(["plate", "fork"])
    with Project.open(path, read_only=True) as again:
        (recording,) = again.recordings
        assert recording.masklets.get(masklet_id) == expected
        assert again.classes == ("plate", "fork", "cup")
        assert recording.info.stamps_ns[:2] == (10**9, 11 * 10**8) and recording.info.frame_ids == ("camera",) * 6
        assert recording.frame_rgb(2).shape == (*SIZE_HW, 3)
        assert recording.time_s(3) == pytest.approx(0.3)
        np.testing.assert_array_equal(recording.masklets.get(masklet_id).frames[4].mask(), block(4))
        with pytest.raises(ProjectError, match="reading only"):
            recording.masklets.remove(masklet_id)


def test_the_file_is_the_masklet_after_every_change(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        (recording,) = project.recordings
        store = recording.masklets
        masklet_id = add_block(recording, 3, "größer")
        path = recording.folder / "masklets" / f"{masklet_id}.json"
        for change in (
            lambda: store.set_frames(masklet_id, {1: painted(block(4)), 5: painted(block(5))}),
            lambda: store.lock_frames(masklet_id, [1]),
            lambda: store.clear_frames(masklet_id, [0]),
            lambda: store.update(masklet_id, name='a "name"'),
            store.undo,
            store.undo,
            store.redo,
        ):
            change()
            assert json.loads(path.read_text(encoding="utf-8")) == masklet_to_json(store.get(masklet_id))


def test_every_value_of_a_masklet_survives_json() -> None:
    frame = MaskletFrame.of_mask(block(0), MaskSource.AUTOMATIC, score=0.5, quality=0.75, locked=True)
    lost = replace(MaskletFrame.of_mask(np.zeros(SIZE_HW, bool), MaskSource.PROPAGATED), state=ObjectState.LOST)
    for verdict, origin, phase in zip(Verdict, [*Origin, Origin.MANUAL], (1, 2, 3, None), strict=True):
        masklet = Masklet("m0007", "a", "b", (1, 2, 3), origin, phase, True, True, verdict, "n", {0: frame, 5: lost})
        assert masklet_from_json(json.loads(json.dumps(masklet_to_json(masklet)))) == masklet
    with pytest.raises(ProjectError, match="expected a masklet"):
        masklet_from_json({"id": "m0001"})


def test_a_second_writer_is_told_who_has_it(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        with pytest.raises(ProjectLockedError, match=rf"is open in test \(process {os.getpid()} on .*, since 20"):
            Project.open(project.path, "sam2-ros dataset export")
        Project.open(project.path, read_only=True)
    Project.open(tmp_path / "p").close()


def test_a_killed_process_loses_nothing_that_was_answered_and_holds_no_lock(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from small_project import make_project, add_block, block, painted
        project = make_project(Path(sys.argv[1]))
        (recording,) = project.recordings
        masklet_id = add_block(recording, 2)
        recording.masklets.set_frame(masklet_id, 5, painted(block(5)))
        project.log.append("brush", masklet=masklet_id, frame=5)
        project.new_recording("half")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    support = Path(__file__).parents[1] / "support"
    environment = {**os.environ, "PYTHONPATH": str(support)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "p")], env=environment, timeout=120)
    assert done.returncode == -9
    with Project.open(tmp_path / "p") as project:
        (recording,) = project.recordings
        assert sorted(recording.masklets.all()[0].frames) == [0, 1, 5]
        assert [each.action for each in project.log] == ["brush"]
        assert [folder.name for folder in (project.path / "recordings").iterdir()] == ["clip"]


REFUSED = {
    "unknown masklet": lambda s, m: s.set_frame("m0099", 0, painted(block(0))),
    "frame outside": lambda s, m: s.set_frame(m, 6, painted(block(0))),
    "negative frame": lambda s, m: s.set_frame(m, -1, painted(block(0))),
    "mask of another size": lambda s, m: s.set_frame(m, 3, painted(np.ones((8, 8), bool))),
    "locked frame": lambda s, m: s.set_frame(m, 1, painted(block(0))),
    "clear a locked frame": lambda s, m: s.clear_frames(m, [0, 1]),
    "lock a frame without a mask": lambda s, m: s.lock_frames(m, [4]),
    "unknown property": lambda s, m: s.update(m, size=3),
    "accept nothing": lambda s, m: s.set_verdict("m0002", Verdict.ACCEPTED),
    "change an accepted one": lambda s, m: s.set_frame("m0003", 3, painted(block(3))),
    "delete an accepted one": lambda s, m: s.remove("m0003"),
    "delete a locked one": lambda s, m: s.remove("m0004"),
    "rename a locked one": lambda s, m: s.update("m0004", name="other"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_changes_nothing(tmp_path: Path, what: str) -> None:
    with make_project(tmp_path / "p") as project:
        (recording,) = project.recordings
        store = recording.masklets
        masklet_id = add_block(recording, 3)
        store.lock_frames(masklet_id, [1])
        store.add()
        store.set_verdict(add_block(recording, 2), Verdict.ACCEPTED)
        store.update(add_block(recording, 2), locked=True)
        before, on_disk = store.all(), files(project.path)
        with pytest.raises(ProjectError):
            REFUSED[what](store, masklet_id)
        assert store.all() == before and files(project.path) == on_disk


def test_a_correction_brings_a_rejected_masklet_back_to_the_queue_and_a_lock_can_be_taken_off(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        store = project.recordings[0].masklets
        masklet_id = add_block(project.recordings[0], 3)
        store.set_verdict(masklet_id, Verdict.REJECTED)
        assert store.set_frame(masklet_id, 0, painted(block(1))).verdict is Verdict.UNVERIFIED
        store.set_verdict(masklet_id, Verdict.ACCEPTED)
        assert store.get(masklet_id).locked_frames == (0, 1, 2)
        store.set_verdict(masklet_id, Verdict.UNVERIFIED)
        assert store.get(masklet_id).locked_frames == ()
        store.update(masklet_id, locked=True)
        assert store.update(masklet_id, locked=False, name="free").name == "free"


def test_undo_and_redo_of_every_kind_of_change(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        store = project.recordings[0].masklets
        states = [files(project.path)]
        changes = (
            lambda: store.add(name="one"),
            lambda: store.set_frames("m0001", {0: painted(block(0)), 1: painted(block(1))}),
            lambda: store.update("m0001", name="two"),
            lambda: store.lock_frames("m0001", [0]),
            lambda: store.clear_frames("m0001", [1]),
            lambda: store.set_verdict("m0001", Verdict.REJECTED),
            lambda: store.remove("m0001"),
        )
        for change in changes:
            change()
            states.append(files(project.path))
        for state in reversed(states[:-1]):
            undone = store.undo()
            assert undone is not None and undone.masklet_id == "m0001"
            assert files(project.path) == state
        assert store.undo() is None and not store.can_undo
        for state in states[1:]:
            assert store.redo() is not None
            assert files(project.path) == state
        assert store.redo() is None
        store.undo()
        store.add()
        assert not store.can_redo and [m.masklet_id for m in store.all()] == ["m0001", "m0002"]


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_project(tmp_path / "p") as project:
        store = project.recordings[0].masklets
        masklet_id = add_block(project.recordings[0], 2)
        project.log.append("click")
        before, on_disk = store.all(), files(project.path)

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(storage.os, "fsync", full)
        for change in (
            lambda: store.set_frame(masklet_id, 3, painted(block(3))),
            lambda: store.add(),
            lambda: project.log.append("click"),
            lambda: project.set_classes(["cup"]),
            lambda: write_atomically(project.path / "project.json", b"{}"),
        ):
            with pytest.raises(OSError, match="No space left"):
                change()
        monkeypatch.undo()
        assert store.all() == before and files(project.path) == on_disk
        store.set_frame(masklet_id, 3, painted(block(3)))
        project.log.append("click")
        assert len(list(project.log)) == 2


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log.jsonl")
    log.append("click", recording="r", masklet="m0001", frame=0, phase=3, time_s=5.0, x=1.5)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"time_s": 6.0, "act')
    log.append("undo")
    first, second = log
    assert (first.time_s, first.frame, first.phase, first.details) == (5.0, 0, 3, {"x": 1.5})
    assert second.action == "undo"
    with pytest.raises(ProjectError, match="expected one of"):
        log.append("clik")


def test_a_newer_or_a_foreign_or_a_damaged_project_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="dataset create"):
        Project.open(tmp_path)
    assert not list(tmp_path.iterdir())
    make_project(tmp_path / "p").close()
    with pytest.raises(ProjectError, match="is a project already"):
        Project.create(tmp_path / "p")
    content = json.loads((tmp_path / "p" / "project.json").read_text())
    for values, expected in (
        ({**content, "version": VERSION + 1}, "newer sam2_ros"),
        ({**content, "format": "labels"}, "not that of a project"),
        ([], "not that of a project"),
    ):
        (tmp_path / "p" / "project.json").write_text(json.dumps(values))
        before = files(tmp_path / "p")
        with pytest.raises(ProjectError, match=expected):
            Project.open(tmp_path / "p")
        assert files(tmp_path / "p") == before
    (tmp_path / "p" / "project.json").write_text("{")
    with pytest.raises(ProjectError, match="cannot be read as JSON"):
        Project.open(tmp_path / "p")


def test_a_damaged_masklet_is_named(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        masklet_id = add_block(project.recordings[0], 1)
        path = project.recordings[0].folder / "masklets" / f"{masklet_id}.json"
    path.write_text(path.read_text()[:40])
    with Project.open(tmp_path / "p") as project, pytest.raises(ProjectError, match=r"m0001\.json: damaged"):
        project.recordings[0].masklets.all()


@pytest.mark.parametrize(
    "rle",
    [
        {},
        None,
        {"size": [4], "counts": "0"},
        {"size": list(SIZE_HW), "counts": [1, 2]},
        {"size": [9999, 9999], "counts": "0"},
    ],
)
def test_a_mask_that_is_none_is_named_with_its_file(tmp_path: Path, rle: object) -> None:
    with make_project(tmp_path / "p") as project:
        masklet_id = add_block(project.recordings[0], 1)
        path = project.recordings[0].folder / "masklets" / f"{masklet_id}.json"
    values = json.loads(path.read_text())
    for frame in values["frames"].values():
        frame["rle"] = rle
    path.write_text(json.dumps(values))
    with Project.open(tmp_path / "p") as project, pytest.raises(ProjectError, match=r"m0001\.json: damaged"):
        project.recordings[0].masklets.all()


def test_a_frame_without_its_end_is_damaged_and_not_half_grey(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        recording = project.recordings[0]
        whole = recording.frame_jpeg(0)
        for content, why in ((whole[:-30], "is cut off"), (b"", "cannot be read"), (b"no JPEG", "is damaged")):
            recording.frame_path(0).write_bytes(content)
            with pytest.raises(ProjectError, match=why):
                recording.frame_rgb(0)
        large = cv2.imencode(".jpg", np.zeros((400, 400, 3), np.uint8))[1].tobytes()
        recording.frame_path(0).write_bytes(large)
        with pytest.raises(ProjectError, match="is too large or damaged: its header says 400 x 400 px"):
            recording.frame_rgb(0)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with make_project(tmp_path / "p") as project:
        writer = project.new_recording("clip")
        assert writer.recording_id == "clip-2"
        writer.add(np.zeros((8, 10, 3), np.uint8), source_index=0)
        with pytest.raises(ProjectError, match="frame 1 is 8x10, the frames before it are 10x8"):
            writer.add(np.zeros((10, 8, 3), np.uint8), source_index=1)


def test_a_recording_can_be_removed(tmp_path: Path) -> None:
    with make_project(tmp_path / "p", recordings=("a", "b")) as project:
        project.remove_recording("a")
        assert [r.recording_id for r in project.recordings] == ["b"]
        with pytest.raises(ProjectError, match="no recording 'a'"):
            project.recording("a")
    assert [p.name for p in (tmp_path / "p" / "recordings").iterdir()] == ["b"]


def test_doubtful_is_what_the_tracker_is_unsure_of_and_nobody_looked_at() -> None:
    sure = MaskletFrame.of_mask(block(0), MaskSource.PROPAGATED, score=1.0, quality=0.9)
    assert sure.doubtfulness == pytest.approx(0.1)
    assert replace(sure, quality=0.3).doubtfulness == pytest.approx(0.7)
    assert replace(sure, score=0.55).doubtfulness == pytest.approx(0.9)
    assert replace(sure, score=0.55, locked=True).doubtfulness == 0
    assert replace(sure, score=0.55, source=MaskSource.CLICK).doubtfulness == 0
    gone = MaskletFrame.of_mask(np.zeros(SIZE_HW, bool), MaskSource.PROPAGATED, score=0.0, quality=0.0)
    assert gone.doubtfulness == 0
