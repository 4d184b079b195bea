"""The example that newcomers read first: it runs as it stands, and is short."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_model

import sam2_ros
from sam2_ros.data.files.video import VideoWriter, open_source
from sam2_ros.tracking.tracker import Tracker

EXAMPLE = Path(__file__).parents[2] / "examples" / "track_video.py"
FRAMES, HEIGHT, WIDTH = 4, 96, 128


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A light square that moves to the right on a dark ground."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, fps=10.0) as writer:
        for index in range(FRAMES):
            image_rgb = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
            image_rgb[30:66, 20 + 6 * index : 56 + 6 * index] = (240, 230, 200)
            writer.write(image_rgb)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_a_click_with_the_package_s_own_weights_finds_the_square(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "overlay.mp4"
    run(monkeypatch, str(clip), "38,48", str(out))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[str(index), "TRACKED"] for index in range(FRAMES)]
    with open_source(clip) as plain, open_source(out) as drawn:
        assert drawn.info.fps == 10.0
        pairs = list(zip(plain, drawn, strict=True))
    assert len(pairs) == FRAMES
    for index, (before, after) in enumerate(pairs):
        change = np.abs(before.astype(int) - after).max(axis=2)
        square = np.s_[36:60, 26 + 6 * index : 50 + 6 * index]
        assert change[square].mean() > 40, "the square is not tinted"
        assert change[:, -20:].mean() < 15, "the ground is"


@pytest.mark.parametrize("prompt", ["10,20", "10,20,60,70"])
def test_both_kinds_of_prompt_and_the_checkpoint_reach_the_tracker(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    asked = []
    monkeypatch.setitem(
        vars(sam2_ros), "load_tracker", lambda **arguments: asked.append(arguments) or Tracker(tiny_model())
    )
    out = tmp_path / "overlay.mp4"
    run(monkeypatch, str(clip), prompt, str(out), "--checkpoint", "mine.pt")
    assert asked == [{"checkpoint": "mine.pt", "device": "cpu"}]
    with open_source(out) as drawn:
        assert len(list(drawn)) == FRAMES


@pytest.mark.parametrize(
    ("video", "prompt", "reason"), [("clip.mp4", "500,500", "object: .*500"), ("gone.mp4", "1,1", "no frame could be")]
)
def test_what_is_wrong_is_said(
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    video: str,
    prompt: str,
    reason: str,
) -> None:
    monkeypatch.setitem(vars(sam2_ros), "load_tracker", lambda **_: Tracker(tiny_model()))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, str(clip.with_name(video)), prompt, str(clip.with_name("out.mp4")))
    assert ended.value.code == 2
    assert re.search(reason, capsys.readouterr().err)


def test_it_stays_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
