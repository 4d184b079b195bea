"""The protocol: who is prompted when and with what, what is written, what is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sam2_ros
from sam2_ros.cli import main
from sam2_ros.data.files.masks import read_index_png, write_index_png
from sam2_ros.data.files.sequences import open_sequences
from sam2_ros.evaluation.metrics import Score, region_similarity
from sam2_ros.evaluation.trackers import HoldTracker
from sam2_ros.evaluation.vos import VosEvaluator, report


def test_perfect_tracker_scores_one_and_writes_the_values_of_the_truth(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type
) -> None:
    (sequence,) = open_sequences(coloured_sequence)
    result = VosEvaluator(colour_tracker_class, "mask", tmp_path / "out").evaluate(sequence)
    assert [(scored.value, scored.score) for scored in result.objects] == [(7, Score(1.0, 1.0)), (9, Score(1.0, 1.0))]
    for index in range(5):
        written = read_index_png(tmp_path / "out" / "blocks" / f"{index:05d}.png")
        truth = read_index_png(coloured_sequence / "blocks" / "masks" / f"{index:05d}.png")
        np.testing.assert_array_equal(written, truth)


def test_scores_leave_out_the_first_and_last_frame_of_each_object(coloured_sequence: Path, tmp_path: Path) -> None:
    (sequence,) = open_sequences(coloured_sequence)
    result = VosEvaluator(HoldTracker, "mask", tmp_path / "out").evaluate(sequence)
    red, blue = result.objects
    # The red block of 12 columns moves by 2: frames 1, 2, 3 overlap the held mask in 10, 8, 6 columns.
    assert red.score is not None
    assert red.score.region == pytest.approx((10 / 14 + 8 / 16 + 6 / 18) / 3)
    # The blue block stands still from frame 2 on: frame 3 counts.
    assert blue.score == Score(1.0, 1.0)
    assert result.score is not None
    assert result.score.region == pytest.approx((red.score.region + 1.0) / 2)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("mask", [("7", "mask", []), ("9", "mask", [])]),
        # Columns 4..15 and rows 4..13; the blue block has columns 30..41 and rows 18..27.
        ("box", [("7", "box", [4, 4, 15, 13]), ("9", "box", [30, 18, 41, 27])]),
        # Ten rows: the deepest points are 5 away from the edge, and the first of them in reading order is taken.
        ("click1", [("7", "points", [8, 8, 1]), ("9", "points", [34, 22, 1])]),
    ],
)
def test_prompts(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type, prompt: str, expected: list
) -> None:
    (sequence,) = open_sequences(coloured_sequence)
    tracker = colour_tracker_class()
    VosEvaluator(lambda: tracker, prompt, tmp_path / "out").evaluate(sequence)
    assert tracker.prompts == expected


def test_object_of_one_column_is_prompted_with_a_box_that_has_an_inside(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type
) -> None:
    path = coloured_sequence / "blocks" / "masks" / "00000.png"
    values = np.zeros((32, 48), np.uint8)
    values[10:14, 47] = 7
    write_index_png(path, values)
    (sequence,) = open_sequences(coloured_sequence)
    tracker = colour_tracker_class()
    VosEvaluator(lambda: tracker, "box", tmp_path / "out").evaluate(sequence)
    assert tracker.prompts[0] == ("7", "box", [47, 10, 48, 13])


def test_later_clicks_correct_what_a_second_tracker_makes_of_the_earlier_ones(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type
) -> None:
    # Only the left half of the red block is the object: the model takes the whole block, so its right half is too much.
    for index in range(5):
        path = coloured_sequence / "blocks" / "masks" / f"{index:05d}.png"
        values = np.zeros((32, 48), np.uint8)
        values[4:14, 4 + 2 * index : 10 + 2 * index] = 7
        write_index_png(path, values)
    (sequence,) = open_sequences(coloured_sequence)
    trackers = [colour_tracker_class(), colour_tracker_class()]
    made = iter(trackers)
    VosEvaluator(lambda: next(made), "click3", tmp_path / "out").evaluate(sequence)
    measured, trial = trackers
    assert len(measured.prompts) == 3, "trials must not reach the tracker that is measured"
    assert {(object_id, kind) for object_id, kind, _ in measured.prompts} == {("7", "points")}
    clicks = np.array([values for _, _, values in measured.prompts])
    points, labels = clicks[:, :2], clicks[:, 2]
    assert labels.tolist() == [1.0, 0.0, 1.0]
    assert 10 <= points[1, 0] < 16, "the second click is in the surplus right half"
    assert 4 <= points[2, 0] < 10, "the third in the left half, which the fake lost with the second"
    assert len(trial.prompts) == 1 + 2


def test_first_mask_alone_gives_predictions_and_no_score(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type
) -> None:
    for index in range(1, 5):
        (coloured_sequence / "blocks" / "masks" / f"{index:05d}.png").unlink()
    (sequence,) = open_sequences(coloured_sequence)
    result = VosEvaluator(colour_tracker_class, "mask", tmp_path / "out").evaluate(sequence)
    assert result.score is None
    assert sorted(path.name for path in (tmp_path / "out" / "blocks").iterdir()) == [f"{i:05d}.png" for i in range(5)]
    written = read_index_png(tmp_path / "out" / "blocks" / "00004.png")
    assert region_similarity(written == 7, np.pad(np.ones((10, 12), bool), ((4, 18), (12, 24)))) == 1.0
    assert report([result], {"model": "fake"})["J&F"] is None


def test_overlapping_truth_is_scored_object_by_object(tmp_path: Path) -> None:
    frames, masks = tmp_path / "JPEGImages_24fps" / "v", tmp_path / "Annotations_6fps" / "v"
    for index in range(3):
        write_index_png(frames / f"{index:05d}.png", np.full((16, 16), 90))
        write_index_png(masks / "000" / f"{index:05d}.png", np.ones((16, 16), int))
        write_index_png(masks / "001" / f"{index:05d}.png", np.pad(np.ones((4, 4), int), 6))
    (sequence,) = open_sequences(tmp_path)
    result = VosEvaluator(HoldTracker, "mask", tmp_path / "out").evaluate(sequence)
    assert [scored.score for scored in result.objects] == [Score(1.0, 1.0), Score(1.0, 1.0)]


def test_an_object_is_scored_on_its_own_annotated_frames(tmp_path: Path) -> None:
    frames, masks = tmp_path / "JPEGImages_24fps" / "v", tmp_path / "Annotations_6fps" / "v"
    for index in range(5):
        write_index_png(frames / f"{index:05d}.png", np.full((16, 16), 90))
        write_index_png(masks / "000" / f"{index:05d}.png", np.ones((16, 16), int))
    half = np.pad(np.ones((4, 4), int), 6)
    # Frames 1 to 3 are this object's; the middle one is scored, and there it has half its size. What the others have
    # in frame 4 says nothing about it.
    for index, rows in ((1, 4), (2, 2), (3, 4)):
        write_index_png(masks / "001" / f"{index:05d}.png", np.where(np.arange(16)[:, None] < 6 + rows, half, 0))
    (sequence,) = open_sequences(tmp_path)
    result = VosEvaluator(HoldTracker, "mask", tmp_path / "out").evaluate(sequence)
    assert [scored.score and scored.score.region for scored in result.objects] == [1.0, 0.5]


def test_rejected_prompt_is_reported_and_scores_as_absent(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type, caplog: pytest.LogCaptureFixture
) -> None:
    class RefusingTracker(colour_tracker_class):  # type: ignore[misc, valid-type]
        def _check(self, object_id, **_: object) -> None:  # type: ignore[no-untyped-def]
            from sam2_ros.tracking.types import PromptError

            if object_id == "7":
                raise PromptError("too red")

    (sequence,) = open_sequences(coloured_sequence)
    result = VosEvaluator(RefusingTracker, "click1", tmp_path / "out").evaluate(sequence)
    assert "blocks frame 0: the prompt of object 7 was rejected: too red" in caplog.text
    assert [scored.score and scored.score.region for scored in result.objects] == [0.0, 1.0]


def test_sequence_without_any_mask_is_rejected(coloured_sequence: Path, tmp_path: Path) -> None:
    for path in (coloured_sequence / "blocks" / "masks").iterdir():
        path.unlink()
    (sequence,) = open_sequences(coloured_sequence)
    with pytest.raises(ValueError, match="'blocks' has no mask"):
        VosEvaluator(HoldTracker, "mask", tmp_path / "out").evaluate(sequence)


def test_tracker_starts_anew_for_each_sequence(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type
) -> None:
    (sequence,) = open_sequences(coloured_sequence)
    tracker = colour_tracker_class()
    evaluator = VosEvaluator(lambda: tracker, "mask", tmp_path / "out")
    first, second = evaluator.evaluate(sequence), evaluator.evaluate(sequence)
    assert first.objects == second.objects
    assert tracker.resets == 2


def test_progress_counts_frames(coloured_sequence: Path, tmp_path: Path) -> None:
    (sequence,) = open_sequences(coloured_sequence)
    seen: list[tuple[str, int, int]] = []
    VosEvaluator(HoldTracker, "mask", tmp_path, lambda *progress: seen.append(progress)).evaluate(sequence)
    assert seen == [("blocks", done, 5) for done in range(1, 6)]


def test_command_writes_predictions_and_json(
    coloured_sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "vos", "--root", str(coloured_sequence), "--model", "hold", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json", str(tmp_path / "deep" / "scores.json")]) == 0
    summary = json.loads((tmp_path / "deep" / "scores.json").read_text())
    assert (summary["model"], summary["prompt"], summary["frames"], summary["objects"]) == ("hold", "mask", 5, 2)
    (row,) = summary["sequences"]
    assert row["name"] == "blocks"
    assert row["J"] == summary["J"] == pytest.approx((0.5159 + 1) / 2, abs=1e-3)
    assert row["J&F"] == pytest.approx((row["J"] + row["F"]) / 2, abs=1e-4)
    assert row["objects"]["9"] == {"J": 1.0, "F": 1.0, "J&F": 1.0}
    assert summary["seconds"] >= 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/1] blocks") and "5 frames" in lines[0]
    assert json.loads(lines[-1])["J"] == summary["J"]


def test_command_hands_model_and_checkpoint_on(
    coloured_sequence: Path, tmp_path: Path, colour_tracker_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict] = []
    # In the module's own table: setattr would first import the real one, and torch with it.
    monkeypatch.setitem(vars(sam2_ros), "load_tracker", lambda **kwargs: asked.append(kwargs) or colour_tracker_class())
    arguments = ["eval", "vos", "--root", str(coloured_sequence), "--out", str(tmp_path / "out"), "--prompt", "click1"]
    assert main([*arguments, "--model", "nano", "--checkpoint", "my.pt", "--device", "cpu"]) == 0
    (network,) = asked
    assert (network["model"], network["checkpoint"], network["device"]) == ("nano", Path("my.pt"), "cpu")


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (["--model", "hold", "--sequences", "cups"], "no sequence cups"),
        (["--model", "hold", "--sequences", ","], "names no sequence"),
        (["--model", "hold", "--prompt", "click1"], "needs the true mask"),
        (["--model", "flow", "--checkpoint", "a.pt"], "has no weights"),
    ],
)
def test_command_explains_what_does_not_fit(
    coloured_sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], why: str
) -> None:
    arguments = ["eval", "vos", "--root", str(coloured_sequence), "--out", str(tmp_path / "out")]
    assert main([*arguments, *extra]) == 2
    assert why in capsys.readouterr().err


def test_sequences_can_come_from_a_file(coloured_sequence: Path, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("blocks\n")
    arguments = ["eval", "vos", "--root", str(coloured_sequence), "--model", "hold", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--sequences", str(tmp_path / "val.txt")]) == 0


def test_a_sequence_that_cannot_be_read_is_left_out_and_named(
    coloured_sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("images", "masks"):  # each of them has one damaged file
        shutil.copytree(coloured_sequence / "blocks", coloured_sequence / f"torn {kind}")
        bad = sorted((coloured_sequence / f"torn {kind}" / kind).iterdir())[3]
        bad.write_bytes(bad.read_bytes()[:-20])
    arguments = ["eval", "vos", "--root", str(coloured_sequence), "--model", "hold", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out.splitlines()[-1])
    assert list(summary["left_out"]) == ["torn images", "torn masks"]
    assert all("00003.png is cut off" in reason for reason in summary["left_out"].values())
    assert "left out: torn images: " in captured.err and summary["objects"] == 2
    assert main([*arguments, "--sequences", "torn images"]) == 2, "there is nothing to measure"
    assert "nothing could be measured" in capsys.readouterr().err
