"""What a run carries from step to step: the optimizer's groups and the average of the weights."""

from __future__ import annotations

import pytest
import torch

from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.training.build import build_for_training
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.run_state import Run

pytestmark = pytest.mark.numeric

STAGE = Stage(steps=1, size_px=64, frames=1, clips_per_batch=1, lr=1e-3, lr_end=0.0)


@pytest.fixture
def config(tiny_entry: str) -> TrainConfig:
    return TrainConfig(tiny_entry, (STAGE,), (PhotoFolder("unused"),), weight_decay=0.05, ema_decay=0.99)


def test_only_weights_of_several_axes_decay(config: TrainConfig) -> None:
    """Norms and biases are left alone, in the trunk too: pulling them to 0 shifts what is normal."""
    run = Run.start(build_for_training(config, 64), config)
    decay_of = {id(p): group["weight_decay"] for group in run.optimizer.param_groups for p in group["params"]}
    parameters = dict(run.model.named_parameters())
    assert len(decay_of) == len(parameters), "a parameter is in no group, or in two"
    for name, parameter in parameters.items():
        assert decay_of[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name


def test_the_trunks_groups_are_the_trunks(config: TrainConfig) -> None:
    run = Run.start(build_for_training(config, 64), config)
    trunk = {id(p) for p in run.model.image_encoder.trunk.parameters()}
    in_groups = {id(p) for group in run.optimizer.param_groups if group.get("is_trunk") for p in group["params"]}
    assert in_groups == trunk


def test_a_young_average_forgets_the_random_start(config: TrainConfig) -> None:
    """After n steps it counts as if it were n steps old, until the decay is the slower: (1 + n) / (10 + n)."""
    run = Run.start(build_for_training(config, 64), config)
    name, weight = next(iter(run.model.named_parameters()))
    with torch.no_grad():
        run.ema[name].zero_()
        weight.fill_(1.0)
    kept = 1.0
    for step in range(4):
        run.step = step
        run.average(config.ema_decay)
        kept *= (1 + step) / (10 + step)
        torch.testing.assert_close(run.ema[name], torch.full_like(weight, 1 - kept), rtol=0, atol=1e-5)
    run.step = 10_000
    before = run.ema[name].clone()
    run.average(config.ema_decay)
    torch.testing.assert_close(run.ema[name], torch.lerp(before, weight.detach(), 0.01), rtol=0, atol=1e-6)
