"""The official image predictor and mask generator. What they take from torchvision's compiled part is written here."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from sam2_ros.evaluation.official import import_official_builder


def nms(boxes_n4: Tensor, scores_n: Tensor, iou_threshold: float) -> Tensor:
    """torchvision.ops.nms in the plainest form: every pair of boxes is compared."""
    boxes, order = boxes_n4.tolist(), torch.argsort(scores_n, descending=True, stable=True).tolist()
    kept: list[int] = []
    for candidate in order:
        if all(not _iou(boxes[candidate], boxes[other]) > iou_threshold for other in kept):
            kept.append(candidate)
    return torch.tensor(kept, dtype=torch.int64)


def _iou(first: list[float], second: list[float]) -> float:
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - width * height
    return width * height / union if union else float("nan")


def connected_components(masks_n1hw: Tensor) -> tuple[Tensor, Tensor]:
    """``sam2.utils.misc.get_connected_components``, compiled too: labels, and at each pixel its region.s area."""
    labels, areas = [], []
    for mask_hw in masks_n1hw[:, 0].to(torch.uint8).numpy():
        _, labels_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw, connectivity=8)
        labels.append(labels_hw)
        areas.append(np.where(labels_hw > 0, stats[labels_hw, cv2.CC_STAT_AREA], 0))
    return torch.from_numpy(np.stack(labels))[:, None], torch.from_numpy(np.stack(areas))[:, None]


def import_official_image():
    """(SAM2ImagePredictor, SAM2AutomaticMaskGenerator), or None where the package is not installed."""
    if import_official_builder() is None:
        return None
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    from torchvision.ops import boxes

    boxes.nms = nms  # `batched_nms` calls it
    return SAM2ImagePredictor, SAM2AutomaticMaskGenerator


def set_feature_size(predictor: object, image_size: int) -> None:
    """The official predictor has the feature sizes of 1024 px written into it."""
    predictor._bb_feat_sizes = [(image_size // stride,) * 2 for stride in (4, 8, 16)]  # type: ignore[attr-defined]


def varied(model: torch.nn.Module) -> torch.nn.Module:
    """Make a randomised model's masks depend more on its prompts, or all of them would be the same."""
    for mlp in model.sam_mask_decoder.output_hypernetworks_mlps:  # type: ignore[union-attr]
        mlp.layers[-1].weight.data.mul_(6)
    return model
