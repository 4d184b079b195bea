"""Segment in one encoded image: the network's heads without memory and without the question whether it is there.

Answers to the tensor part of the official ``SAM2ImagePredictor``. Other than in a video, masks are never blanked by
the object score, all candidates are given, and the decoder sees no padding tokens where there are no points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.prompts import Prompt, to_model_points
from sam2_ros.tracking.small_regions import without_small_regions
from sam2_ros.tracking.transforms import check_image, image_to_input, logits_to_image_size, mask_to_input

LOGIT_LIMIT = 32.0  # logits that are fed back are kept within plus or minus this (official code)


@dataclass(frozen=True)
class EncodedImage:
    """What the heads need of one image."""

    features: ImageFeatures  # batch 1
    conditioned_1chw: Tensor  # the top level with the embedding that says "no memory"
    height: int  # of the image, px
    width: int


@dataclass(frozen=True)
class DecodedPrompts:
    """Candidate masks of B prompts: N = 3, or 1 without ``multimask``; in the decoder's order."""

    logits_bnhw: Tensor  # (B, N, S/4, S/4) float32
    ious_bn: Tensor  # (B, N) float32, predicted IoU

    @property
    def fed_back_bnhw(self) -> Tensor:
        """The logits as a later call takes them."""
        return self.logits_bnhw.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def encode(model: SAM2, image_rgb: NDArray[np.uint8]) -> EncodedImage:
    """(H, W, 3) uint8 RGB -> features. Raises ValueError for any other array."""
    check_image(image_rgb)
    features = model.encode_image(image_to_input(image_rgb, model.config.image_size, model.no_mem_embed.device))
    return EncodedImage(features, model.without_memory(features), *image_rgb.shape[:2])


def decode(
    model: SAM2, image: EncodedImage, prompts: Sequence[Prompt], logits_bhw: Tensor | None, multimask: bool
) -> DecodedPrompts:
    """Answer prompts together.

    Args:
        prompts: checked, with the same number of tokens each.
        logits_bhw: (B, S/4, S/4) earlier logits, or None.
    """
    points = _points(model, image, prompts)
    logits_b1hw = None if logits_bhw is None else logits_bhw[:, None].float()
    encoded = model.sam_prompt_encoder(points, logits_b1hw, len(prompts))
    if points is None:
        encoded = EncodedPrompts(encoded.tokens_bnc[:, :0], encoded.dense_bchw)
    decoded = model.sam_mask_decoder(
        image.conditioned_1chw,
        model.sam_prompt_encoder.dense_position(),
        encoded,
        image.features.stride4_bchw,
        image.features.stride8_bchw,
        multimask,
    )
    return DecodedPrompts(decoded.logits_bmhw.float(), decoded.ious_bm.float())


def _points(model: SAM2, image: EncodedImage, prompts: Sequence[Prompt]) -> PointPrompts | None:
    if not prompts[0].num_tokens:
        return None
    device = model.no_mem_embed.device
    each = [to_model_points(p, image.height, image.width, model.config.image_size, device) for p in prompts]
    return PointPrompts(torch.cat([p.xy_bn2 for p in each]), torch.cat([p.labels_bn for p in each]))


def logits_of_mask(model: SAM2, mask: NDArray[np.bool_]) -> Tensor:
    """(S/4, S/4): a mask (H, W) as the logits that the decoder would have given for it."""
    mask_11hw = mask_to_input(mask, model.config.image_size, model.no_mem_embed.device)
    return model.prepare_mask(mask_11hw)[1][0, 0]


def at_image_size(
    image: EncodedImage, logits_nhw: Tensor, max_hole_area: float = 0.0, max_sprinkle_area: float = 0.0
) -> Tensor:
    """(N, S/4, S/4) logits -> (N, H, W), after closing holes and dropping specks of at most so many low-res pixels."""
    cleaned = without_small_regions(logits_nhw, max_hole_area, max_sprinkle_area)
    return logits_to_image_size(cleaned, image.height, image.width)
