"""A user who corrects: where and when the clicks come, what they cost, and that trials leave no trace."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import assert_same_result, noise_frames, tiny_model

import sam2_ros
from sam2_ros.cli import main
from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.sequences import VideoSequence, open_sequences
from sam2_ros.evaluation.interactive import InteractiveEvaluator, Recovery, clicks_to_good
from sam2_ros.evaluation.trackers import fork
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 12, 32


def bar(width: int) -> np.ndarray:
    """Rows 2 to 7 and the first ``width`` columns."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:8, :width] = True
    return mask


class ForgetfulTracker:
    """Finds a bar of 20 columns after enough clicks, and loses columns as it goes on.

    ``clicks_needed`` says how many clicks it takes, for a new object and for a known one; fewer give 10 columns. It
    loses ``loss`` columns a frame until the next click. The frame's number is in its first pixel.
    """

    def __init__(self, new: int = 1, known: int = 1, loss: int = 0) -> None:
        self.needed, self.loss = (new, known), loss
        self.asked: list[tuple[int, int]] = []  # frame, clicks: of every step that had clicks, trials too
        self.reset()

    def reset(self) -> None:
        self._width: int | None = None
        self._waiting: list[int] = []

    def __copy__(self) -> ForgetfulTracker:
        other = ForgetfulTracker(*self.needed, self.loss)
        other.asked, other._width, other._waiting = self.asked, self._width, list(self._waiting)
        return other

    def add_prompt(self, object_id, *, points=None, labels=None, box=None, mask=None) -> int:  # type: ignore[no-untyped-def]
        self._waiting.append(int(labels[0]))
        return 1

    def step(self, image_rgb: np.ndarray) -> FrameResult:
        if self._waiting:
            self.asked.append((int(image_rgb[0, 0, 0]), len(self._waiting)))
            needed = self.needed[0 if self._width is None else 1]
            self._width = 20 if len(self._waiting) >= needed else 10
            self._waiting = []
        elif self._width is not None:
            self._width = max(0, self._width - self.loss)
        mask = bar(self._width or 0)
        known = () if self._width is None else (self._tracked(mask),)
        return FrameResult(0, known, mask.astype(np.uint8), 1.0)

    @staticmethod
    def _tracked(mask: np.ndarray) -> TrackedMask:
        return TrackedMask("object", 1, ObjectState.TRACKED, 1.0, 1.0, mask, int(mask.sum()), None, None)


def sequence_of(folder: Path, widths: list[int | None]) -> VideoSequence:
    """Frames whose object is a bar of so many columns; None has no mask."""
    for index, width in enumerate(widths):
        (folder / "bar" / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "bar" / "images" / f"{index:05d}.png"), np.full((HEIGHT, WIDTH, 3), index, np.uint8))
        if width is not None:
            write_index_png(folder / "bar" / "masks" / f"{index:05d}.png", bar(width).astype(np.uint8) * 9)
    (sequence,) = open_sequences(folder)
    return sequence


def test_online_stops_below_the_threshold_and_counts_what_memory_saves(tmp_path: Path) -> None:
    # Three columns are lost a frame: 20, 17 (IoU 0.85), 14 (0.70): a stop; one click restores it. And so on.
    tracker = ForgetfulTracker(new=3, known=1, loss=3)
    result = InteractiveEvaluator(tracker).online(sequence_of(tmp_path, [20] * 6), 9)
    assert sorted(result.clicks) == [0, 2, 4]
    assert [round(score.region, 2) for score in result.frames.values()] == [1.0, 0.85, 1.0, 0.85, 1.0, 0.85]
    assert result.score is not None
    assert result.score.region == pytest.approx((0.85 + 1 + 0.85 + 1) / 4)  # without the first and the last
    assert result.recoveries == (Recovery(2, 1, 3), Recovery(4, 1, 3))
    # From scratch the third click found it; with memory the first, after which nothing is left to correct.
    assert [len(clicks) for clicks in result.clicks.values()] == [3, 1, 1]
    assert [click.label for click in result.clicks[2]] == [1]
    assert (result.clicks[2][0].x, result.clicks[2][0].y) == (16, 4)  # of columns 14..19, rows 2..7: 3 px deep


def test_a_loss_that_no_click_mends_is_none(tmp_path: Path) -> None:
    tracker = ForgetfulTracker(new=11, known=2)
    image, truth = np.zeros((HEIGHT, WIDTH, 3), np.uint8), bar(20)
    assert clicks_to_good(tracker, image, truth, None) is None
    assert len(tracker.asked) == 10
    tracker.add_prompt("object", labels=[1])
    tracker.step(image)
    assert clicks_to_good(tracker, image, truth, bar(10)) == 2


