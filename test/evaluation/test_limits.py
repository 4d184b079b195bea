"""The table of limits: means worked out by hand, and the floors beside every model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sam2_ros.cli import main
from sam2_ros.evaluation import limit_clips
from sam2_ros.evaluation.limit_clips import LIMIT_KINDS, LimitClip
from sam2_ros.evaluation.limits import evaluate_limits, limits_report, score_clip
from sam2_ros.evaluation.trackers import HoldTracker


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


def test_command_explains_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "limits", "--model", "hold", "--seeds", "0"]) == 2
    assert "seeds: expected 1 or more" in capsys.readouterr().err
