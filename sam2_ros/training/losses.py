"""SAM 2's training losses (paper, appendix D.2.2): focal, dice, IoU and object presence, weighted 20 : 1 : 1 : 1.

Four deviations. Targets are soft: the share of each loss pixel that the object covers, so that parts thinner than such
a pixel are not taught to be absent; the focal loss is then the quality focal loss (arXiv 2006.04388), which for targets
of 0 and 1 is the ordinary one. It weighs pixels of objects 0.4 and those around them 0.6: with the paper's 0.25 and
0.75, a model that is unsure, as a small one often is, learns masks that are too small (`nano` on held-out clips: 0.85
of the true area; half a logit more raised the mean IoU by 0.06). The predicted IoU is taught by cross-entropy, see
``_cross_entropy``. And a fifth term teaches that a mask obeys its clicks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.prompt_encoder import NEGATIVE, POSITIVE, PointPrompts

FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, PRESENCE_WEIGHT, CLICK_WEIGHT = 20.0, 1.0, 1.0, 1.0, 0.5
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.4, 2.0


@dataclass(frozen=True)
class Losses:
    """Scalars: means over objects, summed over the frames that were added up."""

    focal: Tensor
    dice: Tensor
    iou: Tensor
    presence: Tensor
    click: Tensor

    def __add__(self, other: Losses) -> Losses:
        return Losses(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def scaled(self, factor: float) -> Losses:
        return Losses(*(getattr(self, f.name) * factor for f in fields(self)))

    @property
    def total(self) -> Tensor:
        return (
            FOCAL_WEIGHT * self.focal
            + DICE_WEIGHT * self.dice
            + IOU_WEIGHT * self.iou
            + PRESENCE_WEIGHT * self.presence
            + CLICK_WEIGHT * self.click
        )


def focal_per_mask(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M, N) logits, (B, 1, N) targets from 0 to 1 -> (B, M) mean quality focal loss (arXiv 2006.04388).

    It is least where the probability equals the target, also between 0 and 1.
    """
    target = target_b1n.expand_as(logits_bmn)
    cross_entropy = F.binary_cross_entropy_with_logits(logits_bmn, target, reduction="none")
    alpha = _FOCAL_ALPHA * target + (1 - _FOCAL_ALPHA) * (1 - target)
    return (alpha * (target - logits_bmn.sigmoid()).abs() ** _FOCAL_GAMMA * cross_entropy).mean(-1)


def dice_per_mask(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M) dice loss, smoothed by one pixel.

    Squares in the denominator: with the plain sum a soft target would be learned best by a hard mask.
    """
    probability = logits_bmn.sigmoid()
    overlap = (probability * target_b1n).sum(-1)
    return 1 - (2 * overlap + 1) / ((probability**2).sum(-1) + (target_b1n**2).sum(-1) + 1)


def iou_of_masks(logits_bmn: Tensor, target_b1n: Tensor) -> Tensor:
    """(B, M) IoU of thresholded masks; 1 where both are empty.

    A target counts from half of its largest value on, so that an object of thin parts only has a mask as well.
    """
    threshold_b11 = 0.5 * target_b1n.amax(-1, keepdim=True)
    mask, target = logits_bmn > 0, (target_b1n >= threshold_b11) & (target_b1n > 0)
    union = (mask | target).sum(-1)
    return torch.where(union > 0, (mask & target).sum(-1) / union.clamp(min=1), 1.0)


def _cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """The loss of a predicted IoU. The paper's L1 fails on a short schedule: early bad masks saturate the sigmoid."""
    tiny = 1e-6
    return -(target * (probability + tiny).log() + (1 - target) * (1 - probability + tiny).log())


def _click_errors(candidates_bmhw: Tensor, points: PointPrompts, image_size_px: int) -> Tensor:
    """(B,) mean cross-entropy of all candidates at the clicks; 0 for an object without clicks, as with a box alone."""
    place_bn2 = (points.xy_bn2 + 0.5) / image_size_px * 2 - 1
    at_clicks_bmn = F.grid_sample(candidates_bmhw, place_bn2[:, None], padding_mode="border", align_corners=False)[
        :, :, 0
    ]
    is_click_bn = (points.labels_bn == POSITIVE) | (points.labels_bn == NEGATIVE)
    wanted_b1n = (points.labels_bn == POSITIVE).float()[:, None].expand_as(at_clicks_bmn)
    error_bmn = F.binary_cross_entropy_with_logits(at_clicks_bmn, wanted_b1n, reduction="none")
    count_b = is_click_bn.sum(1).clamp(min=1)
    return (error_bmn.mean(1) * is_click_bn).sum(1) / count_b


def mask_losses(
    candidates_bmhw: Tensor,
    candidate_ious_bm: Tensor,
    object_score_logits_b1: Tensor,
    target_b1hw: Tensor,
    present_b: Tensor,
    points: PointPrompts | None = None,
    image_size_px: int = 0,
) -> Losses:
    """Losses of one decoding. Of several candidates only the best has a mask loss; all have an IoU loss.

    Args:
        candidates_bmhw: (B, M, h, w) mask logits, brought to the targets' size here.
        candidate_ious_bm: predicted IoU, 0..1.
        object_score_logits_b1: presence.
        target_b1hw: (B, 1, H, W) float, the share of each pixel that the object covers.
        present_b: (B,) bool: whether any part of the object is visible, at the image's own size. An absent object has
            the presence loss only.
        points: the prompts that the masks were made from, if any; all candidates are taught to obey the clicks.
        image_size_px: side of the square image in whose pixels the points are; needed with ``points`` only.
    """
    candidates_bmhw = candidates_bmhw.float()
    logits = F.interpolate(candidates_bmhw, target_b1hw.shape[2:], mode="bilinear", align_corners=False)
    logits_bmn, target_b1n = logits.flatten(2), target_b1hw.flatten(2)
    is_present_b = present_b.float()
    focal_bm, dice_bm = focal_per_mask(logits_bmn, target_b1n), dice_per_mask(logits_bmn, target_b1n)
    best_b1 = (FOCAL_WEIGHT * focal_bm + DICE_WEIGHT * dice_bm).argmin(1, keepdim=True)
    iou_error_b = _cross_entropy(candidate_ious_bm.float(), iou_of_masks(logits_bmn, target_b1n)).mean(1)
    if points is None:
        click = candidates_bmhw.new_zeros(())
    else:
        click = (_click_errors(candidates_bmhw, points, image_size_px) * is_present_b).mean()
    return Losses(
        focal=(focal_bm.gather(1, best_b1)[:, 0] * is_present_b).mean(),
        dice=(dice_bm.gather(1, best_b1)[:, 0] * is_present_b).mean(),
        iou=(iou_error_b * is_present_b).mean(),
        presence=F.binary_cross_entropy_with_logits(object_score_logits_b1[:, 0].float(), is_present_b),
        click=click,
    )
