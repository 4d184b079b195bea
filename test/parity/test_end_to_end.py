"""Our tracker against the official predictor: the same random weights, the same frames, the same click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from official import OfficialRun, import_official_builder, randomise, synthetic_frames

from sam2_ros import load_tracker

NUM_FRAMES = 24
TOLERANCE_LOGITS = 1e-3
CLICK_XY = (70.0, 128.0)

build_official = import_official_builder()


@pytest.mark.skipif(build_official is None, reason="the official package is not installed: run `make venv`")
@pytest.mark.parametrize("postprocess", [True, False], ids=["builder-default", "benchmark"])
@pytest.mark.parametrize(
    "image_size",
    [pytest.param(256, id="256px"), pytest.param(1024, id="1024px", marks=pytest.mark.long)],
)
def test_one_click_over_24_frames(tmp_path: Path, image_size: int, postprocess: bool) -> None:
    overrides = [f"++model.image_size={image_size}"]
    official = build_official(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="cpu",
        hydra_overrides_extra=overrides,
        apply_postprocessing=postprocess,
    )
    randomise(official, seed=7, object_score_bias=4.0)
    checkpoint = tmp_path / "random.pt"
    torch.save({"model": official.state_dict()}, checkpoint)
    frames = synthetic_frames(NUM_FRAMES, image_size, seed=3)
    folder = tmp_path / "frames"
    folder.mkdir()
    run = OfficialRun(official, frames, folder)
    scale = image_size / 256
    click = (CLICK_XY[0] * scale, CLICK_XY[1] * scale)
    run.click(0, 1, click)
    expected = [logits[0] for logits in run.low_res_logits()]

    tracker = load_tracker("sam2.1_hiera_tiny", checkpoint=checkpoint, image_size=image_size, postprocess=postprocess)
    tracker.add_prompt("disc", points=[click], labels=[1])
    actual = [tracker.step(frame)["disc"].low_res_logits for frame in frames]

    assert_not_trivial(expected)
    for index, (ours, official_logits) in enumerate(zip(actual, expected, strict=True)):
        assert ours is not None
        worst = float(np.abs(ours - official_logits).max())
        assert worst < TOLERANCE_LOGITS, f"frame {index}: logits differ by {worst}"
        sure = np.abs(official_logits) > TOLERANCE_LOGITS
        assert ((ours > 0) == (official_logits > 0))[sure].all(), f"frame {index}: masks differ"


def assert_not_trivial(logits: list[NDArray[np.float32]]) -> None:
    """Without this a model that finds the object absent everywhere would agree with anything."""
    visible = [frame for frame in logits if frame.max() > -1000]
    assert len(visible) == len(logits), f"the object is absent in {len(logits) - len(visible)} frames"
    assert all(frame.std() > 0.1 for frame in visible)
    assert any(0.02 < (frame > 0).mean() < 0.98 for frame in visible)
