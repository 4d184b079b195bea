"""Inputs for the parts of a network, made alike in two processes, and what the official code and ours make of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sam2_ros.evaluation.official import build_official, import_official_builder, randomise
from sam2_ros.model.config import model_config
from sam2_ros.model.position_encoding import sine_map
from sam2_ros.model.sam2 import SAM2, ImageFeatures
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, gather_tokens

NUM_FRAMES = 24
FINE_SHAPES = ((64, 2), (32, 4))  # channels, and how much finer than stride 16


@dataclass(frozen=True)
class Bank:
    """Frames that are remembered before ``frame``."""

    name: str
    frame: int
    conditioning: tuple[int, ...]
    tracked: tuple[int, ...]


BANKS = (
    *(Bank(f"{count} memories", count, (0,), tuple(range(1, count))) for count in range(1, 8)),
    Bank("all pointers", 20, (0,), tuple(range(1, 20))),
    Bank("three prompted", 20, (0, 7, 18), tuple(f for f in range(20) if f not in (0, 7, 18))),
    Bank("gaps", 20, (2,), (5, 9, 16, 19)),
)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Parts:
    model: str
    image_size: int

    @property
    def side(self) -> int:
        return self.image_size // 16

    def images(self) -> Tensor:
        return noise(1, 3, self.image_size, self.image_size, seed=0)

    def top(self) -> Tensor:
        return noise(1, 256, self.side, self.side, seed=1)

    def mask_logits(self) -> Tensor:
        return 3 * noise(1, 1, self.image_size // 4, self.image_size // 4, seed=2)

    def memories(self, bank: Bank) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Frame, memory (1, tokens, 64) and pointer (1, 256) of each frame in the bank."""
        tokens = model_config(self.model, self.image_size).memory_tokens
        for frame in (*bank.conditioning, *bank.tracked):
            yield frame, noise(1, tokens, 64, seed=10 + frame), noise(1, 256, seed=100 + frame)

    def official(self) -> Any:
        predictor = build_official(self.model, self.image_size, postprocess=False)
        randomise(predictor, seed=11, object_score_bias=4.0)
        return predictor

    def of_official(self, predictor: Any) -> dict[str, Tensor]:
        found = {f"trunk {i}": level for i, level in enumerate(predictor.image_encoder.trunk(self.images()))}
        features = predictor.forward_image(self.images())["backbone_fpn"]
        found |= {f"map {i}": level for i, level in enumerate(reversed(features))}
        top = self.top().flatten(2).permute(2, 0, 1)
        scores = {} if not hasattr(predictor, "no_obj_embed_spatial") else {"object_score_logits": torch.ones(1, 1)}
        size = (self.image_size, self.image_size)
        masks = torch.nn.functional.interpolate(self.mask_logits(), size, mode="bilinear", align_corners=False)
        memory, places = predictor._encode_new_memory(
            [top], [(self.side,) * 2], masks, is_mask_from_pts=False, **scores
        )
        found["memory"] = _as_tokens(memory)
        found["places"] = _as_tokens(places[-1])
        for bank in BANKS:
            found[f"attention, {bank.name}"] = self._official_attention(predictor, bank, top, places[-1])
        return found

    def _official_attention(self, predictor: Any, bank: Bank, top: Tensor, places: Tensor) -> Tensor:
        outputs = {}
        for frame, tokens_bmc, pointer in self.memories(bank):
            is_map = places.ndim == 4
            memory = tokens_bmc.transpose(1, 2).view(places.shape) if is_map else tokens_bmc
            outputs[frame] = {"maskmem_features": memory, "maskmem_pos_enc": [places], "obj_ptr": pointer}
        position = predictor.image_encoder.neck.position_encoding(self.top()).flatten(2).permute(2, 0, 1)
        attended: Tensor = predictor._prepare_memory_conditioned_features(
            frame_idx=bank.frame,
            is_init_cond_frame=False,
            current_vision_feats=[top],
            current_vision_pos_embeds=[position],
            feat_sizes=[(self.side, self.side)],
            output_dict={
                "cond_frame_outputs": {f: outputs[f] for f in bank.conditioning},
                "non_cond_frame_outputs": {f: outputs[f] for f in bank.tracked},
            },
            num_frames=NUM_FRAMES,
        )
        return attended

    def of_ours(self, network: SAM2) -> dict[str, Tensor]:
        config = network.config
        found = {f"trunk {i}": level for i, level in enumerate(network.image_encoder.trunk(self.images()))}
        encoded = network.encode_image(self.images())
        maps = (encoded.top_bchw, encoded.stride8_bchw, encoded.stride4_bchw)
        found |= {f"map {i}": level for i, level in enumerate(maps) if level.numel()}
        fine = [torch.zeros(1, channels, scale * self.side, scale * self.side) for channels, scale in FINE_SHAPES]
        features = ImageFeatures(self.top(), *fine)
        memory = network.encode_memory(features, self.mask_logits(), torch.ones(1, 1), prompted=False)
        found["memory"] = memory.flatten(2).transpose(1, 2)
        found["places"] = network.spatial_perceiver.places(self.side, torch.device("cpu"))[None]
        for bank in BANKS:
            remembered = {
                frame: FrameMemory(tokens_bmc.transpose(1, 2).unflatten(2, config.memory_hw), pointer)
                for frame, tokens_bmc, pointer in self.memories(bank)
            }
            selection = BankPolicy.of(config).select(bank.frame, set(bank.conditioning), set(bank.tracked))
            tokens = gather_tokens(network, selection, remembered)
            found[f"attention, {bank.name}"] = network.attend_to_memory(features, tokens)
        return found


