"""SAM 2's training losses (paper, appendix D.2.2): focal, dice, IoU and object presence, weighted 20 : 1 : 1 : 1.

One deviation: the predicted IoU is taught by cross-entropy, see ``_cross_entropy``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, PRESENCE_WEIGHT = 20.0, 1.0, 1.0, 1.0
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Losses:
    """Each a scalar: the sum over the frames that were added up, of the mean over objects."""

    focal: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor

    def __add__(self, other: Losses) -> Losses:
        return Losses(
            self.focal + other.focal, self.dice + other.dice, self.iou + other.iou, self.presence + other.presence
        )

    def scaled(self, factor: float) -> Losses:
        return Losses(self.focal * factor, self.dice * factor, self.iou * factor, self.presence * factor)

    @property
    def total(self) -> Tensor:
        return (
            FOCAL_WEIGHT * self.focal
            + DICE_WEIGHT * self.dice
            + IOU_WEIGHT * self.iou
            + PRESENCE_WEIGHT * self.presence
        )


def focal_per_mask(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M, N) logits, (B, 1, N) targets of 0 and 1 -> (B, M) mean focal loss (arXiv 1708.02002)."""
    target = target_b1n.expand_as(logits_bmn)
    cross_entropy = F.binary_cross_entropy_with_logits(logits_bmn, target, reduction="none")
    probability = logits_bmn.sigmoid()
    miss = probability + target - 2 * probability * target  # 1 - probability of the true class
    alpha = _FOCAL_ALPHA * target + (1 - _FOCAL_ALPHA) * (1 - target)
    return (alpha * miss**_FOCAL_GAMMA * cross_entropy).mean(-1)


def dice_per_mask(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M) dice loss, smoothed by one pixel."""
    probability = logits_bmn.sigmoid()
    overlap = (probability * target_b1n).sum(-1)
    return 1 - (2 * overlap + 1) / (probability.sum(-1) + target_b1n.sum(-1) + 1)


def iou_of_masks(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M) IoU of thresholded masks; 1 where both are empty."""
    mask, target = logits_bmn > 0, target_b1n > 0.5
    union = (mask | target).sum(-1)
    return torch.where(union > 0, (mask & target).sum(-1) / union.clamp(min=1), 1.0)


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Of a predicted IoU. The paper's L1 dies on a short schedule: while all masks are bad, the sigmoid saturates."""
    tiny = 1e-6
    return -(target * (probability + tiny).log() + (1 - target) * (1 - probability + tiny).log())


def mask_losses(
    candidates_bmhw: Tensor, candidate_ious_bm: Tensor, object_score_logits_b1: Tensor, target_b1hw: Tensor
) -> Losses:
    """Losses of one decoding. Of several candidates only the best is taught its mask; all are taught their IoU.

    Args:
        candidates_bmhw: (B, M, h, w) mask logits, brought to the targets' size here.
        candidate_ious_bm: predicted IoU, 0..1.
        object_score_logits_b1: presence.
        target_b1hw: (B, 1, H, W) float of 0 and 1; an object with an empty mask is absent, and then only its presence
            is taught.
    """
    logits = F.interpolate(candidates_bmhw.float(), target_b1hw.shape[2:], mode="bilinear", align_corners=False)
    logits_bmn, target_b1n = logits.flatten(2), target_b1hw.flatten(2)
    present_b = target_b1n.flatten(1).any(1).float()
    focal_bm, dice_bm = focal_per_mask(logits_bmn, target_b1n), dice_per_mask(logits_bmn, target_b1n)
    best_b1 = (FOCAL_WEIGHT * focal_bm + DICE_WEIGHT * dice_bm).argmin(1, keepdim=True)
    iou_error_b = _cross_entropy(candidate_ious_bm.float(), iou_of_masks(logits_bmn, target_b1n)).mean(1)
    return Losses(
        focal=(focal_bm.gather(1, best_b1)[:, 0] * present_b).mean(),
        dice=(dice_bm.gather(1, best_b1)[:, 0] * present_b).mean(),
        iou=(iou_error_b * present_b).mean(),
        presence=F.binary_cross_entropy_with_logits(object_score_logits_b1[:, 0].float(), present_b),
    )
