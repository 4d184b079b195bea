"""The official code of EdgeTAM and EfficientTAM, to compare ours with.

Both install a package named ``sam2``, as SAM 2's own code does. Each lies in a folder of its own, and is imported in a
process of its own that has this folder first on its path; ``environment`` says how to start one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam2_ros.model.config import ModelConfig, VitSpec, model_config

FAMILIES = ("edgetam", "efficienttam")


def family_of(model: str) -> str | None:
    """The family (of ``FAMILIES``) whose official code a model is compared with; None: SAM 2's code, or none."""
    return next((family for family in FAMILIES if model.startswith(family)), None)


def packages(family: str) -> Path:
    """Where ``make venv`` installs that code."""
    return Path(sys.prefix, "official", family)


def environment(family: str, *more_paths: Path) -> dict[str, str]:
    """The environment variables of a process in which ``import sam2`` is that family's.

    Raises:
        ImportError: it is not installed.
    """
    folder = packages(family)
    if not Path(folder, "sam2").is_dir():
        raise ImportError(f"the official code of {family} is not installed (looked in {folder}): run `make venv`")
    paths = os.pathsep.join(map(str, (folder, *more_paths)))
    return {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}  # timm would look for weights that nobody needs


def build_relative(
    builder: Callable[..., Any], name: str, image_size: int, postprocess: bool, overrides: Sequence[str], device: str
) -> Any:
    """The official video predictor of an EdgeTAM or EfficientTAM entry of our table, in a process of that code.

    Args:
        builder: ``build_sam2_video_predictor`` of that code.
        name, image_size, postprocess, overrides, device: see ``build_official``.

    Raises:
        ImportError: this process has another package of that name.
    """
    family = family_of(name)
    assert family is not None
    found = Path(sys.modules[builder.__module__].__file__ or "")
    if not found.is_relative_to(packages(family)):
        raise ImportError(f"{name} needs a process with the code of {family} (official_relatives.environment): {found}")
    config = model_config(name, image_size)
    if family == "edgetam":
        _without_download()
        side = config.feature_size
        attention = "model.memory_attention.layer"
        sizes = [f"{attention}.self_attention.feat_sizes=[{side},{side}]"]
        sizes += [f"{attention}.cross_attention.q_sizes=[{side},{side}]"]
        return builder(
            "configs/edgetam.yaml",
            device=device,
            hydra_overrides_extra=[f"++model.image_size={image_size}", *sizes, *overrides],
            apply_postprocessing=postprocess,
        )
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    dots = [*(_POSTPROCESS if postprocess else ()), *overrides]
    given = OmegaConf.from_dotlist([each.lstrip("+") for each in dots])
    values = OmegaConf.merge(OmegaConf.create({"model": _efficienttam(config)}), given)
    return instantiate(values.model, _recursive_=True).to(device).eval()


def _without_download() -> None:
    """Keep EdgeTAM's trunk from downloading timm's ImageNet weights, which are overwritten right after."""
    from sam2.modeling.backbones import timm as official_trunk

    create = official_trunk.create_model
    official_trunk.create_model = lambda name, pretrained, **options: create(name, pretrained=False, **options)


# What the builder's ``apply_postprocessing`` sets, without hole filling: its extension is not built here.
_POSTPROCESS = (
    "model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "model.binarize_mask_from_pts_for_mem_enc=true",
)


def _efficienttam(config: ModelConfig) -> dict[str, Any]:
    """The values of EfficientTAM's YAML files, which its package does not have.

    As in efficient_track_anything/configs/*.yaml of github.com/yformer/EfficientTAM (Apache-2.0) at 3188af2.
    """
    trunk = config.trunk
    assert isinstance(trunk, VitSpec)
    return {
        "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
        "image_encoder": {
            "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
            "scalp": 0,
            "trunk": {
                "_target_": "sam2.modeling.backbones.vitdet.ViT",
                "patch_size": 16,
                "embed_dim": trunk.embed_dim,
                "depth": 12,
                "num_heads": trunk.num_heads,
                "window_size": 14,
                "window_block_indexes": [0, 1, 3, 4, 6, 7, 9, 10],
            },
            "neck": {
                "_target_": "sam2.modeling.backbones.image_encoder.ViTDetNeck",
                "position_encoding": _sine(256),
                "d_model": 256,
                "backbone_channel_list": [trunk.embed_dim],
                "neck_norm": "LN",
            },
        },
        "memory_attention": _memory_attention(config.name),
        "memory_encoder": _memory_encoder(),
        "image_size": config.image_size,
        **_EFFICIENTTAM_SETTINGS,
    }


def _sine(features: int) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": features,
        "normalize": True,
    }


def _memory_attention(name: str) -> dict[str, Any]:
    kinds = {"_1": "EfficientRoPEAttention1", "_2": "EfficientRoPEAttention2"}
    attention = {"feat_sizes": [32, 32], "embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1}
    module = "sam2.modeling.sam.transformer"
    return {
        "_target_": "sam2.modeling.memory_attention.MemoryAttention",
        "d_model": 256,
        "pos_enc_at_input": True,
        "num_layers": 4,
        "layer": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
            "activation": "relu",
            "d_model": 256,
            "dim_feedforward": 2048,
            "dropout": 0.1,
            "pos_enc_at_attn": False,
            "pos_enc_at_cross_attn_keys": True,
            "pos_enc_at_cross_attn_queries": False,
            "self_attention": {"_target_": f"{module}.RoPEAttention", **attention},
            "cross_attention": {
                "_target_": f"{module}.{kinds.get(name[-2:], 'RoPEAttention')}",
                "rope_k_repeat": True,
                "kv_in_dim": 64,
                **attention,
            },
        },
    }


def _memory_encoder() -> dict[str, Any]:
    module = "sam2.modeling.memory_encoder"
    return {
        "_target_": f"{module}.MemoryEncoder",
        "out_dim": 64,
        "position_encoding": _sine(64),
        "mask_downsampler": {"_target_": f"{module}.MaskDownSampler", "kernel_size": 3, "stride": 2, "padding": 1},
        "fuser": {
            "_target_": f"{module}.Fuser",
            "num_layers": 2,
            "layer": {"_target_": f"{module}.CXBlock", "dim": 256, "kernel_size": 7, "padding": 3, "use_dwconv": True},
        },
    }


_EFFICIENTTAM_SETTINGS: Mapping[str, Any] = {
    "num_maskmem": 7,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": False,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "add_tpos_enc_to_obj_ptrs": False,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
}
