"""The parts of the network as modules with fixed shapes and plain tensors in and out, which become ONNX graphs.

One object at a time. Memories fill a fixed number of slots; empty slots are marked as not valid. Names of inputs and
outputs are in ``INPUTS`` and ``OUTPUTS``; docs/export.md tells how a tracker combines the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.memory_bank import BankPolicy

INPUTS = {
    "image_encoder": ("image",),
    "memory_attention": (
        "top",
        "memories",
        "memory_slots",
        "memory_valid",
        "pointers",
        "pointer_ages",
        "pointer_valid",
    ),
    "mask_decoder": ("conditioned", "stride8", "stride4", "points", "labels", "previous", "has_previous"),
    "mask_decoder_single": ("conditioned", "stride8", "stride4", "points", "labels", "previous", "has_previous"),
    "mask_prompt": ("mask",),
    "memory_encoder": ("top", "logits", "object_score", "prompted"),
}
OUTPUTS = {
    "image_encoder": ("top", "stride8", "stride4", "top_without_memory"),
    "memory_attention": ("conditioned",),
    "mask_decoder": ("logits", "pointer", "object_score", "iou"),
    "mask_decoder_single": ("logits", "pointer", "object_score", "iou"),
    "mask_prompt": ("previous", "logits"),
    "memory_encoder": ("memory",),
}


@dataclass(frozen=True)
class Slots:
    """How many memories the graph of the memory attention has room for."""

    memories: int
    pointers: int

    @classmethod
    def of(cls, model: SAM2, conditioning_frames: int) -> Slots:
        """Slots for all earlier frames that the model attends to, and for ``conditioning_frames``."""
        policy = BankPolicy.of(model.config)
        return cls(policy.reach + conditioning_frames, policy.max_pointers - 1 + conditioning_frames)


class ImageEncoderGraph(nn.Module):
    def __init__(self, model: SAM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``image``: (1, 3, S, S) float32, normalised with ImageNet's mean and deviation."""
        features = self.model.encode_image(image)
        return features.top_bchw, features.stride8_bchw, features.stride4_bchw, self.model.without_memory(features)


class MemoryAttentionGraph(nn.Module):
    def __init__(self, model: SAM2) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        top: Tensor,
        memories: Tensor,
        memory_slots: Tensor,
        memory_valid: Tensor,
        pointers: Tensor,
        pointer_ages: Tensor,
        pointer_valid: Tensor,
    ) -> Tensor:
        """Condition an image on memory.

        Args:
            top: (1, d_model, h, w).
            memories: (R, memory_dim, *config.memory_hw).
            memory_slots: (R,) int64: 0 = the frame just before, ``num_spatial_memories - 1`` = a conditioning frame.
            memory_valid: (R,) bool.
            pointers: (P, d_model).
            pointer_ages: (P,) float32, in frames; those of conditioning frames are signed.
            pointer_valid: (P,) bool.
        """
        model, config = self.model, self.model.config
        map_tokens = memories.flatten(2).transpose(1, 2).reshape(1, -1, config.memory_dim)
        pointer_tokens = pointers.reshape(1, -1, config.memory_dim)
        position = torch.cat((model.memory_positions(memory_slots), model.pointer_positions(pointer_ages)), dim=1)
        valid = torch.cat(
            (
                memory_valid[:, None].expand(-1, config.memory_tokens).reshape(1, -1),
                pointer_valid[:, None].expand(-1, config.tokens_per_pointer).reshape(1, -1),
            ),
            dim=1,
        )
        tokens = torch.cat((map_tokens, pointer_tokens), dim=1)
        return model.attend_to_tokens(top, tokens, position, pointer_tokens.shape[1], valid)


class MaskDecoderGraph(nn.Module):
    """``multimask``: the best of three masks, for tracking and for one click; else the single mask."""

    def __init__(self, model: SAM2, multimask: bool) -> None:
        super().__init__()
        self.model, self.multimask = model, multimask

    def forward(
        self,
        conditioned: Tensor,
        stride8: Tensor,
        stride4: Tensor,
        points: Tensor,
        labels: Tensor,
        previous: Tensor,
        has_previous: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Segment one object.

        Args:
            conditioned, stride8, stride4: of the image.
            points: (1, K, 2) float32 in pixels of the model's input.
            labels: (1, K) int64: 0, 1, 2 and 3 as in ``PointPrompts``; one point labelled -1 where there is none.
            previous: (1, 1, S/4, S/4) logits to correct.
            has_previous: (1,) bool: False leaves ``previous`` out.
        """
        encoder = self.model.sam_prompt_encoder
        tokens = encoder.encode_points(PointPrompts(points, labels))
        dense = torch.where(
            has_previous[:, None, None, None],
            encoder.mask_downscaling(previous),
            encoder.no_mask_embed.weight[:, :, None, None],
        )
        features = ImageFeatures(conditioned, stride8, stride4)
        found = self.model.decode_encoded(conditioned, features, EncodedPrompts(tokens, dense), self.multimask)
        return found.logits_b1hw, found.pointer_bc, found.object_score_logits_b1, found.iou_b


class MaskPromptGraph(nn.Module):
    def __init__(self, model: SAM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A mask prompt, (1, 1, S, S) of 0 and 1 -> the mask input for decoding its pointer, and its own logits."""
        return self.model.prepare_mask(mask)


class MemoryEncoderGraph(nn.Module):
    def __init__(self, model: SAM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, top: Tensor, logits: Tensor, object_score: Tensor, prompted: Tensor) -> Tensor:
        """``prompted``: (1,) bool: the mask came from a prompt in this frame."""
        features = ImageFeatures(top, top, top)  # only the first is used
        return self.model.encode_memory(features, logits, object_score, prompted)
