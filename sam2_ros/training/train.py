"""The training loop: stages of clips, AdamW, an average of the weights, and checkpoints to resume from."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam2_ros.model.config import model_config
from sam2_ros.tracking.loading import has_fast_bfloat16
from sam2_ros.training.batches import CLIPS_PER_STEP, OBJECTS_PER_CLIP, TrainingBatch, stream_batches
from sam2_ros.training.build import build_for_training, set_image_size
from sam2_ros.training.config import AUTO, Stage, TrainConfig
from sam2_ros.training.journal import Journal
from sam2_ros.training.prompting import PromptPlan
from sam2_ros.training.recompute import recompute_activations
from sam2_ros.training.run_state import Run, TrainingFailedError
from sam2_ros.training.sources import TrainingData, objects_of
from sam2_ros.training.unroll import UnrollResult, unroll
from sam2_ros.training.workers import Workers

_log = logging.getLogger(__name__)
_STEPS_PER_SEED = 10**6  # so that two seeds of a run share no clip
MAX_FAILED_IN_A_ROW = 20


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
    """Run (or resume) the training described by ``config``.

    Under ``torchrun`` each process takes its share of every batch, and all make the same update.

    Args:
        config: stages and data.
        out: folder for ``last.pt`` (to resume), ``weights.pt`` (averaged weights, a plain state dict in float16)
            and ``log.csv``. The first two are written every ``save_every`` steps; with ``keep_every`` some of the
            averaged weights stay as ``weights_<step>.pt``.

    Returns:
        The path of the averaged weights.

    Raises:
        ValueError: a setting that cannot work, or weights that do not fit.
        TrainingFailedError: weights, or many gradients in a row, are not finite.
    """
    torch.set_num_threads(config.threads)
    workers = Workers.join(config.device)
    device = workers.device(config.device)
    out.mkdir(parents=True, exist_ok=True)
    data = TrainingData(config)
    _check_stages(config, data, workers)
    _log.info("%s; %d steps in %d stages", data.describe(), config.total_steps, len(config.stages))
    model = build_for_training(config, config.stages[0].sizes_px[0]).to(device)
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.recompute:
        recompute_activations(model)
    run = Run.start(model, config)
    run.resume(out / "last.pt", device)
    journal = Journal(out, run.step, config) if workers.rank == 0 else None
    if run.step >= config.total_steps:
        _log.warning("%s has all its steps already: nothing is trained; a new run needs another folder", out)
    first_step = 0
    for index, stage in enumerate(config.stages):
        if run.step < first_step + stage.steps:
            _run_stage(run, config, stage, _Place(index, first_step, out, workers, device, journal), data)
        first_step += stage.steps
        if workers.rank == 0:
            run.save(out)
    return out / "weights.pt"


def _check_stages(config: TrainConfig, data: TrainingData, workers: Workers) -> None:
    """Find errors in any stage before the first one starts, instead of hours later."""
    for stage in config.stages:
        if not 0 < stage.clips_per_batch <= CLIPS_PER_STEP:
            raise ValueError(f"clips_per_batch: expected 1 to {CLIPS_PER_STEP}, got {stage.clips_per_batch}")
        workers.share(stage.clips_per_batch)
        if max(stage.objects_per_clip, stage.objects_per_image) > OBJECTS_PER_CLIP:
            got = f"{stage.objects_per_clip} and {stage.objects_per_image}"
            raise ValueError(f"objects_per_clip and objects_per_image: expected 1 to {OBJECTS_PER_CLIP}, got {got}")
        for size_px in stage.sizes_px:
            model_config(config.model, size_px)
        data.clips(stage)


def _run_stage(run: Run, config: TrainConfig, stage: Stage, place: _Place, data: TrainingData) -> None:
    first_seed = config.seed * _STEPS_PER_SEED
    steps = range(run.step, place.first_step + stage.steps)
    mine = place.workers.share(stage.clips_per_batch)
    started, seconds_before = time.monotonic(), run.seconds
    max_objects = partial(objects_of, stage)
    for batch in stream_batches(data.clips(stage), first_seed, steps, mine, max_objects, config.workers):
        scale = _schedule(run.step - place.first_step, stage)
        for group in run.optimizer.param_groups:
            group["lr"] = scale * (stage.trunk_lr if group.get("is_trunk") else stage.lr)
        frames = len(batch.images_tcchw)
        run.model.image_encoder.trunk.requires_grad_(stage.trunk_lr > 0 and (frames == 1 or stage.trunk_in_clips))
        plan = PromptPlan.draw(config.prompts, frames, torch.Generator().manual_seed(first_seed + run.step))
        result = _forward(run, batch.to(place.device), plan, config)
        _update(run, result.losses.total, len(batch.object_seeds), config, place.workers)
        run.step += 1
        run.seconds = seconds_before + time.monotonic() - started
        if place.journal is not None:
            place.journal.note(run.step, place.stage, scale * stage.lr, result, run.seconds)
            if run.step % config.save_every == 0:
                run.save(place.out, keep=config.keep_every > 0 and run.step % config.keep_every == 0)


def _forward(run: Run, batch: TrainingBatch, plan: PromptPlan, config: TrainConfig) -> UnrollResult:
    size_px = batch.images_tcchw.shape[-1]
    set_image_size(run.model, size_px)
    device = batch.images_tcchw.device
    with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(config.bf16, device)):
        return unroll(run.model, batch, config.prompts, plan, size_px // 2)


def computes_in_bfloat16(wanted: bool | str, device: torch.device) -> bool:
    """What a config's ``bf16`` means on a device.

    With "auto" a CPU trains in bfloat16 only where it has AMX: without instructions for it autocast took nine times as
    long (measured, AVX2), and with those of AVX-512 as long as float32 or longer (nano, one Zen core: 2.9 s a step
    beside 2.1 to 3.0 s).
    """
    if wanted != AUTO:
        return bool(wanted)
    if device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions
        return bool(capabilities.get("amx_bf16", False))
    return has_fast_bfloat16(device)


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
        run.failed_in_a_row += 1
        _log.warning("step %d: the gradient's norm is %s; this batch is left out", run.step, float(norm))
        if run.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise TrainingFailedError(
                f"step {run.step}: the gradients of {run.failed_in_a_row} batches in a row are not finite; "
                "expected a run that learns: try a lower lr, a smaller clip_norm, or bf16: false"
            )
        return
    run.failed_in_a_row = 0
    run.optimizer.step()
    run.average(config.ema_decay)
