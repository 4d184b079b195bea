"""SAM 2 as four functions of tensors: encode an image, attend to memory, decode masks, encode a memory.

The network keeps no state: what was seen is held by the tracker (``sam2_ros.tracking``) and passed in.
Parameter names are those of the released checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.image_encoder import ImageEncoder
from sam2_ros.model.layers import MLP
from sam2_ros.model.mask_decoder import CoarseMaskDecoder, MaskDecoder, StabilityFallback
from sam2_ros.model.memory_attention import MemoryAttention
from sam2_ros.model.memory_encoder import MemoryEncoder
from sam2_ros.model.position_encoding import sine_map, sine_of_time
from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts, PromptEncoder
from sam2_ros.model.spatial_perceiver import MapMemory, SpatialPerceiver

ABSENT_LOGIT = -1024.0  # mask logits of an object that is not in the frame
_SURE_LOGIT = 10.0  # a mask prompt gets logits of plus or minus this


@dataclass(frozen=True)
class ImageFeatures:
    """The features of one image, or of a batch."""

    top_bchw: Tensor  # (B, d_model, S/16, S/16), not conditioned on memory
    stride8_bchw: Tensor  # (B, d_model / 4, S/8, S/8); no channels in a network without fine maps
    stride4_bchw: Tensor  # (B, d_model / 8, S/4, S/4); likewise

    def expand(self, batch: int) -> ImageFeatures:
        """The same image for a batch of objects; a view, no copy."""
        return ImageFeatures(
            *(t.expand(batch, -1, -1, -1) for t in (self.top_bchw, self.stride8_bchw, self.stride4_bchw))
        )


@dataclass(frozen=True)
class MemoryTokens:
    """The input of memory attention: the memories of R frames one after another, then pointer tokens."""

    tokens_bmc: Tensor  # (B, R * config.memory_tokens + num_pointer_tokens, memory_dim)
    position_bmc: Tensor  # same shape or batch 1
    num_pointer_tokens: int
    # For each batch element, what its positions encode: time slots of its maps, ages of its pointers.
    slots: tuple[tuple[int, ...], ...] = ()
    ages: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class MaskPrediction:
    """The prediction for a batch of objects in one frame."""

    logits_b1hw: Tensor  # (B, 1, S/4, S/4) of the chosen mask; all ABSENT_LOGIT if the object is absent
    pointer_bc: Tensor  # (B, d_model) object pointer
    object_score_logits_b1: Tensor  # > 0: visible
    iou_b: Tensor  # predicted IoU of the chosen mask
    candidates_bmhw: Tensor  # logits of every candidate, also if the object is absent
    candidate_ious_bm: Tensor


class SAM2(nn.Module):
    """The network of one table entry.

    Args:
        config: an entry of ``sam2_ros.model.config.MODELS``.
        fallback: swap unstable single masks for the best of three, as the official builder's default does;
            None as in the official benchmark, and for training.
        binarize_prompted_masks: memories of frames with prompts are encoded from the thresholded mask, as the official
            builder's default does.
    """

    def __init__(
        self, config: ModelConfig, fallback: StabilityFallback | None = None, binarize_prompted_masks: bool = False
    ) -> None:
        super().__init__()
        dim, memory_dim = config.d_model, config.memory_dim
        self.config = config
        self.binarize_prompted_masks = binarize_prompted_masks
        self.image_encoder = ImageEncoder(config)
        self.memory_attention = MemoryAttention(config)
        self.memory_encoder = MemoryEncoder(config)
        # MapMemory has no weights, as the checkpoints of models without a perceiver.
        perceiver = config.perceiver
        self.spatial_perceiver = MapMemory(config) if perceiver is None else SpatialPerceiver(config, perceiver)
        self.sam_prompt_encoder = PromptEncoder(config)
        self.sam_mask_decoder = (MaskDecoder if config.fine_maps else CoarseMaskDecoder)(config, fallback)
        self.mask_downsample = nn.Conv2d(1, 1, 4, 4)
        self.obj_ptr_proj = MLP(dim, dim, dim, dim)
        self.no_obj_ptr = nn.Parameter(0.02 * torch.randn(1, dim))
        self.no_mem_embed = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.no_mem_pos_enc = nn.Parameter(0.02 * torch.randn(1, 1, dim))  # unused, but part of every checkpoint
        self.maskmem_tpos_enc = nn.Parameter(0.02 * torch.randn(config.num_spatial_memories, 1, 1, memory_dim))
        if config.no_object_memory_embed:
            self.no_obj_embed_spatial = nn.Parameter(0.02 * torch.randn(1, memory_dim))
        if config.pointer_time_encoding:
            self.obj_ptr_tpos_proj = nn.Linear(dim, memory_dim)

    def compute_in(self, image_encoder: torch.dtype, memory_attention: torch.dtype) -> None:
        """Set the type of the products of the two parts that do nearly all of the work, for example bfloat16.

        Norms, residual streams and heads stay in float32: their rounding errors would accumulate through the memories.
        So do the layers at the start and end of a residual stream: they are little work, and most of the rounding error
        would come from them.
        """
        for part in self.image_encoder.trunk.heavy_parts():
            _convert_products(part, image_encoder)
        _convert_products(self.memory_attention, memory_attention)

    def encode_image(self, images_bchw: Tensor) -> ImageFeatures:
        """(B, 3, S, S) float images, normalised with ImageNet's mean and deviation -> float32 features."""
        stride4, stride8, top = self.image_encoder(images_bchw, *self.sam_mask_decoder.laterals)
        return ImageFeatures(top.float(), stride8.float(), stride4.float())

    def without_memory(self, features: ImageFeatures) -> Tensor:
        """(B, d_model, h, w): features of a frame that is segmented from its prompt alone."""
        return features.top_bchw + self.no_mem_embed.transpose(1, 2)[..., None]

    def attend_to_memory(self, features: ImageFeatures, memory: MemoryTokens) -> Tensor:
        """(B, d_model, h, w): features, of batch B or 1, conditioned on B memories."""
        return self.attend_to_tokens(
            features.top_bchw, memory.tokens_bmc, memory.position_bmc, memory.num_pointer_tokens
        )

    def attend_to_tokens(
        self,
        top_bchw: Tensor,
        tokens_bmc: Tensor,
        position_bmc: Tensor,
        num_pointer_tokens: int,
        valid_bm: Tensor | None = None,
    ) -> Tensor:
        """``attend_to_memory`` with tensors; ``valid_bm`` marks the tokens of filled slots."""
        place_1chw = sine_map(self.config.d_model, *top_bchw.shape[2:], top_bchw.device)
        return self.memory_attention(top_bchw, place_1chw, tokens_bmc, position_bmc, num_pointer_tokens, valid_bm)

    def decode_masks(
        self,
        conditioned_bchw: Tensor,
        features: ImageFeatures,
        points: PointPrompts | None = None,
        mask_logits_b1hw: Tensor | None = None,
        multimask: bool = True,
    ) -> MaskPrediction:
        """Segment one object per batch element.

        Args:
            conditioned_bchw: from ``attend_to_memory`` or ``without_memory``.
            features: of the same image and batch.
            points: clicks and boxes, if any.
            mask_logits_b1hw: (B, 1, S/4, S/4) earlier logits to refine, if any.
            multimask: decode three candidates and choose by predicted IoU; for none or one point.
        """
        prompts = self.sam_prompt_encoder(points, mask_logits_b1hw, conditioned_bchw.shape[0])
        return self.decode_encoded(conditioned_bchw, features, prompts, multimask)

    def decode_encoded(
        self, conditioned_bchw: Tensor, features: ImageFeatures, prompts: EncodedPrompts, multimask: bool
    ) -> MaskPrediction:
        """``decode_masks`` after the prompt encoder."""
        decoded = self.sam_mask_decoder(
            conditioned_bchw,
            self.sam_prompt_encoder.dense_position(),
            prompts,
            features.stride4_bchw,
            features.stride8_bchw,
            multimask,
        )
        rows = torch.arange(conditioned_bchw.shape[0], device=conditioned_bchw.device)
        best_b = decoded.ious_bm.argmax(dim=1)
        visible_b1 = decoded.object_score_logits_b1 > 0
        chosen_b1hw = decoded.logits_bmhw[rows, best_b][:, None].float()
        pointer_bc = self.obj_ptr_proj(decoded.tokens_bmc[rows, best_b])
        return MaskPrediction(
            logits_b1hw=torch.where(visible_b1[..., None, None], chosen_b1hw, ABSENT_LOGIT),
            pointer_bc=torch.where(visible_b1, pointer_bc, self.no_obj_ptr),
            object_score_logits_b1=decoded.object_score_logits_b1,
            iou_b=decoded.ious_bm[rows, best_b],
            candidates_bmhw=decoded.logits_bmhw,
            candidate_ious_bm=decoded.ious_bm,
        )

    def adopt_mask(self, features: ImageFeatures, mask_b1hw: Tensor) -> MaskPrediction:
        """Adopt a mask prompt as the prediction; the decoder only computes its object pointer.

        Args:
            features: of the frame.
            mask_b1hw: (B, 1, S, S) of 0 and 1 at model size.
        """
        earlier, logits = self.prepare_mask(mask_b1hw.float())
        pointer = self.decode_masks(features.top_bchw, features, mask_logits_b1hw=earlier, multimask=False).pointer_bc
        present_b1 = mask_b1hw.flatten(1).any(dim=1, keepdim=True)
        ones_b1 = torch.ones_like(present_b1, dtype=torch.float32)
        return MaskPrediction(
            logits_b1hw=logits,
            pointer_bc=torch.where(present_b1, pointer, self.no_obj_ptr),
            object_score_logits_b1=torch.where(present_b1, _SURE_LOGIT, -_SURE_LOGIT),
            iou_b=ones_b1[:, 0],
            candidates_bmhw=logits,
            candidate_ious_bm=ones_b1,
        )

    def prepare_mask(self, mask_b1hw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, S, S) float32 of 0 and 1 -> twice (B, 1, S/4, S/4).

        The mask input for decoding its pointer, and the logits as if the decoder had predicted this mask.
        """
        size = self.config.image_size // 4
        logits = mask_b1hw * (2 * _SURE_LOGIT) - _SURE_LOGIT
        logits = F.interpolate(logits, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.mask_downsample(mask_b1hw), logits

    def encode_memory(
        self, features: ImageFeatures, logits_b1hw: Tensor, object_score_logits_b1: Tensor, prompted: bool | Tensor
    ) -> Tensor:
        """(B, memory_dim, *config.memory_hw): the memory of a frame and its mask.

        Args:
            features: of that frame.
            logits_b1hw: (B, 1, S/4, S/4) mask logits.
            object_score_logits_b1: absent objects' memories are marked (2.1).
            prompted: the mask came from a user's prompt; a tensor of one bool where that is an input of a graph.
        """
        size = self.config.image_size
        logits = F.interpolate(logits_b1hw.float(), (size, size), mode="bilinear", align_corners=False)
        if isinstance(prompted, Tensor) and self.binarize_prompted_masks:
            mask = torch.where(prompted, (logits > 0).float(), logits.sigmoid())
        else:  # the setting first, because a graph input cannot be tested
            mask = (logits > 0).float() if self.binarize_prompted_masks and prompted else logits.sigmoid()
        memory_bchw = self.memory_encoder(features.top_bchw, mask * (2 * _SURE_LOGIT) - _SURE_LOGIT)
        if self.config.no_object_memory_embed:
            absent_b1 = (object_score_logits_b1 <= 0).to(memory_bchw.dtype)
            memory_bchw = memory_bchw + (absent_b1 * self.no_obj_embed_spatial)[..., None, None]
        return self.spatial_perceiver(memory_bchw)

    def memory_positions(self, slots: tuple[int, ...] | Tensor) -> Tensor:
        """(1, R * config.memory_tokens, memory_dim): position in the image plus time slot, of R memories in a row.

        Slot 0 is the previous frame, ``num_spatial_memories - 1`` a conditioning frame.
        """
        place_nc = self.spatial_perceiver.places(self.config.feature_size, self.no_mem_embed.device)
        slots_r = torch.as_tensor(slots, device=place_nc.device)
        return (place_nc + self.maskmem_tpos_enc[slots_r, 0]).flatten(0, 1)[None]

    def pointer_positions(self, ages: tuple[int, ...] | Tensor) -> Tensor:
        """(1, P * tokens_per_pointer, memory_dim): encoding of P pointers by their age in frames."""
        config = self.config
        if config.pointer_time_encoding:
            ages_p = torch.as_tensor(ages, dtype=torch.float32, device=self.no_mem_embed.device)
            position_pc = self.obj_ptr_tpos_proj(sine_of_time(ages_p / (config.max_pointers - 1), config.d_model))
        else:
            position_pc = self.no_mem_embed.new_zeros(len(ages), config.memory_dim)
        return position_pc.repeat_interleave(config.tokens_per_pointer, dim=0)[None]


def _convert_products(part: nn.Module, dtype: torch.dtype) -> None:
    for module in part.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)
