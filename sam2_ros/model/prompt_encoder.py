"""Points, boxes and masks as tokens and maps for the mask decoder (SAM, arXiv 2304.02643, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.layers import LayerNorm2d
from sam2_ros.model.position_encoding import RandomFourierEncoding

PAD, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class PointPrompts:
    """Points and box corners of a batch of objects. A box is two points, placed first, labelled 2 and 3."""

    xy_bn2: Tensor  # float32, pixels of the square model input
    labels_bn: Tensor  # int64: -1 pad, 0 negative, 1 positive, 2 box top left, 3 box bottom right


@dataclass(frozen=True)
class EncodedPrompts:
    tokens_bnc: Tensor
    dense_bchw: Tensor


class PromptEncoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, hidden = config.d_model, 16
        self.image_size = config.image_size
        self.pe_layer = RandomFourierEncoding(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, 2, 2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, 2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def encode_points(self, points: PointPrompts) -> Tensor:
        """(B, N + 1, dim): one token per point and a final pad token."""
        position_bnc = self.pe_layer((points.xy_bn2 + 0.5) / self.image_size)
        # Row 0 is the pad token, rows 1 to 4 are added for labels 0 to 3.
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        added = torch.cat([next(kind.parameters()) for kind in kinds])
        is_point_bn1 = (points.labels_bn >= 0).unsqueeze(-1)
        tokens_bnc = position_bnc * is_point_bn1 + added[points.labels_bn + 1]
        pad_b1c = self.not_a_point_embed.weight.expand(tokens_bnc.shape[0], 1, -1)
        return torch.cat((tokens_bnc, pad_b1c), dim=1)

    def forward(self, points: PointPrompts | None, mask_logits_b1hw: Tensor | None, batch: int) -> EncodedPrompts:
        """Encode a prompt; for ``None`` the learned embedding of "no prompt" is used.

        Args:
            points: clicks and boxes, or None (two pad tokens, as the released weights expect).
            mask_logits_b1hw: (B, 1, S/4, S/4) earlier mask logits, or None.
            batch: B.
        """
        if points is None:
            tokens_bnc = self.not_a_point_embed.weight.expand(batch, 2, -1)
        else:
            tokens_bnc = self.encode_points(points)
        if mask_logits_b1hw is None:
            size = self.image_size // 16
            dense_bchw = self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, size, size)
        else:
            dense_bchw = self.mask_downscaling(mask_logits_b1hw)
        return EncodedPrompts(tokens_bnc, dense_bchw)

    def dense_position(self) -> Tensor:
        """(1, dim, S/16, S/16): the position encoding of the image features, in the same coordinates as points."""
        return self.pe_layer.grid(self.image_size // 16, self.image_size // 16)
