"""The weights that the package brings, on real pictures that they were not trained on.

Bounds are a little below what was measured when the weights were committed: another processor's rounding moves a mask's
border, other weights or another network move the mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam2_ros import load_image_predictor, load_tracker
from sam2_ros.data.files.images import list_images, read_image_rgb
from sam2_ros.data.files.sequences import open_labelled_images, open_sequences
from sam2_ros.evaluation.images import evaluate_images, mean_ious
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.tracking.types import ObjectState

REAL = Path(__file__).parent.parent / "fixtures" / "real"
ONE_CLICK, FIVE_CLICKS, TRACKED_J = 0.47, 0.70, 0.85  # measured: 0.515, 0.746, 0.881


def test_clicks_on_photographs() -> None:
    results = evaluate_images(load_image_predictor("nano"), open_labelled_images(REAL / "photographs"), clicks=5)
    assert len(results) == 7
    means = mean_ious(results)
    assert means is not None
    assert means[0] >= ONE_CLICK and means[4] >= FIVE_CLICKS, means


def test_objects_on_a_table_are_followed_and_missed_when_they_are_gone() -> None:
    """Three objects under a moving camera, then another place."""
    (table,) = open_sequences(REAL / "ycb")
    tracker = load_tracker("nano")
    for value, mask in table.masks(0).items():
        tracker.add_prompt(str(value), mask=mask)
    similarities = []
    for index in range(len(table)):
        result = tracker.step(table.frame_rgb(index))
        if index:
            similarities += [region_similarity(result[str(v)].mask, mask) for v, mask in table.masks(index).items()]
    assert np.mean(similarities) >= TRACKED_J, np.mean(similarities)
    elsewhere = [read_image_rgb(path) for path in list_images(REAL / "photographs" / "images")]
    states = [track.state for image in elsewhere for track in tracker.step(image).objects]
    assert len(states) == 3 * len(elsewhere)
    assert sum(state is ObjectState.TRACKED for state in states) <= len(states) // 3, states  # measured: 1 of 12
