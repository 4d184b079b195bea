"""SAM 2 as `transformers` builds it, with a config that answers to one of ours and random weights."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from sam2_ros.model.config import HieraSpec, ModelConfig

MISSING = "needs transformers: run `make venv`, or pip install 'transformers>=4.56,<6'"


def import_transformers() -> ModuleType:
    """The package, imported as if torchvision were absent: its models do not need it, and what is installed here for
    the official code has no compiled part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        transformers = pytest.importorskip("transformers", reason=MISSING)
        for name in ("Sam2Model", "Sam2Config", "Sam2VideoModel", "Sam2VideoConfig"):
            getattr(transformers, name)  # imported on first use
    return transformers


def transformers_config(config: ModelConfig, kind: str = "Sam2Video"):
    """Sam2VideoConfig, or Sam2Config where ``kind`` is "Sam2"."""
    spec, size, width = config.trunk, config.image_size, config.d_model
    assert isinstance(spec, HieraSpec)
    widths = [spec.embed_dim * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": spec.embed_dim,
        "num_attention_heads": spec.num_heads,
        "image_size": [size, size],
        "window_positional_embedding_background_size": list(spec.background_grid),
        "blocks_per_stage": list(spec.stages),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [spec.num_heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(spec.window_sizes),
        "global_attention_blocks": list(spec.global_blocks),
    }
    image_part = {
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[size // stride] * 2 for stride in (4, 8, 16)],
            "fpn_hidden_size": width,
        },
        "prompt_encoder_config": {"hidden_size": width, "image_size": size},
        "mask_decoder_config": {
            "hidden_size": width,
            "mlp_dim": config.decoder_ffn_dim,
            "num_attention_heads": config.decoder_heads,
            "iou_head_hidden_dim": config.iou_hidden_dim,
            "dynamic_multimask_via_stability": False,
        },
    }
    transformers = import_transformers()
    if kind == "Sam2":
        return transformers.Sam2Config(**image_part)
    return transformers.Sam2VideoConfig(
        **image_part,
        image_size=size,
        num_maskmem=config.num_spatial_memories,
        enable_occlusion_spatial_embedding=config.no_object_memory_embed,
        enable_temporal_pos_encoding_for_object_pointers=config.pointer_time_encoding,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=config.memory_layers,
        memory_attention_feed_forward_hidden_size=config.memory_ffn_dim,
        memory_attention_rope_feat_sizes=[config.feature_size] * 2,
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=config.memory_dim,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )


def transformers_model(config: ModelConfig, kind: str = "Sam2Video", seed: int = 0) -> torch.nn.Module:
    """Sam2VideoModel, or Sam2Model, in eval mode, every parameter and stored buffer random."""
    model = getattr(import_transformers(), f"{kind}Model")(transformers_config(config, kind)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():  # shares memory with the model
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor.copy_(1 + 0.2 * noise)
        elif tensor.ndim >= 2 and name.endswith("weight") and "embed" not in name and "token" not in name:
            tensor.copy_(0.7 * noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(0.3 * noise)
    model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(
        model.shared_image_embedding.positional_embedding.data
    )
    return model
