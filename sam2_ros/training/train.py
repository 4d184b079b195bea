"""The training loop: stages of clips, AdamW, an average of the weights, and checkpoints to go on from."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sam2_ros.data.synthetic import PhotoLibrary, SyntheticClips
from sam2_ros.model.config import model_config
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.model.sam2 import SAM2
from sam2_ros.training.batches import stream_batches
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.pretrained import load_imagenet_lite0
from sam2_ros.training.unroll import UnrollResult, unroll

_log = logging.getLogger(__name__)
_SEEDS_PER_STEP = 64  # clip seeds set aside for each step, so that stages and resumed runs see fresh clips
_LOG_COLUMNS = ("step", "stage", "loss", "focal", "dice", "iou", "presence", "click_iou", "last_iou", "lr", "seconds")


@dataclass
class _Run:
    """Everything that a checkpoint holds."""

    model: SAM2
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0


def build_for_training(config: TrainConfig, image_size: int) -> SAM2:
    """A fresh model of the config, at the given input size, trunk from ImageNet where a file is named."""
    torch.manual_seed(config.seed)
    model = SAM2(model_config(config.model, image_size))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):  # the released 1e-6 start is for long schedules
            nn.init.constant_(parameter, 0.1)
    _let_points_find_pixels(model)
    trunk = model.image_encoder.trunk
    if config.imagenet_trunk:
        if not isinstance(trunk, EfficientNetLite):
            raise ValueError(f"imagenet_trunk is for EfficientNet trunks; {config.model} has {type(trunk).__name__}")
        load_imagenet_lite0(trunk, Path(config.imagenet_trunk))
        # Its maps have a deviation of about 8 where the heads, whose residual streams start here, expect about 1.
        with torch.no_grad():
            for name, parameter in model.image_encoder.neck.named_parameters():
                if name.endswith("weight"):
                    parameter.mul_(1 / 8)
    return model


@dataclass(frozen=True)
class _Workers:
    """This process among those that train together (``torchrun``); alone without it."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> _Workers:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    def average_gradients(self, model: nn.Module) -> None:
        """One exchange a step for all gradients; a parameter that none used has one of zero."""
        if self.count == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = (part / self.count).view_as(parameter)


@torch.no_grad()
def _let_points_find_pixels(model: SAM2) -> None:
    """Start the decoder's cross-attention with equal query and key projections.

    A click and its pixel have the same position encoding, so from the first step their product is largest there.
    With unrelated projections clicks had not been learned after a thousand steps.
    """
    decoder = model.sam_mask_decoder
    for name, query in decoder.transformer.named_parameters():
        if name.endswith("q_proj.weight") and "token" in name:  # token to image or image to token
            nn.init.orthogonal_(query)
            decoder.transformer.get_parameter(name.replace("q_proj", "k_proj")).copy_(query)
    last = len(decoder.iou_prediction_head.layers) - 1
    nn.init.zeros_(decoder.iou_prediction_head.get_parameter(f"layers.{last}.weight"))


def train(config: TrainConfig, out: Path) -> Path:
    """Run (or go on with) the training described by ``config``.

    Under ``torchrun`` each process takes its share of every batch, and all make the same update.

    Args:
        config: stages and data.
        out: folder for ``last.pt`` (to resume), ``weights.pt`` (averaged weights, a plain state dict in float16)
            and ``log.csv``.

    Returns:
        The path of the averaged weights.
    """
    torch.set_num_threads(config.threads)
    workers = _Workers.join()
    out.mkdir(parents=True, exist_ok=True)
    library = PhotoLibrary.from_folders([Path(root) for root in config.photo_roots], config.photo_weights or None)
    _log.info("%d photographs; %d steps in %d stages", len(library), config.total_steps, len(config.stages))
    model = build_for_training(config, config.stages[0].size_px)
    model.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(model, {k: v.clone() for k, v in model.state_dict().items()}, _optimizer(model, config))
    _resume(run, out / "last.pt")
    first_step = 0
    for index, stage in enumerate(config.stages):
        if run.step < first_step + stage.steps:
            _set_image_size(model, stage.size_px)
            _run_stage(run, config, stage, _Place(index, first_step, out, workers), library)
        first_step += stage.steps
    if workers.rank == 0:
        # Half precision: half as large to ship, and what the model card's scores were measured with.
        torch.save({name: value.half() for name, value in run.ema.items()}, out / "weights.pt")
    return out / "weights.pt"


