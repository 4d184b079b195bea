"""From a name and a file to a tracker, and what is said when they do not go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros import load_tracker
from sam2_ros.model.checkpoint import CheckpointError
from sam2_ros.model.config import MODELS
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult

FRAMES = noise_frames(3)


@pytest.fixture(autouse=True)
def tiny_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)


def run(tracker: Tracker) -> list[FrameResult]:
    tracker.add_prompt("mug", points=[[20, 20], [40, 20]], labels=[1, 1])
    return [tracker.step(frame) for frame in FRAMES]


def test_checkpoint_gives_the_model_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    model = tiny_model(seed=4)
    torch.save({"model": model.state_dict()}, path)
    loaded = run(load_tracker(TINY.name, str(path), postprocess=False))
    for result, expected in zip(loaded, run(Tracker(model)), strict=True):
        assert np.array_equal(result["mug"].low_res_logits, expected["mug"].low_res_logits)


def test_postprocessing_is_on_unless_turned_off(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model(seed=4).state_dict(), path)
    processed, plain = (run(load_tracker(TINY.name, path, postprocess=on)) for on in (True, False))
    assert not np.array_equal(processed[2]["mug"].low_res_logits, plain[2]["mug"].low_res_logits)


def test_nano_runs_with_random_weights_at_another_size() -> None:
    tracker = load_tracker("nano", weights="random", image_size=64)
    assert tracker.model_name == "nano"
    logits = run(tracker)[0]["mug"].low_res_logits
    assert logits is not None
    assert logits.shape == (16, 16)


def test_lost_after_frames_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "absent.pt"
    torch.save(tiny_model(object_score_bias=-20.0).state_dict(), path)
    results = run(load_tracker(TINY.name, path, lost_after_frames=1))
    assert [result["mug"].state.name for result in results] == ["OCCLUDED", "OCCLUDED", "LOST"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "micro"}, "unknown model 'micro'; expected one of: .*nano"),
        ({"weights": "none"}, 'weights: expected "embedded" or "random", got \'none\''),
        ({"model": "sam2.1_hiera_tiny"}, "sam2.1_hiera_tiny has no embedded weights: name a checkpoint file"),
        ({"weights": "random", "image_size": 100}, "multiple of 32 px, got 100"),
    ],
)
def test_impossible_request_is_a_value_error_that_says_why(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_tracker(**arguments)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: no such file"):
        load_tracker(TINY.name, tmp_path / "absent.pt")


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model().state_dict(), path)
    with pytest.raises(CheckpointError, match="Is the model name right"):
        load_tracker("nano", path)
