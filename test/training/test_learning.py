"""That training learns: one clip, over and over, its first image first, until the tracker follows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TINY

from sam2_ros import load_tracker
from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.model.config import MODELS
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.training import train as train_module
from sam2_ros.training.config import PromptMix, Stage, TrainConfig
from sam2_ros.training.train import train

# As wide as nano: the masks of a narrower one are made of four channels, which sixty steps cannot make speak.
WIDE = replace(TINY, name="wide-test", d_model=128, decoder_ffn_dim=128, trunk=replace(TINY.trunk, embed_dim=32))
SIZE, FRAMES = WIDE.image_size, 3


def one_clip() -> Clip:
    """A disc and a box on noise, passing each other."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 110, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((FRAMES, 2, SIZE, SIZE), bool)
    ys, xs = np.mgrid[:SIZE, :SIZE]
    for t in range(FRAMES):
        masks[t, 0] = (xs - 16 - 4 * t) ** 2 + (ys - 20) ** 2 < 11**2
        masks[t, 1, 38:58, 38 - 4 * t : 60 - 4 * t] = True
        images[t, masks[t, 0]], images[t, masks[t, 1]] = (240, 60, 50), (60, 90, 240)
    return Clip(images, masks)


class OneClip:
    """In place of the data of a run: always the same clip."""

    def __init__(self, _config: TrainConfig) -> None:
        self._clip = one_clip()

    def describe(self) -> str:
        return "one clip"

    def clips(self, stage: Stage) -> Any:
        clip = Clip(self._clip.images_thwc[: stage.frames], self._clip.masks_tnhw[: stage.frames])
        return lambda seed: clip


def test_forty_images_and_sixty_clips_teach_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is a tracker that follows both objects of the clip from a click, by its averaged weights."""
    monkeypatch.setitem(MODELS, WIDE.name, WIDE)
    monkeypatch.setattr(train_module, "TrainingData", OneClip)
    images = Stage(40, SIZE, 1, clips_per_batch=1, lr=1e-3, lr_end=5e-4, trunk_lr=1e-3, warmup_steps=5)
    clips = Stage(60, SIZE, FRAMES, clips_per_batch=1, lr=1e-3, lr_end=1e-4, trunk_lr=1e-3, warmup_steps=2)
    config = TrainConfig(
        WIDE.name,
        (images, clips),
        (PhotoFolder("unused"),),
        prompts=PromptMix(mask=0.0, box=0.0, correction_probability=0.0, image_weight=1.0),
        workers=0,
        threads=1,
        ema_decay=0.8,
        bf16=False,
        reverse_probability=0.0,
        mosaic_probability=0.0,
    )
    threads = torch.get_num_threads()
    try:
        weights = train(config, tmp_path)
    finally:
        torch.set_num_threads(threads)
    tracker = load_tracker(WIDE.name, weights)
    assert isinstance(tracker, Tracker)
    clip = one_clip()
    for name, point in (("disc", (16, 20)), ("box", (49, 48))):
        tracker.add_prompt(name, points=[point], labels=[1])
    ious = []
    for image, masks in zip(clip.images_thwc, clip.masks_tnhw, strict=True):
        result = tracker.step(image)
        for name, truth in zip(("disc", "box"), masks, strict=True):
            found = result[name].mask
            ious.append((found & truth).sum() / (found | truth).sum())
    assert np.mean(ious) > 0.9, f"IoU by frame and object: {np.round(ious, 2)}"