def test_offline_clicks_the_worst_frame_of_the_pass_before(tmp_path: Path) -> None:
    tracker = ForgetfulTracker(loss=2)
    passes = InteractiveEvaluator(tracker).offline(sequence_of(tmp_path, [20] * 4), 9, passes=3)
    assert [sorted(each.clicks) for each in passes] == [[0], [0, 3], [0, 2, 3]]
    ious = [[round(score.region, 2) for score in each.frames.values()] for each in passes]
    assert ious == [[1.0, 0.9, 0.8, 0.7], [1.0, 0.9, 0.8, 1.0], [1.0, 0.9, 1.0, 1.0]]


def test_offline_ends_when_nothing_is_wrong(tmp_path: Path) -> None:
    passes = InteractiveEvaluator(ForgetfulTracker()).offline(sequence_of(tmp_path, [20] * 3), 9)
    assert len(passes) == 1
    assert passes[0].click_count == 1  # the first was perfect: no second


def test_the_object_starts_where_it_first_shows_and_unknown_frames_are_not_scored(tmp_path: Path) -> None:
    tracker = ForgetfulTracker(loss=20)
    result = InteractiveEvaluator(tracker).online(sequence_of(tmp_path, [0, 20, None, 20, 0]), 9)
    assert list(result.frames) == [1, 3, 4]
    assert sorted(result.clicks) == [1, 3]
    assert result.frames[4].region == 1.0  # gone, and rightly so
    assert [recovery.frame_index for recovery in result.recoveries] == [3]


def test_no_more_than_eight_frames_are_clicked(tmp_path: Path) -> None:
    tracker = ForgetfulTracker(loss=20)
    result = InteractiveEvaluator(tracker).online(sequence_of(tmp_path, [20] * 11), 9)
    # It is lost again in each next frame.
    assert sorted(result.clicks) == list(range(8))


def test_a_fork_of_the_real_tracker_goes_its_own_way() -> None:
    frames = noise_frames(4)
    tracker, alone = Tracker(tiny_model()), Tracker(tiny_model())
    for each in (tracker, alone):
        each.add_prompt("a", points=[(20, 20)], labels=[1])
        each.step(frames[0])
    other = fork(tracker)
    other.add_prompt("a", points=[(60, 30)], labels=[0])
    other.add_prompt("b", points=[(60, 30)], labels=[1])
    diverted = [other.step(frame) for frame in reversed(frames)]
    other.reset()
    assert len(diverted[-1]) == 2
    for frame in frames[1:]:
        assert_same_result(tracker.step(frame), alone.step(frame))
    assert copy.copy(tracker).object_ids == ("a",)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sequence_of(tmp_path / "data", [20] * 5)
    monkeypatch.setitem(vars(sam2_ros), "load_tracker", lambda **_: ForgetfulTracker(new=2, known=1, loss=3))
    arguments = ["eval", "interactive", "--root", str(tmp_path / "data"), "--passes", "3"]
    assert main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
    summary = json.loads((tmp_path / "scores.json").read_text())
    assert summary["recovery"] == {
        "losses": 2,
        "clicks_with_memory": 1.0,
        "recovered_with_memory": 2,
        "clicks_from_scratch": 2.0,
        "recovered_from_scratch": 2,
    }
    assert (summary["online_clicked_frames"], summary["online_clicks"]) == (3, 4)
    first, second, third = summary["offline_J&F"]
    assert first == second < third  # the second pass mends the last frame, which is not scored
    assert summary["offline_mean_J&F"] == pytest.approx(np.mean(summary["offline_J&F"]), abs=1e-4)
    (row,) = summary["rows"]
    assert (row["sequence"], row["object"], row["online_frames"]) == ("bar", 9, [0, 2, 4])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recovery"] == summary["recovery"]


def test_command_explains_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence_of(tmp_path / "data", [20] * 2)
    arguments = ["eval", "interactive", "--root", str(tmp_path / "data")]
    assert main([*arguments, "--model", "hold"]) == 2
    assert "needs the true mask" in capsys.readouterr().err
    assert main([*arguments, "--model", "hold", "--passes", "0"]) == 2
    assert "--passes: expected 1 to 8, got 0" in capsys.readouterr().err
    assert main([*arguments, "--model", "hold", "--passes", "9"]) == 2
    assert "--passes: expected 1 to 8, got 9" in capsys.readouterr().err


def test_a_sequence_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence_of(tmp_path / "data", [20] * 5)
    (whole,) = (tmp_path / "data").iterdir()
    for kind in ("images", "masks"):
        shutil.copytree(whole, tmp_path / "data" / f"torn {kind}")
        bad = sorted((tmp_path / "data" / f"torn {kind}" / kind).iterdir())[3]
        bad.write_bytes(bad.read_bytes()[:-20])
    monkeypatch.setitem(vars(sam2_ros), "load_tracker", lambda **_: ForgetfulTracker(new=2, known=1, loss=3))
    arguments = ["eval", "interactive", "--root", str(tmp_path / "data"), "--passes", "2"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["objects"] == 1 and sorted(summary["left_out"]) == ["torn images object 9", "torn masks"]
    assert main([*arguments, "--sequences", "torn images,torn masks"]) == 2
    assert "nothing could be measured" in capsys.readouterr().err
