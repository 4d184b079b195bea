"""The simulated annotator: which frames it edits in each phase, what that costs, and where it stops."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import tiny_model

from sam2_ros.annotate import segmenter as segmenter_module
from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource
from sam2_ros.annotate.segmenter import Propagation, Segmenter
from sam2_ros.cli import main
from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.sequences import VideoSequence, open_sequences
from sam2_ros.evaluation.engine import EngineRun, annotate

HEIGHT, WIDTH, FULL = 12, 32, 20


def bar(width: int) -> np.ndarray:
    """Rows 2 to 7 and the first ``width`` columns."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:8, :width] = True
    return mask


class FadingSegmenter:
    """Gives a bar of 20 columns after enough clicks, else of 10; propagated it loses 3 columns a frame.

    ``needed``: clicks from nothing, and with memory.
    """

    def __init__(self, new: int = 2, known: int = 1) -> None:
        self.needed = (new, known)
        self.started_from: list[tuple[int, tuple[int, ...]]] = []  # each propagation: its frame, and those kept by then

    def click(
        self, masklet: Masklet | None, index: int, prompts: Sequence[FramePrompt], phase: int = 3
    ) -> MaskletFrame:
        assert masklet is not None
        needed = self.needed[phase == 3 and bool(masklet.frames)]
        width = FULL if len(prompts) >= needed else FULL // 2
        return MaskletFrame.of_mask(bar(width), MaskSource.CLICK, prompts=prompts)

    def propagate(self, masklets: Sequence[Masklet], start: int, stop: int) -> Iterator[Propagation]:
        (masklet,) = masklets
        kept = tuple(index for index in masklet.frame_indices if masklet.is_kept(index))
        self.started_from.append((start, kept))
        width = int(masklet.frames[start].mask()[2].sum())
        for index in range(start + 1, stop + 1):
            width = max(0, width - 3)
            frames = {} if index in kept else {"object": MaskletFrame.of_mask(bar(width), MaskSource.PROPAGATED)}
            yield Propagation(index, frames, index - start, stop - start)


