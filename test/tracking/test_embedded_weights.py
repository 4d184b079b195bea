"""The weights that ship with the package: small enough to ship, and good for something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sam2_ros import load_tracker
from sam2_ros.demo.tabletop.scene import Tabletop
from sam2_ros.model.checkpoint import read_state_dict
from sam2_ros.tracking.loading import EMBEDDED_WEIGHTS

MAX_BYTES = 16 * 2**20
MAX_PARAMETERS = 8_000_000


def test_they_are_small() -> None:
    assert EMBEDDED_WEIGHTS.stat().st_size <= MAX_BYTES
    assert sum(tensor.numel() for tensor in read_state_dict(EMBEDDED_WEIGHTS).values()) <= MAX_PARAMETERS


def test_every_weight_is_finite() -> None:
    broken = [name for name, tensor in read_state_dict(EMBEDDED_WEIGHTS).items() if not torch.isfinite(tensor).all()]
    assert not broken


@pytest.mark.parametrize("prompt", ["click", "mask"])
def test_a_ball_on_a_table_is_found_and_followed(prompt: str) -> None:
    scene = Tabletop()
    first = scene.render(0)
    ball = 1 + scene.names.index("ball")
    tracker = load_tracker("nano")
    if prompt == "click":
        click = next(point for point in scene.click_points() if point.name == "ball")
        tracker.add_prompt("ball", points=[(click.x_px, click.y_px)], labels=[1])
    else:
        tracker.add_prompt("ball", mask=first.ids == ball)
    for index in range(3):
        frame = scene.render(index)
        mask = tracker.step(frame.image_rgb)["ball"].mask
        truth = frame.ids == ball
        iou = np.logical_and(mask, truth).sum() / np.logical_or(mask, truth).sum()
        assert iou > 0.6, f"frame {index}: IoU {iou:.2f}"
