"""Prompt tokens and (memory-conditioned) image features -> masks, their predicted IoU, and the object score.

SAM 2 paper, section 4 "Prompt encoder and mask decoder", and appendix D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.layers import MLP, LayerNorm2d
from sam2_ros.model.prompt_encoder import EncodedPrompts
from sam2_ros.model.two_way_transformer import TwoWayTransformer

_NUM_MASKS = 4  # one for unambiguous prompts, three for ambiguous ones


@dataclass(frozen=True)
class DecodedMasks:
    """M candidate masks per batch element: M = 3 for ambiguous prompts, else 1."""

    logits_bmhw: Tensor  # (B, M, S/4, S/4)
    ious_bm: Tensor  # predicted IoU, 0..1
    tokens_bmc: Tensor  # the decoder's output tokens of these masks, which become object pointers
    object_score_logits_b1: Tensor  # > 0: the object is visible in this frame


@dataclass(frozen=True)
class StabilityFallback:
    """Replace an unstable single mask by the best of three (``dynamic_multimask_via_stability``)."""

    delta: float = 0.05  # logits
    threshold: float = 0.98  # IoU between the mask at +delta and at -delta


class MaskDecoder(nn.Module):
    def __init__(self, config: ModelConfig, fallback: StabilityFallback | None) -> None:
        super().__init__()
        dim = config.d_model
        self.fallback = fallback
        self.transformer = TwoWayTransformer(dim, config.decoder_heads, config.decoder_ffn_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(_NUM_MASKS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        # Applied once per image instead of once per prompt, see ``laterals``.
        self.conv_s0 = nn.Conv2d(dim, dim // 8, 1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(_NUM_MASKS))
        self.iou_prediction_head = MLP(dim, config.iou_hidden_dim, config.iou_hidden_dim, _NUM_MASKS)
        self.pred_obj_score_head = MLP(dim, dim, dim, 1)

    @property
    def laterals(self) -> tuple[nn.Conv2d, ...]:
        """The convolutions with which the image encoder makes the maps at strides 4 and 8, once for all prompts."""
        return self.conv_s0, self.conv_s1

    def forward(
        self,
        image_bchw: Tensor,
        image_pe_1chw: Tensor,
        prompts: EncodedPrompts,
        stride4_bchw: Tensor,
        stride8_bchw: Tensor,
        multimask: bool,
    ) -> DecodedMasks:
        """Decode one prompt per batch element. Image maps of batch size 1 are broadcast."""
        batch = prompts.tokens_bnc.shape[0]
        output_tokens = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens_bnc = torch.cat((output_tokens.expand(batch, -1, -1), prompts.tokens_bnc), dim=1)
        source_bchw = image_bchw + prompts.dense_bchw
        tokens_bnc, source_bnc = self.transformer(
            source_bchw.flatten(2).transpose(1, 2), image_pe_1chw.flatten(2).transpose(1, 2), tokens_bnc
        )
        mask_tokens_bmc = tokens_bnc[:, 2 : 2 + _NUM_MASKS]
        upscaled_bchw = self._upscale(source_bnc.transpose(1, 2).reshape(source_bchw.shape), stride4_bchw, stride8_bchw)
        weights_bmc = torch.stack(
            [mlp(mask_tokens_bmc[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        every = DecodedMasks(
            logits_bmhw=(weights_bmc @ upscaled_bchw.flatten(2)).unflatten(2, upscaled_bchw.shape[2:]),
            ious_bm=self.iou_prediction_head(tokens_bnc[:, 1]).sigmoid(),
            tokens_bmc=mask_tokens_bmc,
            object_score_logits_b1=self.pred_obj_score_head(tokens_bnc[:, 0]),
        )
        return self._choose(every, multimask)

    def _upscale(self, source_bchw: Tensor, stride4_bchw: Tensor, stride8_bchw: Tensor) -> Tensor:
        up_to_8, norm, activation, up_to_4, last_activation = self.output_upscaling
        x = activation(norm(up_to_8(source_bchw) + stride8_bchw))
        return last_activation(up_to_4(x) + stride4_bchw)

    def _choose(self, every: DecodedMasks, multimask: bool) -> DecodedMasks:
        single = DecodedMasks(
            every.logits_bmhw[:, :1], every.ious_bm[:, :1], every.tokens_bmc[:, :1], every.object_score_logits_b1
        )
        if not multimask:
            return single if self.fallback is None else self._with_fallback(every, single)
        return DecodedMasks(
            every.logits_bmhw[:, 1:], every.ious_bm[:, 1:], every.tokens_bmc[:, 1:], every.object_score_logits_b1
        )

    def _with_fallback(self, every: DecodedMasks, single: DecodedMasks) -> DecodedMasks:
        assert self.fallback is not None
        flat = single.logits_bmhw.flatten(2)
        inner = (flat > self.fallback.delta).sum(-1).float()
        outer = (flat > -self.fallback.delta).sum(-1).float()
        stability_b1 = torch.where(outer > 0, inner / outer, 1.0)
        stable_b1 = stability_b1 >= self.fallback.threshold
        best_b = every.ious_bm[:, 1:].argmax(dim=1) + 1
        rows = torch.arange(best_b.shape[0], device=best_b.device)
        return DecodedMasks(
            torch.where(stable_b1[..., None, None], single.logits_bmhw, every.logits_bmhw[rows, best_b][:, None]),
            torch.where(stable_b1, single.ious_bm, every.ious_bm[rows, best_b][:, None]),
            single.tokens_bmc,  # the pointer is that of the single mask, on which memory was trained
            single.object_score_logits_b1,
        )


class CoarseMaskDecoder(MaskDecoder):
    """Decodes from the map at stride 16 alone, as EfficientTAM does; the maps at strides 4 and 8 have no channels."""

    def __init__(self, config: ModelConfig, fallback: StabilityFallback | None) -> None:
        super().__init__(config, fallback)
        del self.conv_s0, self.conv_s1

    @property
    def laterals(self) -> tuple[nn.Conv2d, ...]:
        return ()

    def _upscale(self, source_bchw: Tensor, stride4_bchw: Tensor, stride8_bchw: Tensor) -> Tensor:
        return self.output_upscaling(source_bchw)