def _optimizer(model: SAM2, config: TrainConfig) -> torch.optim.AdamW:
    trunk = list(model.image_encoder.trunk.parameters())
    in_trunk = {id(p) for p in trunk}
    decayed = [p for p in model.parameters() if id(p) not in in_trunk and p.ndim > 1]
    plain = [p for p in model.parameters() if id(p) not in in_trunk and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": trunk, "weight_decay": config.weight_decay, "is_trunk": True},
    ]
    return torch.optim.AdamW(groups, lr=0.0)


def _set_image_size(model: SAM2, size_px: int) -> None:
    """No weight depends on the input size; only these two places know it."""
    model.config = model_config(model.config.name, size_px)
    model.sam_prompt_encoder.image_size = size_px


@dataclass(frozen=True)
class _Place:
    """Where a stage stands in the whole run."""

    stage: int
    first_step: int
    out: Path
    workers: _Workers


def _run_stage(run: _Run, config: TrainConfig, stage: Stage, place: _Place, library: PhotoLibrary) -> None:
    workers = place.workers
    clips = SyntheticClips(library, stage.size_px, stage.frames)
    run.model.image_encoder.trunk.requires_grad_(stage.trunk_lr > 0)
    remaining = place.first_step + stage.steps - run.step
    share = max(1, stage.clips_per_batch // workers.count)
    first_seed = (config.seed * 10**6 + run.step) * _SEEDS_PER_STEP + workers.rank * remaining * share
    started, seconds_before = time.monotonic(), run.seconds
    for batch in stream_batches(clips, first_seed, remaining, share, config.workers):
        scale = _schedule(run.step - place.first_step, stage)
        for group in run.optimizer.param_groups:
            group["lr"] = scale * (stage.trunk_lr if group.get("is_trunk") else stage.lr)
        generator = torch.Generator().manual_seed((config.seed * 10**6 + run.step) * workers.count + workers.rank)
        with torch.autocast("cpu", torch.bfloat16):
            result = unroll(run.model, batch, config.prompts, generator, stage.size_px // 2)
        _update(run, result.losses.total, config, workers)
        run.step += 1
        run.seconds = seconds_before + time.monotonic() - started
        if workers.rank == 0 and run.step % config.log_every == 0:
            _write_log(run, place.stage, scale * stage.lr, result, place.out / "log.csv", config.total_steps)
        if workers.rank == 0 and run.step % config.save_every == 0:
            _save(run, place.out / "last.pt")
    if workers.rank == 0:
        _save(run, place.out / "last.pt")


def _schedule(step: int, stage: Stage) -> float:
    """Share of the stage's learning rate at this step: linear warm-up, then a cosine down to ``lr_end``."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    floor = stage.lr_end / stage.lr
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def _update(run: _Run, loss: Tensor, config: TrainConfig, workers: _Workers) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    workers.average_gradients(run.model)
    # After the exchange, so that all processes come to the same decision.
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        _log.warning("step %d: the gradient's norm is %s; this batch is left out", run.step, float(norm))
        return
    run.optimizer.step()
    # A young average would remember the random start for long.
    decay = min(config.ema_decay, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for name, value in run.model.state_dict().items():
            run.ema[name].lerp_(value, 1 - decay)


def _write_log(run: _Run, stage: int, lr: float, result: UnrollResult, path: Path, total_steps: int) -> None:
    losses = result.losses
    values = (
        *(float(x.detach()) for x in (losses.total, losses.focal, losses.dice, losses.iou, losses.presence)),
        result.click_iou,
        result.last_iou,
    )
    row = (run.step, stage, *(f"{v:.4f}" for v in values), f"{lr:.2e}", f"{run.seconds:.0f}")
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(_LOG_COLUMNS)
        writer.writerow(row)
    _log.info(
        "step %d/%d " + " ".join(f"{c} {v}" for c, v in zip(_LOG_COLUMNS[2:], row[2:], strict=True)),
        run.step,
        total_steps,
    )


def _save(run: _Run, path: Path) -> None:
    """Written aside and renamed, so that a run killed while saving keeps the earlier file."""
    state = {
        "model": run.model.state_dict(),
        "ema": run.ema,
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "seconds": run.seconds,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _resume(run: _Run, path: Path) -> None:
    if not path.exists():
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    run.model.load_state_dict(state["model"])
    run.ema = state["ema"]
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.seconds = state["step"], state["seconds"]
    _log.info("going on at step %d from %s", run.step, path)