def _as_tokens(memory: Tensor) -> Tensor:
    """(B, tokens, C) of a map or of latents."""
    return memory.flatten(2).transpose(1, 2) if memory.ndim == 4 else memory


@dataclass(frozen=True)
class TransformersParts:
    """The same of EdgeTAM in `transformers`."""

    image_size: int
    memories: int = 3
    pointer_tokens: int = 8

    @property
    def parts(self) -> Parts:
        return Parts("edgetam", self.image_size)

    def tokens(self, seed: int) -> Tensor:
        return noise(1, self.memories * 512 + self.pointer_tokens, 64, seed=seed)

    def theirs(self) -> Any:
        """In eval mode, every parameter and stored buffer random."""
        import_official_builder()  # after which torchvision can be imported, as both `transformers` and timm do
        from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

        side = self.parts.side
        trunk = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        config = EdgeTamVideoConfig(
            vision_config={
                "model_type": "edgetam_vision_model",
                "backbone_config": {"model_type": "timm_wrapper", "architecture": "repvit_m1", "model_args": trunk},
                "backbone_feature_sizes": [[side * scale] * 2 for scale in (4, 2, 1)],
            },
            prompt_encoder_config={"image_size": self.image_size},
            image_size=self.image_size,
            enable_occlusion_spatial_embedding=False,
            enable_temporal_pos_encoding_for_object_pointers=False,
            memory_attention_rope_feat_sizes=[side, side],
        )
        model = EdgeTamVideoModel(config).eval()
        stored = model.state_dict().keys()
        tables = {name: buffer.clone() for name, buffer in model.named_buffers() if name not in stored}
        randomise(model, seed=5, object_score_bias=None)
        for name, table in tables.items():  # of sines and cosines
            model.get_buffer(name).copy_(table)
        fourier = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(fourier)
        return model

    def of_theirs(self, model: Any) -> dict[str, Tensor]:
        top, decoder = self.parts.top(), model.mask_decoder
        levels = model.vision_encoder(self.parts.images()).fpn_hidden_states
        by_side = {level.shape[-1] // self.parts.side: level for level in levels}
        found = {"top": by_side[1], "stride8": decoder.conv_s1(by_side[2]), "stride4": decoder.conv_s0(by_side[4])}
        flat = top.flatten(2).permute(2, 0, 1)
        size = (self.image_size, self.image_size)
        masks = torch.nn.functional.interpolate(self.parts.mask_logits(), size, mode="bilinear", align_corners=False)
        found["memory"], found["places"] = model._encode_new_memory(flat, masks, torch.ones(1, 1), False)
        found["conditioned"] = model.memory_attention(
            flat,
            self.tokens(2).transpose(0, 1),
            self._place().flatten(2).permute(2, 0, 1),
            self.tokens(3).transpose(0, 1),
            self.pointer_tokens,
            self.memories,
        ).reshape(1, -1, 256)
        return found

    def of_ours(self, network: SAM2) -> dict[str, Tensor]:
        top = self.parts.top()
        encoded = network.encode_image(self.parts.images())
        features = ImageFeatures(top, top, top)  # only the first is looked at
        memory = network.encode_memory(features, self.parts.mask_logits(), torch.ones(1, 1), prompted=False)
        conditioned = network.memory_attention(top, self._place(), self.tokens(2), self.tokens(3), self.pointer_tokens)
        return {
            "top": encoded.top_bchw,
            "stride8": encoded.stride8_bchw,
            "stride4": encoded.stride4_bchw,
            "memory": memory.flatten(2).transpose(1, 2),
            "places": network.spatial_perceiver.places(self.parts.side, torch.device("cpu"))[None],
            "conditioned": conditioned.flatten(2).transpose(1, 2),
        }

    def _place(self) -> Tensor:
        return sine_map(256, self.parts.side, self.parts.side, torch.device("cpu"))
