"""The table of limits: means worked out by hand, and the floors beside every model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_model import TINY, tiny_model

from sam2_ros.cli import main
from sam2_ros.evaluation import limit_clips
from sam2_ros.evaluation.limit_clips import LIMIT_KINDS, LimitClip
from sam2_ros.evaluation.limits import evaluate_limits, limits_report, score_clip
from sam2_ros.evaluation.trackers import HoldTracker
from sam2_ros.evaluation.two_mugs import two_mugs
from sam2_ros.model.config import MODELS
from sam2_ros.tracking.types import FrameResult


def clip_of(widths: list[list[int]], event_frame: int | None) -> LimitClip:
    """Objects in rows of 2 px each: object n covers so many columns of its rows in frame t."""
    masks = np.zeros((len(widths), len(widths[0]), 2 * len(widths[0]), 8), bool)
    for t, row in enumerate(widths):
        for n, width in enumerate(row):
            masks[t, n, 2 * n : 2 * n + 2, :width] = True
    return LimitClip("made up", np.zeros((*masks.shape[:1], *masks.shape[2:], 3), np.uint8), masks, event_frame)


def test_scores_of_a_held_mask() -> None:
    # Held are 4 columns of the first object and 8 of the second. First and last frame do not count.
    clip = clip_of([[4, 8], [4, 4], [2, 8], [0, 8], [8, 0]], event_frame=2)
    score = score_clip(HoldTracker(), clip)
    per_frame = [(1 + 4 / 8) / 2, (2 / 4 + 1) / 2, (0 + 1) / 2]
    assert score.region == pytest.approx(np.mean(per_frame))
    assert score.region_after == pytest.approx(np.mean(per_frame[1:]))
    assert score_clip(HoldTracker(), clip_of([[4], [4], [4]], None)).region_after is None


def test_every_tracker_sees_the_same_clips() -> None:
    seen: list[tuple[str, int]] = []
    table = evaluate_limits(
        {"one": HoldTracker(), "two": HoldTracker()}, ["thin"], 2, lambda kind, seed: seen.append((kind, seed))
    )
    assert seen == [("thin", 0), ("thin", 1)]
    row = limits_report(table, {})["rows"]["thin"]
    assert row["one"]["J"] == row["two"]["J"]
    assert row["one"]["J"] < 0.5, "a turning stick leaves a held mask"
    assert row["one"]["J_after"] is None


def test_command_puts_the_floors_beside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIMIT_KINDS[:2] == ("plain", "shot change")
    monkeypatch.setattr(limit_clips, "LIMIT_KINDS", LIMIT_KINDS[:2])  # the others take as long again
    arguments = ["eval", "limits", "--model", "hold", "--seeds", "1", "--json", str(tmp_path / "limits.json")]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / "limits.json").read_text())["rows"]
    assert tuple(rows) == LIMIT_KINDS[:2]
    assert all(set(row) == {"hold", "flow"} for row in rows.values())
    # Optical flow follows what drifts, and neither floor finds anything again after a cut.
    assert rows["plain"]["flow"]["J"] > 0.4 > rows["plain"]["hold"]["J"]
    assert max(score["J_after"] for score in rows["shot change"].values()) < 0.3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["J", "hold", "flow"]
    assert lines[2].startswith("shot change") and lines[2].count("after") == 2


class Puppet(HoldTracker):
    """Shows in each frame the masks that it is given, TRACKED where they are not empty, with one quality."""

    def __init__(self, masks_tnhw: NDArray[np.bool_], quality: float) -> None:
        super().__init__()
        self.shown_tnhw, self.quality = masks_tnhw, quality

    def step(self, image_rgb: NDArray[np.uint8]) -> FrameResult:
        shown_nhw = self.shown_tnhw[self._frame_index]
        self._prompted = {str(number): mask for number, mask in enumerate(shown_nhw)}
        result = super().step(image_rgb)
        return replace(result, objects=tuple(replace(each, mask_quality=self.quality) for each in result))


def test_how_a_clip_ends_and_how_often_a_wrong_mask_is_called_tracked() -> None:
    # Eight frames of two objects, of 4 columns each in rows of their own.
    clip = clip_of([[4, 4]] * 8, event_frame=3)
    own = clip.masks_tnhw
    right = score_clip(Puppet(own, 0.9), clip)
    assert (right.recovered, right.swapped, right.wrong_tracked, right.wrong_sure) == (1, 0, 0, 0)
    ends_swapped = np.concatenate([own[:3], own[3:, ::-1]])
    swapped = score_clip(Puppet(ends_swapped, 0.9), clip)
    assert (swapped.recovered, swapped.swapped) == (0, 1)
    assert swapped.wrong_tracked == swapped.wrong_sure == pytest.approx(5 / 7), "the first frame has the prompts"
    assert score_clip(Puppet(ends_swapped, 0.4), clip).wrong_sure == 0
    gone = own.copy()
    gone[3:, 0] = False
    lost = score_clip(Puppet(gone, 0.9), clip)
    assert (lost.recovered, lost.swapped, lost.wrong_tracked) == (0.5, 0, 0)
    alone = clip_of([[4]] * 8, None)
    score = score_clip(Puppet(alone.masks_tnhw, 0.9), alone)
    assert (score.recovered, score.swapped) == (None, None)


def test_real_videos_are_kinds_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "street" / folder).mkdir(parents=True)
    for index in range(6):
        image = np.zeros((16, 24, 3), np.uint8)
        image[4:10, 4 + index : 12 + index] = 255
        cv2.imwrite(str(tmp_path / "street" / "images" / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / "street" / "masks" / f"{index}.png"), image[..., 0])
    arguments = ["eval", "limits", "--model", "hold", "--kinds", "none", "--root", str(tmp_path)]
    assert main([*arguments, "--json", str(tmp_path / "limits.json")]) == 0
    rows = json.loads((tmp_path / "limits.json").read_text())["rows"]
    assert list(rows) == ["street"]
    assert rows["street"]["hold"]["J"] == pytest.approx(np.mean([(8 - n) / (8 + n) for n in range(1, 5)]), abs=1e-4)
    assert rows["street"]["hold"]["swapped"] is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:5] == ["hold", "recovered", "swapped", "wrong_tracked", "wrong_sure"]


def test_two_equal_mugs_change_places_behind_each_other_and_the_camera_looks_away() -> None:
    images, masks, back = two_mugs(3)
    areas = masks.sum(axis=(2, 3))
    assert images.shape == (68, 240, 320, 3)
    assert areas[0].min() > 1500
    away = np.flatnonzero(areas.sum(1) == 0)
    assert len(away) >= 3 * 8 - 2, "three seconds at 8 Hz"
    assert away.max() < back <= away.max() + 6
    assert areas[back:].min() > 1000
    middle_x = [[np.nonzero(masks[t, n])[1].mean() for n in range(2)] for t in (0, 22)]
    assert (middle_x[0][0] < middle_x[0][1]) != (middle_x[1][0] < middle_x[1][1])
    assert areas[:24].min() < 0.7 * areas[0].min(), "one is partly hidden where they cross"


def test_command_explains_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "limits", "--model", "hold", "--kinds", "plain,odd"]) == 2
    assert "--kinds: expected some of plain, " in capsys.readouterr().err
    assert main(["eval", "limits", "--model", "hold", "--sequences", "bear"]) == 2
    assert "say with --root where they are" in capsys.readouterr().err
    assert main(["eval", "limits", "--model", "hold", "--seeds", "0"]) == 2
    assert "seeds: expected 1 or more" in capsys.readouterr().err


def test_command_fits_what_the_quality_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    torch.save(tiny_model(seed=4).state_dict(), tmp_path / "tiny.pt")
    arguments = ["eval", "limits", "--checkpoint", str(tmp_path / "tiny.pt"), "--kinds", "plain", "--seeds", "1"]
    assert main([*arguments, "--fit-quality"]) == 0
    written = json.loads((tmp_path / "tiny.quality.json").read_text())
    assert written["predicted"] == sorted(written["predicted"])
    assert written["quality"] == sorted(written["quality"])
    assert main(["eval", "limits", "--model", "hold", "--fit-quality"]) == 2
    assert "--fit-quality: expected a model with weights, got hold" in capsys.readouterr().err
