"""``sam2-ros segment`` with a small random network: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import noise_frames, tiny_model

import sam2_ros
from sam2_ros.cli import main
from sam2_ros.data.files.images import read_image_rgb
from sam2_ros.data.files.masks import decode_rle, read_index_png
from sam2_ros.tracking import mask_generator, overlay
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.mask_generator import GeneratorSettings
from sam2_ros.tracking.types import ObjectState

HEIGHT, WIDTH = 48, 80


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), noise_frames(1, HEIGHT, WIDTH)[0][..., ::-1])
    return path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list:
    """Pairs of what ``load_image_predictor`` was asked for and the predictor it gave."""
    made: list = []

    def load_image_predictor(**kwargs: object) -> ImagePredictor:
        made.append((kwargs, ImagePredictor(tiny_model())))
        return made[-1][1]

    monkeypatch.setitem(vars(sam2_ros), "load_image_predictor", load_image_predictor)
    return made


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random network is not sure of anything."""
    settings = GeneratorSettings(
        points_per_side=3, points_per_batch=4, pred_iou_thresh=0.0, stability_score_thresh=0.01, box_nms_thresh=1.0
    )
    monkeypatch.setattr(mask_generator, "settings_for", lambda name: settings)


def summary_of(capsys: pytest.CaptureFixture[str]) -> dict:
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_prompts_give_one_mask_each(image: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    arguments = ["segment", str(image), "--prompt", "mug:20,30", "--prompt", "10,20,40,44", "--masks", "rle"]
    assert main([*arguments, "--out", str(out), "--json", str(tmp_path / "a" / "summary.json")]) == 0
    summary = summary_of(capsys)
    assert summary["image"] == str(image) and summary["model"] == "tiny-test"
    assert summary["masks_found"] == len(summary["scores"]) == len(summary["areas_px"]) == 2
    assert json.loads((tmp_path / "a" / "summary.json").read_text()) == summary
    kwargs, predictor = made[0]
    asked_for = {"model": None, "checkpoint": None, "device": "cpu", "precision": "auto", "image_size": None}
    assert kwargs == {**asked_for, "encoder_engine": "auto"}
    written = json.loads((out / "masks.json").read_text())
    assert (written["image"], written["height"], written["width"]) == ("photo.png", HEIGHT, WIDTH)
    assert [entry["object_id"] for entry in written["masks"]] == ["mug", "object2"]
    best = predictor.predict([(20, 30)], [1]).ordered()
    assert np.array_equal(decode_rle(written["masks"][0]["segmentation"]), best.masks[0])
    assert written["masks"][0]["score"] == pytest.approx(float(best.scores[0]), abs=1e-3)
    rows, columns = np.nonzero(best.masks[0])
    assert written["masks"][0]["box_xyxy"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    overlay = read_image_rgb(Path(summary["overlay"]))
    assert overlay.shape == (HEIGHT, WIDTH, 3) and (overlay != read_image_rgb(image)).any()


def test_everything_with_progress_and_the_smaller_mask_on_top(
    image: Path, tmp_path: Path, made: list, loose: None, capsys: pytest.CaptureFixture
) -> None:
    outs = [tmp_path / "png", tmp_path / "rle"]
    for out in outs:
        assert main(["segment", str(image), "--everything", "--masks", out.name, "--out", str(out)]) == 0
        captured = capsys.readouterr()
        assert "9/9 [" in captured.err.splitlines()[-1] and "point/s]" in captured.err
        assert len(captured.out.splitlines()) == 1
    entries = json.loads((outs[1] / "masks.json").read_text())["masks"]
    assert len(entries) > 1 and {"stability_score", "point_xy", "crop_xyxy"} <= set(entries[0])
    expected = np.zeros((HEIGHT, WIDTH), int)
    for entry in sorted(entries, key=lambda entry: -entry["area_px"]):
        expected[decode_rle(entry["segmentation"])] = entry["label"]
    assert len(np.unique(expected)) > 2
    assert np.array_equal(read_index_png(outs[0] / "masks.png"), expected)


def test_how_closely_to_look(
    image: Path, tmp_path: Path, made: list, loose: None, capsys: pytest.CaptureFixture
) -> None:
    arguments = [
        "segment",
        str(image),
        "--everything",
        "--masks",
        "none",
        "--no-overlay",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--points-per-side", "2", "--crop-layers", "1"]) == 0
    captured = capsys.readouterr()
    assert f"{4 + 4 * 4}/20 [" in captured.err.splitlines()[-1]
    summary = json.loads(captured.out)
    assert "masks" not in summary and "overlay" not in summary and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "say what to segment"),
        (["--everything", "--prompt", "6,6"], "say what to segment"),
        (["--prompt", "6"], "prompt '6'"),
        (["--prompt", "80,6"], "0 <= x < 80"),
        (["--prompt", "6,6", "--points-per-side", "4"], "belong to --everything"),
        (["--everything", "--points-per-side", "0"], "points_per_side: expected 1 or more"),
        (["--prompt", "a:6,6", "--prompt", "a:9,9"], "two prompts for 'a'"),
        (["--everything", "--crop-layers", "-1"], "crop_n_layers: expected 0 or more"),
    ],
)
def test_what_cannot_be_used_is_said(
    image: Path, tmp_path: Path, made: list, arguments: list[str], why: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["segment", str(image), "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert why in captured.err and captured.err.startswith("sam2-ros segment: ") and not captured.out
    assert not (tmp_path / "out").exists()


def test_no_image(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["segment", str(tmp_path / "no.jpg"), "--prompt", "1,1", "--out", str(tmp_path / "out")]) == 2
    assert "no image at" in capsys.readouterr().err


def test_an_image_format_that_opencv_cannot_write(tmp_path: Path) -> None:
    from sam2_ros.data.files.images import write_image_rgb

    with pytest.raises(OSError, match="expected a name that ends in"):
        write_image_rgb(tmp_path / "a.odd", np.zeros((4, 4, 3), np.uint8))


def test_a_summary_that_cannot_be_written_is_said(
    image: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["segment", str(image), "--prompt", "6,6", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json", str(image / "under_a_file.json")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("sam2-ros segment: ")
    assert json.loads(captured.out), "the work was done: what it found is printed first"


def test_a_folder_for_the_summary_is_refused_before_the_work(
    image: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["segment", str(image), "--prompt", "6,6", "--out", str(tmp_path / "out"), "--json", str(tmp_path)])
    assert f"expected a file to write, got the folder {tmp_path}" in capsys.readouterr().err
    assert made == []


def test_a_clipped_box_is_said_and_nothing_is_called_tracked(
    image: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(overlay, "_draw_tag", lambda canvas, text, *_: drawn.append(text) or overlay._Box(0, 0, 1, 1))
    boxes = ["--prompt", "mug:10,10,900,40", "--prompt", "tin:10,10,30,30"]
    assert main(["segment", str(image), *boxes, "--out", str(tmp_path / "out")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "clipped" in line]
    assert line.startswith("sam2-ros segment: mug: the box [10.0, 10.0, 900.0, 40.0] reaches outside")
    assert sorted(text.split()[0] for text in drawn) == ["mug", "tin"]
    assert not any(state.name in text for text in drawn for state in ObjectState)