def make_sequence(folder: Path, widths: list[int | None]) -> VideoSequence:
    """Frames whose object is a bar of so many columns; None has no mask."""
    (folder / "bar" / "images").mkdir(parents=True)
    for index, width in enumerate(widths):
        cv2.imwrite(str(folder / "bar" / "images" / f"{index:05d}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        if width is not None:
            write_index_png(folder / "bar" / "masks" / f"{index:05d}.png", bar(width).astype(np.uint8))
    return open_sequences(folder)[0]


def run(segmenter: FadingSegmenter, sequence: VideoSequence, phase: int, budget: int | None = None) -> EngineRun:
    return annotate(segmenter, sequence, 1, phase, budget)


@pytest.mark.parametrize(("phase", "clicks", "edited"), [(1, 20, 10), (2, 10, 5), (3, 6, 5)])
def test_what_a_masklet_costs_until_every_frame_is_good(tmp_path: Path, phase: int, clicks: int, edited: int) -> None:
    done = run(FadingSegmenter(), make_sequence(tmp_path, [FULL] * 10), phase)
    assert (done.clicks, done.edited_frames, done.painted_frames) == (clicks, edited, 0)
    assert min(done.regions.values()) >= 0.75 and len(done.regions) == 10


@pytest.mark.parametrize(
    ("phase", "widths"),
    [
        (1, [20, 20, 0, 0, 0, 0]),
        (2, [20, 17, 20, 17, 14, 11]),
        (3, [20, 17, 20, 17, 20, 17]),
    ],
)
def test_what_four_clicks_bring(tmp_path: Path, phase: int, widths: list[int]) -> None:
    done = run(FadingSegmenter(), make_sequence(tmp_path, [FULL] * 6), phase, budget=4)
    assert done.clicks == 4 and done.painted_frames == 0
    assert list(done.regions.values()) == [width / FULL for width in widths]
    assert done.region == pytest.approx(sum(widths) / 6 / FULL)


@pytest.mark.parametrize("phase", (1, 2, 3))
def test_what_clicks_cannot_mend_is_painted_and_propagated_from(tmp_path: Path, phase: int) -> None:
    done = run(FadingSegmenter(new=99, known=99), make_sequence(tmp_path, [FULL] * 3), phase)
    painted = 3 if phase == 1 else 2
    assert (done.clicks, done.edited_frames, done.painted_frames) == (10 * painted, painted, painted)
    assert list(done.regions.values()) == ([1.0] * 3 if phase == 1 else [1.0, 0.85, 1.0])


@pytest.mark.parametrize("phase", (2, 3))
def test_a_mask_where_nothing_is_is_erased_and_frames_without_truth_are_passed(tmp_path: Path, phase: int) -> None:
    sequence = make_sequence(tmp_path, [0, FULL, None, 0])
    done = run(FadingSegmenter(), sequence, phase)
    assert sorted(done.regions) == [1, 3]
    assert (done.clicks, done.edited_frames, done.painted_frames) == (2, 2, 1)
    assert run(FadingSegmenter(), sequence, phase, budget=9).regions[3] == 0.0


@pytest.mark.parametrize("phase", (2, 3))
def test_it_goes_on_from_each_edited_frame_which_stays_a_conditioning_frame(tmp_path: Path, phase: int) -> None:
    segmenter = FadingSegmenter()
    run(segmenter, make_sequence(tmp_path, [FULL] * 6), phase)
    assert segmenter.started_from == [(0, (0,)), (2, (0, 2)), (4, (0, 2, 4))]


@pytest.mark.parametrize("phase", (1, 2, 3))
def test_a_network_that_knows_nothing_costs_every_click_and_ends_good(tmp_path: Path, phase: int) -> None:
    sequence = make_sequence(tmp_path, [FULL, FULL - 2, FULL - 4])
    done = annotate(Segmenter(tiny_model(), sequence), sequence, 1, phase)
    assert min(done.regions.values()) >= 0.75 and 0 < done.clicks <= 30
    limited = annotate(Segmenter(tiny_model(), sequence), sequence, 1, phase, budget=3)
    assert limited.clicks == 3 and limited.painted_frames == 0 and len(limited.regions) == 3


def test_what_cannot_be_made_is_rejected(tmp_path: Path) -> None:
    sequence = make_sequence(tmp_path, [FULL])
    with pytest.raises(ValueError, match="expected 1, 2 or 3"):
        run(FadingSegmenter(), sequence, 4)
    with pytest.raises(ValueError, match="no frame shows object 5"):
        annotate(FadingSegmenter(), sequence, 5, 1)


def test_the_command_prints_a_row_each_and_the_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sequence(tmp_path / "data", [FULL] * 10)
    monkeypatch.setattr(segmenter_module, "Segmenter", lambda *_, **__: FadingSegmenter())
    command = ["eval", "engine", "--root", str(tmp_path / "data"), "--clicks", "4", "--json", str(tmp_path / "r.json")]
    assert main(command) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == 3 and "phase 3: 6 clicks, 5 of 10 frames edited, 0 painted" in rows[2]
    phases = json.loads(last)["phases"]
    assert [phases[phase]["clicks_per_masklet"] for phase in "123"] == [20, 10, 6]
    assert phases["1"]["J_at_budget"] < phases["2"]["J_at_budget"] < phases["3"]["J_at_budget"]
    assert len(json.loads((tmp_path / "r.json").read_text())["rows"]) == 3
    assert main([*command, "--every", "5"]) == 0
    assert "phase 1: 4 clicks, 2 of 2 frames edited" in capsys.readouterr().out
    assert main([*command, "--clicks", "0"]) == 2 and main([*command, "--every", "0"]) == 2
