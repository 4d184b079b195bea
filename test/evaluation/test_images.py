"""Clicks on single images: which mask is taken, where the clicks fall, what is fed back, what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import tiny_model

from sam2_ros.cli import main
from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.sequences import open_labelled_images
from sam2_ros.evaluation.images import (
    DiscPredictor,
    InstanceResult,
    click_ious,
    evaluate_images,
    image_predictor_by_name,
    mean_ious,
)
from sam2_ros.tracking.image_predictor import ImagePrediction, ImagePredictor


class ScriptedPredictor:
    """Answers with what it was given, in order, and remembers what it was asked."""

    def __init__(self, *answers: list[tuple[np.ndarray, float]]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[list, list, float | None, bool]] = []

    def set_image(self, image_rgb: np.ndarray) -> None:
        pass

    def predict(self, points, labels, *, logits=None, multimask=True) -> ImagePrediction:  # type: ignore[no-untyped-def]
        fed_back = None if logits is None else float(logits[0, 0, 0])
        self.asked.append((points.tolist(), labels.tolist(), fed_back, multimask))
        answer = self._answers[len(self.asked) - 1]
        return ImagePrediction(
            masks=np.stack([mask for mask, _ in answer]),
            scores=np.array([score for _, score in answer], np.float32),
            logits=np.array([[[10.0 * len(self.asked) + place]] for place in range(len(answer))], np.float32),
        )


def square(x0: int, x1: int) -> np.ndarray:
    """Rows 2 to 6 (five of them) and columns x0 to x1 - 1 of a 9 x 20 image."""
    mask = np.zeros((9, 20), bool)
    mask[2:7, x0:x1] = True
    return mask


def test_the_predicted_score_chooses_and_errors_are_clicked_in_turn() -> None:
    truth = square(2, 7)
    worse, better = square(2, 12), truth
    predictor = ScriptedPredictor(
        # The truth itself is a candidate, but another one has the higher score.
        [(better, 0.5), (worse, 0.9), (square(0, 1), 0.1)],
        [(square(2, 4), 0.3)],
        [(truth, 0.3)],
    )
    ious = click_ious(predictor, truth, clicks=4)
    # 25 of 50 px, then 10 of 25, then all: the fourth click has nothing to correct.
    assert ious == (0.5, 0.4, 1.0, 1.0)
    assert predictor.asked == [
        ([[4, 4]], [1], None, True),
        # Surplus columns 7..11: its middle, negative; fed back is the candidate that was taken, the second of call 1.
        ([[4, 4], [9, 4]], [1, 0], 11.0, False),
        # Missing columns 4..6: all of rows 3..5 is 2 px deep in column 5, and the first is taken.
        ([[4, 4], [9, 4], [5, 3]], [1, 0, 1], 20.0, False),
    ]


def test_one_click_only() -> None:
    predictor = ScriptedPredictor([(square(2, 12), 0.9)])
    assert click_ious(predictor, square(2, 7), clicks=1) == (0.5,)


def test_means_are_over_instances() -> None:
    rows = [InstanceResult("a", 1, 2000, (0.2, 0.6)), InstanceResult("a", 2, 2000, (0.4, 0.7))]
    assert mean_ious([*rows, InstanceResult("b", 1, 2000, (0.9, 0.8))]) == [0.5, 0.7]
    assert mean_ious([]) is None


def test_disc_floor_is_cut_between_clicks() -> None:
    predictor = DiscPredictor(radius_of_side=0.3)
    predictor.set_image(np.zeros((10, 20, 3), np.uint8))
    one = predictor.predict(np.array([[5, 5]], np.float32), np.array([1], np.int32))
    assert one.masks.shape == (1, 10, 20)
    assert int(one.masks.sum()) == 29  # grid points within 3 of a grid point
    both = predictor.predict(np.array([[5, 5], [7, 5]], np.float32), np.array([1, 0], np.int32))
    # Columns 7 and 8 are nearer to the negative click; of column 6, halfway, the earlier click decides.
    np.testing.assert_array_equal(both.masks[0][:, :7], one.masks[0][:, :7])
    assert not both.masks[0][:, 7:].any()


def folder_of_images(folder: Path) -> Path:
    """Two images of 64 x 96 with blocks: "a" has 1024 px (value 3) and 1023 px (value 700), "b" has 2048 px."""
    blocks = {"a": [(3, 32, 32), (700, 33, 31)], "b": [(1, 32, 64)]}
    for name, sizes in blocks.items():
        values = np.zeros((64, 96), np.uint16)
        x = 0
        for value, height, width in sizes:
            values[10 : 10 + height, x : x + width] = value
            x += width + 1
        (folder / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), np.full((64, 96, 3), 90, np.uint8))
        write_index_png(folder / "masks" / f"{name}.png", values)
    return folder


def test_small_instances_are_left_out(tmp_path: Path) -> None:
    images = open_labelled_images(folder_of_images(tmp_path))
    seen: list[tuple[int, int, int]] = []
    results = evaluate_images(DiscPredictor(), images, 2, lambda *counts: seen.append(counts))
    assert [(r.image, r.value, r.area_px, len(r.ious)) for r in results] == [("a", 3, 1024, 2), ("b", 1, 2048, 2)]
    assert seen == [(1, 2, 1), (2, 2, 2)]


def test_a_network_is_clicked_with_its_own_logits(tmp_path: Path) -> None:
    images = open_labelled_images(folder_of_images(tmp_path))
    results = evaluate_images(ImagePredictor(tiny_model()), images, 3)
    assert len(results) == 2
    assert all(0 <= iou <= 1 for result in results for iou in result.ious)
    assert any(len(set(result.ious)) > 1 for result in results), "the later clicks changed nothing"


def test_command_writes_the_scores_of_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_of_images(tmp_path / "photos")
    (tmp_path / "groups.csv").write_text("image,group\na.jpg,dark\na.jpg,indoors\nb,bright\nelsewhere,bright\n")
    arguments = ["eval", "images", "--root", str(root), "--model", "disc", "--clicks", "2"]
    arguments += ["--groups", str(tmp_path / "groups.csv"), "--json", str(tmp_path / "deep" / "scores.json")]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "deep" / "scores.json").read_text())
    assert (summary["n_instances"], summary["n_images"], len(summary["miou"])) == (2, 2, 2)
    first, second = (row["iou"] for row in summary["instances"])
    np.testing.assert_allclose(summary["miou"], np.mean([first, second], axis=0), atol=1e-4)
    assert summary["groups"] == {
        "bright": {"miou": second, "n_instances": 1, "n_images": 1},
        "dark": {"miou": first, "n_instances": 1, "n_images": 1},
        "indoors": {"miou": first, "n_instances": 1, "n_images": 1},
    }
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["miou"] == summary["miou"] and "instances" not in last


def test_command_measures_on_what_a_run_holds_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        folder_of_images(tmp_path / name)
    (tmp_path / "run.yaml").write_text(
        "model: nano\nstages: [{steps: 1, size_px: 64, frames: 1, clips_per_batch: 1, lr: 1, lr_end: 0}]\n"
        f"photo_roots: [{{root: {tmp_path}/first, held_out_every: 1}}, {tmp_path}/second]\n"
    )
    arguments = ["eval", "images", "--config", str(tmp_path / "run.yaml"), "--model", "disc", "--clicks", "1"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(summary["groups"]) == ["first"] and summary["n_images"] == 2
    assert main([*arguments, "--every", "0"]) == 2
    assert main([*arguments, "--sequences", "bear"]) == 2
    said = capsys.readouterr().err
    assert "--every: expected 1 or more, got 0" in said and "--sequences: goes with --root" in said


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (["--model", "hold"], "floor for videos"),
        (["--model", "disc", "--checkpoint", "a.pt"], "has no weights"),
        (["--model", "disc", "--clicks", "0"], "clicks: expected 1 or more"),
        (["--model", "disc", "--every", "0"], "every: expected 1 or more"),
        (["--model", "disc", "--sequences", "bear"], "holds images, not sequences"),
        (["--model", "disc", "--groups", "{tmp}/half.csv"], "1 of 2 images are in no group, 'b'"),
        (["--model", "disc", "--groups", "{tmp}/none.csv"], "none.csv"),
    ],
)
def test_command_explains_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], why: str
) -> None:
    root = folder_of_images(tmp_path / "photos")
    (tmp_path / "half.csv").write_text("image,group\na,dark\n")
    assert main(["eval", "images", "--root", str(root), *(word.format(tmp=tmp_path) for word in extra)]) == 2
    assert why in capsys.readouterr().err


def test_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="gigantic"):
        image_predictor_by_name("gigantic")


def test_an_image_that_cannot_be_read_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_of_images(tmp_path / "photos")
    bad = root / "images" / "a.jpg"
    bad.write_bytes(bad.read_bytes()[:-20])
    arguments = ["eval", "images", "--root", str(root), "--model", "disc", "--clicks", "2"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["n_instances"], summary["n_images"], list(summary["left_out"])) == (1, 1, ["a"])
    assert "a.jpg is cut off" in summary["left_out"]["a"]
    (root / "images" / "b.jpg").write_bytes(b"")
    assert main(arguments) == 2
    assert "nothing could be measured" in capsys.readouterr().err
