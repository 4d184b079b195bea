"""The model that a run starts with: fresh, with an ImageNet trunk, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sam2_ros.model.checkpoint import load_checkpoint
from sam2_ros.model.config import model_config
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.loading import EMBEDDED_WEIGHTS
from sam2_ros.training.config import TrainConfig
from sam2_ros.training.pretrained import load_imagenet_lite0


def build_for_training(config: TrainConfig, image_size: int) -> SAM2:
    """The config's model at the given input size, on the CPU.

    Raises:
        ValueError: a file of weights does not fit the model.
    """
    torch.manual_seed(config.seed)
    model = SAM2(model_config(config.model, image_size))
    if config.init:
        load_checkpoint(model, EMBEDDED_WEIGHTS if config.init == "embedded" else Path(config.init))
        return model
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):  # the released 1e-6 start is for long schedules
            nn.init.constant_(parameter, 0.1)
    _let_points_find_pixels(model)
    trunk = model.image_encoder.trunk
    if config.imagenet_trunk:
        if not isinstance(trunk, EfficientNetLite):
            raise ValueError(f"imagenet_trunk is for EfficientNet trunks; {config.model} has {type(trunk).__name__}")
        load_imagenet_lite0(trunk, Path(config.imagenet_trunk))
        # The trunk's maps have a deviation of about 8; the heads, whose residual streams start here, expect about 1.
        with torch.no_grad():
            for name, parameter in model.image_encoder.neck.named_parameters():
                if name.endswith("weight"):
                    parameter.mul_(1 / 8)
    return model


def set_image_size(model: SAM2, size_px: int) -> None:
    """No weight depends on the input size; only these two places know it."""
    model.config = model_config(model.config.name, size_px)
    model.sam_prompt_encoder.image_size = size_px


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
