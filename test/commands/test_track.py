"""``sam2-ros track`` with a tracker that needs no network: what is written, what is said, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sam2_ros
from sam2_ros.cli import main
from sam2_ros.commands.progress import Progress
from sam2_ros.data.files.masks import decode_rle, read_index_png, write_index_png
from sam2_ros.data.files.video import FrameSource, SourceError, SourceInfo, open_source
from sam2_ros.model.config import Approximations


@pytest.fixture
def images(coloured_sequence: Path) -> Path:
    return coloured_sequence / "blocks" / "images"


@pytest.fixture
def made(colour_tracker_class: type, monkeypatch: pytest.MonkeyPatch) -> list:
    """Pairs of what ``load_tracker`` was asked for and the tracker it gave."""
    made: list = []

    def load_tracker(**kwargs: object) -> object:
        made.append((kwargs, colour_tracker_class()))
        return made[-1][1]

    # In the module's own table: setattr would first import the real one, and torch with it.
    monkeypatch.setitem(vars(sam2_ros), "load_tracker", load_tracker)
    return made


def red_block(frame: int) -> np.ndarray:
    mask = np.zeros((32, 48), bool)
    mask[4:14, 4 + 2 * frame : 16 + 2 * frame] = True
    return mask


def test_png_masks_overlay_and_summary(
    images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["track", str(images), "--prompt", "6,6", "--prompt", "floor:0,0", "--out", str(out)]) == 0
    for frame in range(5):
        values = read_index_png(out / "masks" / f"{frame:05d}.png")
        np.testing.assert_array_equal(values == 1, red_block(frame))
        assert values[0, 0] == 2
    with open_source(out / "overlay.mp4") as video:
        assert [picture.shape for picture in video] == [(32, 48, 3)] * 5
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["frames"], summary["objects"], summary["source"]) == (5, 2, "images")
    assert summary["visible_frames"] == {"object1": 5, "floor": 5}
    assert Path(summary["overlay"]).exists() and Path(summary["masks"]).is_dir()
    asked_for = {"model": None, "checkpoint": None, "device": "cpu", "precision": "auto", "image_size": None}
    asked_for |= {"approximations": Approximations(), "zoom": False, "encoder_engine": "auto"}
    assert {name: value for name, value in made[0][0].items() if name in asked_for} == asked_for


def test_rle_masks(images: Path, tmp_path: Path, made: list) -> None:
    out = tmp_path / "out"
    arguments = ["track", str(images), "--prompt", "block:6,6", "--masks", "rle", "--no-overlay", "--out", str(out)]
    assert main([*arguments, "--max-frames", "3", "--json", str(out / "summary.json")]) == 0
    written = json.loads((out / "masks.json").read_text())
    assert (written["height"], written["width"], len(written["frames"])) == (32, 48, 3)
    (entry,) = written["frames"][2]["objects"]
    assert (entry["object_id"], entry["label"], entry["state"], entry["box_xyxy"]) == (
        "block",
        1,
        "TRACKED",
        [8, 4, 20, 14],
    )
    np.testing.assert_array_equal(decode_rle(entry["segmentation"]), red_block(2))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 3 and "overlay" not in summary
    assert not (out / "overlay.mp4").exists()


def test_masks_of_an_earlier_run_outlive_a_refused_one(images: Path, tmp_path: Path, made: list) -> None:
    out = tmp_path / "out"
    arguments = ["track", str(images), "--masks", "rle", "--no-overlay", "--out", str(out)]
    assert main([*arguments, "--prompt", "6,6"]) == 0
    written = (out / "masks.json").read_text()
    assert main([*arguments, "--prompt", "99,6"]) == 2
    assert (out / "masks.json").read_text() == written


def test_masks_of_a_longer_run_before_are_pointed_out(
    images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["track", str(images), "--prompt", "6,6", "--no-overlay", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "earlier run" not in capsys.readouterr().err
    assert main([*arguments, "--max-frames", "3"]) == 0
    assert "00003.png to 00004.png are of an earlier run" in capsys.readouterr().err


def test_clicks_and_boxes_reach_the_tracker(images: Path, tmp_path: Path, made: list) -> None:
    arguments = ["track", str(images), "--masks", "none", "--no-overlay", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--prompt", "6,6;-30,20", "--prompt", "4,4,15,13"]) == 0
    assert made[0][1].prompts == [
        ("object1", "points", [6, 6, 30, 20, 1, 0]),
        ("object2", "box", [4, 4, 15, 13]),
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("values", "names"), [((255,), ["start"]), ((3, 8), ["start_3", "start_8"])])
def test_objects_from_a_mask(
    images: Path, tmp_path: Path, made: list, values: tuple[int, ...], names: list[str]
) -> None:
    stored = np.zeros((32, 48), int)
    for column, value in enumerate(values):
        stored[6, 6 + column] = value
    write_index_png(tmp_path / "start.png", stored)
    arguments = ["track", str(images), "--prompt-mask", str(tmp_path / "start.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert [(object_id, kind) for object_id, kind, _ in made[0][1].prompts] == [(name, "mask") for name in names]


def test_progress_and_last_line(images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["track", str(images), "--prompt", "6,6", "--masks", "none", "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "5/5 [" in captured.err
    assert len(captured.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ([], "nothing to track"),
        (["--prompt", "6"], "prompt '6'"),
        (["--prompt", "6,6", "--max-frames", "0"], "1 or more"),
        (["--prompt", "a:6,6", "--prompt", "a:7,7"], "two prompts for 'a'"),
        (["--prompt", "99,6"], "prompt of object1: point (99.0, 6.0) is outside"),
        (["--prompt-mask", "nowhere.png"], "nowhere.png"),
    ],
)
def test_what_cannot_be_used_is_explained(
    images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str], extra: list[str], why: str
) -> None:
    assert main(["track", str(images), "--out", str(tmp_path / "out"), *extra]) == 2
    captured = capsys.readouterr()
    assert why in captured.err
    assert captured.out == ""


def test_mask_without_an_object_is_refused(
    images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    write_index_png(tmp_path / "empty.png", np.zeros((32, 48), int))
    arguments = ["track", str(images), "--prompt-mask", str(tmp_path / "empty.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "has no object" in capsys.readouterr().err


def test_source_that_is_not_there_is_named_before_a_model_is_loaded(
    tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["track", str(tmp_path / "gone.mp4"), "--prompt", "1,1", "--out", str(tmp_path / "out")]) == 2
    assert "gone.mp4" in capsys.readouterr().err
    assert made == []


def test_interrupt_keeps_what_was_tracked(
    images: Path, tmp_path: Path, made: list, colour_tracker_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(colour_tracker_class):  # type: ignore[misc, valid-type]
        def step(self, image):  # type: ignore[no-untyped-def]
            if self._frame_index == 2:
                raise KeyboardInterrupt
            return super().step(image)

    monkeypatch.setitem(vars(sam2_ros), "load_tracker", lambda **_: Interrupted())
    arguments = ["track", str(images), "--prompt", "6,6", "--masks", "rle", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert len(json.loads((tmp_path / "out" / "masks.json").read_text())["frames"]) == 2
    with open_source(tmp_path / "out" / "overlay.mp4") as video:
        assert len(list(video)) == 2


@pytest.mark.parametrize(("max_frames", "total"), [(3, 3), (5, 5), (9, 5), (None, 5)])
def test_progress_counts_to_where_it_ends(
    max_frames: int | None, total: int, images: Path, tmp_path: Path, made: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(Progress, "__call__", lambda self, text, done, total: shown.append((done, total)))
    limit = [] if max_frames is None else ["--max-frames", str(max_frames)]
    assert main(["track", str(images), "--prompt", "6,6", "--out", str(tmp_path / "out"), *limit]) == 0
    assert shown[-1] == (total, total), "with its rate tqdm makes the time to go of the total"


def test_what_was_changed_of_a_prompt_is_said(
    images: Path,
    tmp_path: Path,
    made: list,
    colour_tracker_class: type,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = colour_tracker_class.step

    def with_note(self: object, image: object) -> object:
        result = step(self, image)
        return replace(result, notes=(("block", "the box is clipped"),) if result.frame_index == 0 else ())

    monkeypatch.setattr(colour_tracker_class, "step", with_note)
    assert main(["track", str(images), "--prompt", "block:2,2,16,14", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.splitlines().count("sam2-ros track: block: the box is clipped") == 1


def test_bad_files_are_left_out_and_the_masks_keep_the_numbers_of_the_images(
    images: Path, tmp_path: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = sorted(images.iterdir())[2]
    bad.write_bytes(bad.read_bytes()[:-20])
    (images / f"._{bad.name}").write_bytes(b"Mac OS X")
    out = tmp_path / "out"
    assert main(["track", str(images), "--prompt", "6,6", "--no-overlay", "--out", str(out)]) == 0
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{number:05d}.png" for number in (0, 1, 3, 4)]
    for frame in (0, 1, 3, 4):
        np.testing.assert_array_equal(read_index_png(out / "masks" / f"{frame:05d}.png") == 1, red_block(frame))
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["frames"] == 4
    (reason,) = summary["left_out"]
    assert f"{bad.name} is cut off" in reason


def test_a_camera_that_stops_leaves_a_summary(
    tmp_path: Path, made: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unplugged(FrameSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield from (np.zeros((32, 48, 3), np.uint8) for _ in range(3))
            raise SourceError("camera0 stopped after 3 frames")

    monkeypatch.setattr(
        "sam2_ros.data.files.video.open_source", lambda _: Unplugged(SourceInfo("camera0", None, None, live=True))
    )
    arguments = ["track", "0", "--prompt", "6,6", "--no-overlay", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "sam2-ros track: camera0 stopped after 3 frames" in captured.err
    summary = json.loads(captured.out.splitlines()[-1])
    assert (summary["frames"], summary["ended_early"]) == (3, "camera0 stopped after 3 frames")
