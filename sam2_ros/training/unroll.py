"""The tracker over a short clip, differentiable: prompts on the first frame, memory after it (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.memory_tokens import FrameMemory, gather_tokens
from sam2_ros.training.batches import TrainingBatch
from sam2_ros.training.config import PromptMix
from sam2_ros.training.losses import Losses, iou_of_masks, mask_losses
from sam2_ros.training.prompting import PromptedObjects, PromptPlan, Scene, correct, prompt_objects, select


@dataclass(frozen=True)
class UnrollResult:
    losses: Losses
    click_iou: float  # mean IoU after one click in frame 0; NaN without clicked objects
    last_iou: float  # mean IoU in the last frame, over objects visible there; NaN if none is


def unroll(model: SAM2, batch: TrainingBatch, mix: PromptMix, plan: PromptPlan, loss_size_px: int) -> UnrollResult:
    """Run the model over the batch's clips as the tracker would; the mean over objects of the sum over frames.

    Args:
        model: with the stability fallback off.
        batch: clips, and objects visible in their first frame.
        mix: how objects are prompted.
        plan: which frames are corrected, for all of them.
        loss_size_px: masks are compared at this square size.
    """
    num_frames, count = batch.images_tcchw.shape[0], len(batch.clip_of_object_m)
    targets = F.interpolate(batch.masks_tm1hw.flatten(0, 1), (loss_size_px, loss_size_px), mode="area")
    targets_tm1hw = (targets > 0.5).float().unflatten(0, (num_frames, -1))
    generators = [torch.Generator().manual_seed(seed) for seed in batch.object_seeds]
    features_of_clips = [model.encode_image(images) for images in batch.images_tcchw]
    policy = BankPolicy.of(model.config)
    conditioning = [0]
    frames: dict[int, FrameMemory] = {}
    losses: list[Losses] = []
    click_iou = float("nan")
    for t in range(num_frames):
        scene = Scene(select(features_of_clips[t], batch.clip_of_object_m), batch.masks_tm1hw[t], generators)
        if t == 0:
            # Of a single image a given mask would leave nothing to learn.
            mask_share = mix.mask if num_frames > 1 else 0.0
            prompted = prompt_objects(model, scene, mask_share, mix.box, plan.corrections[0], mix)
            losses += _prompt_losses(prompted, targets_tm1hw[0], count)
            prediction = _in_order(prompted)
            if "click" in prompted:
                clicked = prompted["click"]
                click_iou = _mean_visible_iou(clicked.rounds[0], targets_tm1hw[0, clicked.rows])
        else:
            selection = policy.select(t, conditioning, recent=[f for f in range(1, t) if f not in conditioning])
            conditioned = model.attend_to_memory(scene.features, gather_tokens(model, selection, frames))
            rounds = [model.decode_masks(conditioned, scene.features)]
            if t == plan.later_frame:
                rounds += correct(model, scene, conditioned, rounds[0], None, plan.later_corrections, mix)
                conditioning.append(t)
            prediction = rounds[-1]
            losses += [_losses_of(made, targets_tm1hw[t]) for made in rounds]
            losses += _as_single_image(model, scene, targets_tm1hw[t], plan.corrections[t], mix)
        if t < num_frames - 1:
            memory = model.encode_memory(
                scene.features, prediction.logits_b1hw, prediction.object_score_logits_b1, prompted=t in conditioning
            )
            frames[t] = FrameMemory(memory, prediction.pointer_bc)
    total = losses[0]
    for more in losses[1:]:
        total = total + more
    return UnrollResult(total, click_iou, _mean_visible_iou(prediction, targets_tm1hw[-1]))


def _as_single_image(model: SAM2, scene: Scene, targets_m1hw: Tensor, corrections: int, mix: PromptMix) -> list[Losses]:
    """A later frame once more, as an image: a click or a box for each of its visible objects.

    The decoder is cheap beside the encoder, and prompts are what takes longest to learn.
    """
    visible = torch.nonzero(targets_m1hw.flatten(1).any(1) & scene.masks_b1hw.flatten(1).any(1))[:, 0]
    if not len(visible) or not mix.image_weight:
        return []
    prompted = prompt_objects(model, scene.of(visible), 0.0, 0.5, corrections, mix)
    losses = _prompt_losses(prompted, targets_m1hw[visible], len(targets_m1hw))
    return [loss.scaled(mix.image_weight) for loss in losses]


def _prompt_losses(prompted: dict[str, PromptedObjects], targets_b1hw: Tensor, count: int) -> list[Losses]:
    """Of every round of every object that was not given as a mask, as shares of the mean over ``count`` objects."""
    return [
        _losses_of(prediction, targets_b1hw[group.rows]).scaled(len(group.rows) / count)
        for kind, group in prompted.items()
        if kind != "mask"
        for prediction in group.rounds
    ]


def _in_order(prompted: dict[str, PromptedObjects]) -> MaskPrediction:
    """The last predictions of all objects, in their order. Candidates are left out: they differ in number."""
    parts = [group.rounds[-1] for group in prompted.values()]
    order = torch.cat([group.rows for group in prompted.values()]).argsort()
    logits = torch.cat([part.logits_b1hw for part in parts])[order]
    iou_b = torch.cat([part.iou_b.float() for part in parts])[order]
    return MaskPrediction(
        logits,
        torch.cat([part.pointer_bc.float() for part in parts])[order],
        torch.cat([part.object_score_logits_b1.float() for part in parts])[order],
        iou_b,
        logits,
        iou_b[:, None],
    )


def _losses_of(prediction: MaskPrediction, targets_b1hw: Tensor) -> Losses:
    return mask_losses(
        prediction.candidates_bmhw, prediction.candidate_ious_bm, prediction.object_score_logits_b1, targets_b1hw
    )


def _mean_visible_iou(prediction: MaskPrediction, targets_b1hw: Tensor) -> float:
    logits = F.interpolate(
        prediction.logits_b1hw.detach().float(), targets_b1hw.shape[2:], mode="bilinear", align_corners=False
    )
    iou_b1 = iou_of_masks(logits.flatten(2), targets_b1hw.flatten(2))
    visible = targets_b1hw.flatten(1).any(1)
    return float(iou_b1[visible].mean()) if visible.any() else float("nan")
