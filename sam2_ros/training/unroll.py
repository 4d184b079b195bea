"""The tracker over a short clip, differentiable: prompts on the first frame, memory after it (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, gather_tokens
from sam2_ros.training.batches import TrainingBatch
from sam2_ros.training.config import PromptMix
from sam2_ros.training.losses import Losses, iou_of_masks, mask_losses
from sam2_ros.training.prompting import PromptedObjects, PromptPlan, Round, Scene, correct, prompt_objects, select


@dataclass(frozen=True)
class UnrollResult:
    losses: Losses
    click_iou: float  # mean IoU after one click in frame 0; NaN without clicked objects
    last_iou: float  # mean IoU in the last frame, over objects visible there; NaN if none is


@dataclass(frozen=True)
class _Targets:
    """What one frame should show of each object."""

    masks_b1hw: Tensor  # (B, 1, h, w) share of each loss pixel that the object covers, 0..1
    present_b: Tensor  # (B,) bool, from the mask at the image's own size: a thin part is there, however thin

    def of(self, rows: Tensor) -> _Targets:
        return _Targets(self.masks_b1hw[rows], self.present_b[rows])


def unroll(model: SAM2, batch: TrainingBatch, mix: PromptMix, plan: PromptPlan, loss_size_px: int) -> UnrollResult:
    """Run the model over the batch's clips as the tracker would; the mean over objects of the sum over frames.

    Every frame counts once: the rounds of a prompted frame share its weight, and prompts on later frames weigh
    ``mix.image_weight``, so that most of the gradient is tracking's.

    Args:
        model: with the stability fallback off.
        batch: clips, and objects visible in their first frame.
        mix: how objects are prompted.
        plan: which frames are corrected, for all of them.
        loss_size_px: masks are compared at this square size.
    """
    num_frames, count = batch.images_tcchw.shape[0], len(batch.clip_of_object_m)
    targets_t = [_targets_of(masks_m1hw, loss_size_px) for masks_m1hw in batch.masks_tm1hw]
    generators = [torch.Generator().manual_seed(seed) for seed in batch.object_seeds]
    features_of_clips = [model.encode_image(images) for images in batch.images_tcchw]
    policy = BankPolicy.of(model.config)
    frames: dict[int, FrameMemory] = {}
    losses: list[Losses] = []
    click_iou = float("nan")
    for t in range(num_frames):
        scene = Scene(select(features_of_clips[t], batch.clip_of_object_m), batch.masks_tm1hw[t], generators)
        if t == 0:
            # In a single image a mask prompt would leave nothing to learn.
            mask_share = mix.mask if num_frames > 1 else 0.0
            prompted = prompt_objects(model, scene, mask_share, mix.box, plan.corrections[0], mix)
            losses += _prompt_losses(model, prompted, targets_t[0], count)
            prediction = _in_order(prompted)
            if "click" in prompted:
                clicked = prompted["click"]
                click_iou = _mean_visible_iou(clicked.rounds[0].prediction, targets_t[0].of(clicked.rows))
        else:
            selection = policy.select(t, conditioning=[0], recent=range(1, t))
            conditioned = model.attend_to_memory(scene.features, gather_tokens(model, selection, frames))
            tracked = Round(model.decode_masks(conditioned, scene.features), None)
            losses.append(_mean_losses(model, [tracked], targets_t[t]))
            prediction = tracked.prediction
            if t == plan.later_frame:
                # As in the tracker, a corrected frame is remembered like the tracked frames around it.
                corrected = correct(model, scene, conditioned, tracked, plan.later_corrections, mix)
                losses.append(_mean_losses(model, corrected, targets_t[t]))
                prediction = corrected[-1].prediction
            losses += _as_single_image(model, scene, targets_t[t], plan.corrections[t], mix)
        if t < num_frames - 1:
            memory = model.encode_memory(
                scene.features,
                prediction.logits_b1hw,
                prediction.object_score_logits_b1,
                prompted=t in (0, plan.later_frame),
            )
            frames[t] = FrameMemory(memory, prediction.pointer_bc)
    total = losses[0]
    for more in losses[1:]:
        total = total + more
    return UnrollResult(total, click_iou, _mean_visible_iou(prediction, targets_t[-1]))


def _targets_of(masks_m1hw: Tensor, loss_size_px: int) -> _Targets:
    shares = F.interpolate(masks_m1hw, (loss_size_px, loss_size_px), mode="area")
    return _Targets(shares, masks_m1hw.flatten(1).any(1))


def _as_single_image(model: SAM2, scene: Scene, targets: _Targets, corrections: int, mix: PromptMix) -> list[Losses]:
    """Prompt a later frame once more as a single image: a click or a box for each of its visible objects.

    The decoder is cheap beside the encoder, and prompts are what takes longest to learn.
    """
    visible = torch.nonzero(targets.present_b)[:, 0]
    if not len(visible) or not mix.image_weight:
        return []
    prompted = prompt_objects(model, scene.of(visible), 0.0, 0.5, corrections, mix)
    losses = _prompt_losses(model, prompted, targets.of(visible), len(targets.present_b))
    return [loss.scaled(mix.image_weight) for loss in losses]


def _prompt_losses(model: SAM2, prompted: dict[str, PromptedObjects], targets: _Targets, count: int) -> list[Losses]:
    """Of every object that was not given as a mask, the mean over its rounds, as shares of the mean over ``count``."""
    return [
        _mean_losses(model, group.rounds, targets.of(group.rows)).scaled(len(group.rows) / count)
        for kind, group in prompted.items()
        if kind != "mask"
    ]


def _mean_losses(model: SAM2, rounds: list[Round], targets: _Targets) -> Losses:
    total = _losses_of(model, rounds[0], targets)
    for more in rounds[1:]:
        total = total + _losses_of(model, more, targets)
    return total.scaled(1 / len(rounds))


def _losses_of(model: SAM2, made: Round, targets: _Targets) -> Losses:
    prediction = made.prediction
    return mask_losses(
        prediction.candidates_bmhw,
        prediction.candidate_ious_bm,
        prediction.object_score_logits_b1,
        targets.masks_b1hw,
        targets.present_b,
        made.points,
        model.config.image_size,
    )


def _in_order(prompted: dict[str, PromptedObjects]) -> MaskPrediction:
    """The last predictions of all objects, in their order. Candidates are left out: they differ in number."""
    parts = [group.rounds[-1].prediction for group in prompted.values()]
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


def _mean_visible_iou(prediction: MaskPrediction, targets: _Targets) -> float:
    size = targets.masks_b1hw.shape[2:]
    logits = F.interpolate(prediction.logits_b1hw.detach().float(), size, mode="bilinear", align_corners=False)
    iou_b1 = iou_of_masks(logits.flatten(2), targets.masks_b1hw.flatten(2))
    return float(iou_b1[targets.present_b].mean()) if targets.present_b.any() else float("nan")
