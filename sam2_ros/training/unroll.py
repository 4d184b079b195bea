"""The tracker over a short clip, differentiable: prompts on the first frame, memory after it (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.memory_tokens import FrameMemory, gather_tokens
from sam2_ros.training.batches import TrainingBatch
from sam2_ros.training.config import PromptMix
from sam2_ros.training.losses import Losses, iou_of_masks, mask_losses
from sam2_ros.training.prompts import add_corrective_click, box_prompts, click_prompts


@dataclass(frozen=True)
class UnrollResult:
    losses: Losses
    click_iou: float  # mean IoU after one click in frame 0; NaN without clicked objects
    last_iou: float  # mean IoU in the last frame, over objects visible there; NaN if none is


def unroll(
    model: SAM2, batch: TrainingBatch, mix: PromptMix, generator: torch.Generator, loss_size_px: int
) -> UnrollResult:
    """Run the model over the batch's clips as the tracker would, and sum the losses over frames.

    Args:
        model: with the stability fallback off.
        batch: clips, and objects visible in their first frame.
        mix: how objects are prompted.
        generator: for all random choices.
        loss_size_px: masks are compared at this square size.
    """
    num_frames, num_clips = batch.images_tcchw.shape[:2]
    every = model.encode_image(batch.images_tcchw.flatten(0, 1))
    targets = F.interpolate(batch.masks_tm1hw.flatten(0, 1), (loss_size_px, loss_size_px), mode="area")
    targets_tm1hw = (targets > 0.5).float().unflatten(0, (num_frames, -1))
    policy = BankPolicy(model.config.num_spatial_memories, model.config.max_pointers)
    frames: dict[int, FrameMemory] = {}
    losses: list[Losses] = []
    click_iou = float("nan")
    for t in range(num_frames):
        features = _select(every, t * num_clips + batch.clip_of_object_m)
        if t == 0:
            first = _prompted_frame(model, features, batch.masks_tm1hw[0], targets_tm1hw[0], mix, generator)
            prediction, click_iou = first.prediction, first.click_iou
            losses += first.losses
        else:
            selection = policy.select(t, conditioning=(0,), recent=range(1, t))
            conditioned = model.attend_to_memory(features, gather_tokens(model, selection, frames))
            prediction = model.decode_masks(conditioned, features)
            losses.append(_losses_of(prediction, targets_tm1hw[t]))
            losses += _as_single_image(model, features, batch.masks_tm1hw[t], targets_tm1hw[t], mix, generator)
        if t < num_frames - 1:
            memory = model.encode_memory(
                features, prediction.logits_b1hw, prediction.object_score_logits_b1, prompted=t == 0
            )
            frames[t] = FrameMemory(memory, prediction.pointer_bc)
    total = losses[0]
    for more in losses[1:]:
        total = total + more
    return UnrollResult(total, click_iou, _mean_visible_iou(prediction, targets_tm1hw[-1]))


@dataclass(frozen=True)
class _FirstFrame:
    prediction: MaskPrediction  # of all objects, in their order
    losses: list[Losses]
    click_iou: float


def _prompted_frame(
    model: SAM2, features: ImageFeatures, masks_m1hw: Tensor, targets_m1hw: Tensor, mix: PromptMix, rng: torch.Generator
) -> _FirstFrame:
    """Objects in order: some given as masks, some as boxes, the rest as clicks."""
    count = masks_m1hw.shape[0]
    # Rounded at random, so that every kind comes up even in a batch of one.
    jitter = torch.rand(2, generator=rng)
    num_masks = int(count * mix.mask + jitter[0])
    num_boxes = min(int(count * mix.box + jitter[1]), count - num_masks)
    predictions: list[MaskPrediction] = []
    losses: list[Losses] = []
    click_iou = float("nan")
    groups = torch.arange(count).split([num_masks, num_boxes, count - num_masks - num_boxes])
    for kind, rows in zip(("mask", "box", "click"), groups, strict=True):
        if not len(rows):
            continue
        group, masks, targets = _select(features, rows), masks_m1hw[rows], targets_m1hw[rows]
        if kind == "mask":
            predictions.append(model.adopt_mask(group, masks))
            continue
        rounds = _prompt_rounds(model, group, masks, kind == "click", mix, rng)
        losses += [_scaled(_losses_of(prediction, targets), len(rows) / count) for prediction in rounds]
        predictions.append(rounds[-1])
        if kind == "click":
            click_iou = _mean_visible_iou(rounds[0], targets)
    return _FirstFrame(_concatenate(predictions), losses, click_iou)


def _prompt_rounds(
    model: SAM2, features: ImageFeatures, masks_b1hw: Tensor, click: bool, mix: PromptMix, rng: torch.Generator
) -> list[MaskPrediction]:
    """Segment from a click or a box alone; after a click perhaps once more with a corrective click."""
    points = click_prompts(masks_b1hw, rng) if click else box_prompts(masks_b1hw, rng)
    conditioned = model.without_memory(features)
    rounds = [model.decode_masks(conditioned, features, points, multimask=click)]
    if click and torch.rand((), generator=rng) < mix.correction_probability:
        logits = rounds[0].logits_b1hw.detach()
        predicted = F.interpolate(logits, masks_b1hw.shape[2:], mode="bilinear", align_corners=False) > 0
        points = add_corrective_click(points, predicted, masks_b1hw, rng)
        rounds.append(model.decode_masks(conditioned, features, points, logits.clamp(-32, 32), multimask=False))
    return rounds


def _as_single_image(
    model: SAM2, features: ImageFeatures, masks_m1hw: Tensor, targets_m1hw: Tensor, mix: PromptMix, rng: torch.Generator
) -> list[Losses]:
    """A later frame once more, as an image: clicks on half of its visible objects, boxes on the rest.

    The decoder is cheap beside the encoder, and prompts are what takes longest to learn.
    """
    visible = torch.nonzero(targets_m1hw.flatten(1).any(1) & masks_m1hw.flatten(1).any(1))[:, 0]
    losses: list[Losses] = []
    for click, rows in ((True, visible[::2]), (False, visible[1::2])):
        if len(rows):
            rounds = _prompt_rounds(model, _select(features, rows), masks_m1hw[rows], click, mix, rng)
            losses += [_scaled(_losses_of(p, targets_m1hw[rows]), 0.5 * mix.image_weight) for p in rounds]
    return losses


def _select(features: ImageFeatures, rows: Tensor) -> ImageFeatures:
    return ImageFeatures(features.top_bchw[rows], features.stride8_bchw[rows], features.stride4_bchw[rows])


def _concatenate(parts: list[MaskPrediction]) -> MaskPrediction:
    """Only what memory needs: candidates differ in number between kinds of prompts."""
    logits = torch.cat([part.logits_b1hw for part in parts])
    iou_b = torch.cat([part.iou_b.float() for part in parts])
    return MaskPrediction(
        logits,
        torch.cat([part.pointer_bc.float() for part in parts]),
        torch.cat([part.object_score_logits_b1.float() for part in parts]),
        iou_b,
        logits,
        iou_b[:, None],
    )


def _losses_of(prediction: MaskPrediction, targets_b1hw: Tensor) -> Losses:
    return mask_losses(
        prediction.candidates_bmhw, prediction.candidate_ious_bm, prediction.object_score_logits_b1, targets_b1hw
    )


def _scaled(losses: Losses, factor: float) -> Losses:
    return Losses(losses.focal * factor, losses.dice * factor, losses.iou * factor, losses.presence * factor)


def _mean_visible_iou(prediction: MaskPrediction, targets_b1hw: Tensor) -> float:
    logits = F.interpolate(
        prediction.logits_b1hw.detach().float(), targets_b1hw.shape[2:], mode="bilinear", align_corners=False
    )
    iou_b1 = iou_of_masks(logits.flatten(2), targets_b1hw.flatten(2))
    visible = targets_b1hw.flatten(1).any(1)
    return float(iou_b1[visible].mean()) if visible.any() else float("nan")
