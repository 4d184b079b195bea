"""Judgement of one object's prediction in one frame: whether it is visible, and how reliable its memory is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.model.sam2 import ABSENT_LOGIT, MaskPrediction
from sam2_ros.tracking.memory_bank import FrameScore
from sam2_ros.tracking.transforms import logits_to_image_size


def is_visible(prediction: MaskPrediction, height: int, width: int, above_logit: float = 0.0) -> bool:
    """Whether the model finds the object and its mask is not empty: an empty mask is not visible, whatever the score.

    Args:
        prediction: of one object (B = 1).
        height, width: of the part of the image that was seen, px. Scaled to it, a small mask can become empty.
        above_logit: the model's ``visible_above_logit``.
    """
    logits_1hw = prediction.logits_b1hw[:, 0]
    if not bool(prediction.object_score_logits_b1 > above_logit):
        return False
    pixels = int((logits_1hw > 0).sum())
    if 0 < pixels < logits_1hw.numel() // 64:
        return bool((logits_to_image_size(logits_1hw, height, width) > 0).any())
    return pixels > 0


def presence_of(prediction: MaskPrediction, above_logit: float = 0.0) -> float:
    """Certainty that one object (B = 1) is there, 0..1; above 0.5 where it is visible, if its mask is not empty.

    Args:
        prediction: of one object.
        above_logit: the model's ``visible_above_logit``.
    """
    return float((prediction.object_score_logits_b1 - above_logit).sigmoid())


def score_of(prediction: MaskPrediction, visible: bool, is_prompted: bool) -> FrameScore:
    """How reliable the memory of a frame is: predicted IoU times the certainty of presence (SAM 3's tracker).

    Args:
        prediction: of one object (B = 1).
        visible: from ``is_visible``.
        is_prompted: a user has said what the frame shows, so it is beyond doubt.
    """
    if is_prompted:
        return FrameScore(is_empty=not visible)
    presence = float(prediction.object_score_logits_b1.sigmoid())
    return FrameScore(float(prediction.iou_b) * (2 * presence - 1) if visible else 0.0, is_empty=not visible)


def area_px(prediction: MaskPrediction, height: int, width: int) -> int:
    """Area of the mask in a part of the image of this size, px; at least 1 where the mask is not empty."""
    logits_hw = prediction.logits_b1hw[0, 0]
    cells = int((logits_hw > 0).sum())
    return max(1, round(cells * height * width / logits_hw.numel())) if cells else 0


def shown_mask(prediction: MaskPrediction) -> NDArray[np.bool_]:
    """(S/4, S/4) of one object (B = 1); empty where it is absent."""
    return np.asarray((prediction.logits_b1hw[0, 0] > 0).cpu().numpy())


def as_absent(prediction: MaskPrediction) -> MaskPrediction:
    """The prediction of an object that cannot be there, or not there, whatever the network says."""
    return replace(
        prediction,
        logits_b1hw=torch.full_like(prediction.logits_b1hw, ABSENT_LOGIT),
        object_score_logits_b1=-prediction.object_score_logits_b1.abs(),
    )
