"""What a network's estimate of its masks is worth: the fit, its file, and where it is used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.model.config import MODELS
from sam2_ros.tracking.loading import load_tracker
from sam2_ros.tracking.rules.quality import (
    Calibration,
    calibration_file,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from sam2_ros.tracking.state_io import fingerprint
from sam2_ros.tracking.tracker import Tracker


def test_between_knots_the_quality_goes_straight_and_beyond_them_it_stays() -> None:
    calibration = Calibration((0.2, 0.6), (0.1, 0.9))
    assert [calibration(x) for x in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])
    assert Calibration()(0.37) == 0.37


def test_the_fit_is_the_mean_iou_and_never_descends() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 1, 4000)
    ious = np.clip(predicted**2 + rng.normal(0, 0.05, 4000), 0, 1)
    fitted = fit_calibration(predicted.tolist(), ious.tolist())
    assert [fitted(x) for x in (0.3, 0.6, 0.9)] == pytest.approx([0.09, 0.36, 0.81], abs=0.03)
    # An estimate that is worth nothing, and one that is worse than that.
    for worthless in (rng.uniform(0.4, 0.6, 4000), 1 - predicted):
        flat = fit_calibration(predicted.tolist(), worthless.tolist())
        assert np.ptp([flat(x) for x in np.linspace(0, 1, 9)]) < 0.03
        assert flat(0.5) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("predicted", [[0.5] * 9, [0.1, 0.9], [0.5] * 50])
def test_too_little_to_fit_is_said(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 10 masks or more with different estimates"):
        fit_calibration(predicted, predicted)


def test_a_calibration_beside_the_weights_is_used_and_one_of_other_weights_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    model, weights = tiny_model(seed=4), tmp_path / "tiny.pt"
    torch.save(model.state_dict(), weights)

    def quality(**options: bool) -> float:
        tracker = load_tracker(checkpoint=weights, **options)
        tracker.add_prompt("a", points=[(40, 24)], labels=[1])
        return tracker.step(noise_frames(1)[0])["a"].mask_quality

    plain = quality()
    write_calibration(calibration_file(weights), Calibration((0.0, 1.0), (0.25, 0.25)), fingerprint(model))
    assert quality() == 0.25
    assert quality(calibrated=False) == plain
    write_calibration(calibration_file(weights), Calibration((0.0, 1.0), (0.25, 0.25)), "other weights")
    assert quality() == plain


@pytest.mark.parametrize(
    "damage",
    [
        {"predicted": [0.5, 0.1]},
        {"quality": [0.9, 0.1]},
        {"quality": [0.1, 1.5]},
        {"quality": [0.1, float("nan")]},
        {"quality": [0.1]},
        {"quality": "x"},
        {"predicted": None},
    ],
)
def test_a_damaged_file_is_said(tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "nano.quality.json"
    path.write_text(json.dumps({"weights": "w", "predicted": [0.1, 0.9], "quality": [0.2, 0.8], **damage}))
    with pytest.raises(ValueError, match=r"nano.quality.json is damaged"):
        read_calibration(path, "w")
    assert read_calibration(tmp_path / "none.json", "w") == Calibration()


def test_it_changes_what_is_shown_and_nothing_that_is_tracked() -> None:
    model = tiny_model(seed=4)
    plain, calibrated = Tracker(model), Tracker(model, calibration=Calibration((0.0, 1.0), (0.1, 0.2)))
    for tracker in (plain, calibrated):
        tracker.add_prompt("a", points=[(40, 24)], labels=[1])
    for frame in noise_frames(4):
        one, other = plain.step(frame)["a"], calibrated.step(frame)["a"]
        assert np.array_equal(one.low_res_logits, other.low_res_logits)
        assert other.mask_quality == pytest.approx(0.1 + 0.1 * one.mask_quality)
