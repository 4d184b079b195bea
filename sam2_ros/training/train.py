"""The training loop: stages of clips, AdamW, an average of the weights, and checkpoints to go on from."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam2_ros.model.config import model_config
from sam2_ros.training.batches import CLIPS_PER_STEP, TrainingBatch, stream_batches
from sam2_ros.training.build import build_for_training, set_image_size
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.journal import Journal
from sam2_ros.training.prompting import PromptPlan
from sam2_ros.training.recompute import recompute_activations
from sam2_ros.training.run_state import Run
from sam2_ros.training.sources import TrainingData
from sam2_ros.training.unroll import UnrollResult, unroll
from sam2_ros.training.workers import Workers

_log = logging.getLogger(__name__)
_STEPS_PER_SEED = 10**6  # so that two seeds of a run share no clip


@dataclass(frozen=True)
class _Place:
    """Where a stage stands in the whole run."""

    stage: int
    first_step: int
    out: Path
    workers: Workers
    device: torch.device
    journal: Journal | None  # of the first process only


def train(config: TrainConfig, out: Path) -> Path:
    """Run (or go on with) the training described by ``config``.

    Under ``torchrun`` each process takes its share of every batch, and all make the same update.

    Args:
        config: stages and data.
        out: folder for ``last.pt`` (to resume), ``weights.pt`` (averaged weights, a plain state dict in float16)
            and ``log.csv``.

    Returns:
        The path of the averaged weights.

    Raises:
        ValueError: a setting that cannot work, or weights that do not fit.
    """
    torch.set_num_threads(config.threads)
    workers = Workers.join(config.device)
    device = workers.device(config.device)
    out.mkdir(parents=True, exist_ok=True)
    data = TrainingData(config)
    _check_stages(config, data, workers)
    _log.info("%s; %d steps in %d stages", data.describe(), config.total_steps, len(config.stages))
    model = build_for_training(config, config.stages[0].size_px).to(device)
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.recompute:
        recompute_activations(model)
    run = Run.start(model, config)
    run.resume(out / "last.pt", device)
    journal = Journal(out, run.step, config.total_steps, config.tensorboard) if workers.rank == 0 else None
    if run.step >= config.total_steps:
        _log.warning("%s has all its steps already: nothing is trained; a new run needs another folder", out)
    first_step = 0
    for index, stage in enumerate(config.stages):
        if run.step < first_step + stage.steps:
            set_image_size(model, stage.size_px)
            _run_stage(run, config, stage, _Place(index, first_step, out, workers, device, journal), data)
        first_step += stage.steps
    if workers.rank == 0:
        # Half precision: half as large to ship, and what the model card's scores were measured with.
        torch.save({name: value.half().cpu() for name, value in run.ema.items()}, out / "weights.pt")
    return out / "weights.pt"


def _check_stages(config: TrainConfig, data: TrainingData, workers: Workers) -> None:
    """What would end a later stage, told before the first: that can be hours earlier."""
    for stage in config.stages:
        if not 0 < stage.clips_per_batch <= CLIPS_PER_STEP:
            raise ValueError(f"clips_per_batch: expected 1 to {CLIPS_PER_STEP}, got {stage.clips_per_batch}")
        workers.share(stage.clips_per_batch)
        model_config(config.model, stage.size_px)
        data.clips(stage)


def _run_stage(run: Run, config: TrainConfig, stage: Stage, place: _Place, data: TrainingData) -> None:
    run.model.image_encoder.trunk.requires_grad_(stage.trunk_lr > 0)
    first_seed = config.seed * _STEPS_PER_SEED
    steps = range(run.step, place.first_step + stage.steps)
    mine = place.workers.share(stage.clips_per_batch)
    started, seconds_before = time.monotonic(), run.seconds
    for batch in stream_batches(data.clips(stage), first_seed, steps, mine, stage.objects_per_clip, config.workers):
        scale = _schedule(run.step - place.first_step, stage)
        for group in run.optimizer.param_groups:
            group["lr"] = scale * (stage.trunk_lr if group.get("is_trunk") else stage.lr)
        plan = PromptPlan.draw(config.prompts, stage.frames, torch.Generator().manual_seed(first_seed + run.step))
        result = _forward(run, batch.to(place.device), plan, config, stage)
        _update(run, result.losses.total, len(batch.object_seeds), config, place.workers)
        run.step += 1
        run.seconds = seconds_before + time.monotonic() - started
        if place.journal is not None and run.step % config.log_every == 0:
            place.journal.write(run.step, place.stage, scale * stage.lr, result, run.seconds)
        if place.workers.rank == 0 and run.step % config.save_every == 0:
            run.save(place.out / "last.pt")
    if place.workers.rank == 0:
        run.save(place.out / "last.pt")


def _forward(run: Run, batch: TrainingBatch, plan: PromptPlan, config: TrainConfig, stage: Stage) -> UnrollResult:
    with torch.autocast(batch.images_tcchw.device.type, torch.bfloat16, enabled=config.bf16):
        return unroll(run.model, batch, config.prompts, plan, stage.size_px // 2)


def _schedule(step: int, stage: Stage) -> float:
    """Share of the stage's learning rate at this step: linear warm-up, then a cosine down to ``lr_end``."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    floor = stage.lr_end / stage.lr
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def _update(run: Run, loss: Tensor, num_objects: int, config: TrainConfig, workers: Workers) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    workers.average_gradients(run.model, num_objects)
    # After the exchange, so that all processes come to the same decision.
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        _log.warning("step %d: the gradient's norm is %s; this batch is left out", run.step, float(norm))
        return
    run.optimizer.step()
    run.average(config.ema_decay)
