"""Weights in the names of Hugging Face `transformers`, 4.56 and later: SAM 2's and EdgeTAM's.

The tensors are those of the official checkpoints under other names, with a few differences in what is stored: the four
point embeddings are one tensor, the Fourier matrix can be there twice, and keys and values of EdgeTAM's perceiver are
projected by two matrices for one. Sam2Model and EdgeTamModel save the image part alone, Sam2VideoModel and
EdgeTamVideoModel everything.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

_FOURIER = "shared_image_embedding.positional_embedding"
_FOURIER_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"
_NUM_POINT_EMBEDDINGS = 4  # negative, positive, and a box's two corners
_POINTS = "prompt_encoder.point_embed.weight"

# Regular expressions and their replacements; all rules are applied in order.
_THREE_LAYERS = r"(output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head|object_pointer_proj)"
_PERCEIVER = r"^(spatial_perceiver\.layers\.\d+)\."
_RULES: tuple[tuple[str, str], ...] = (
    # What EdgeTAM has beside SAM 2.
    (r"^vision_encoder\.backbone\.timm_model\.", "image_encoder.trunk.body."),
    (r"^(memory_attention\.layers\.\d+)\.mlp\.up_proj\.", r"\1.linear1."),
    (r"^(memory_attention\.layers\.\d+)\.mlp\.down_proj\.", r"\1.linear2."),
    (r"^spatial_perceiver\.latents_1d$", "spatial_perceiver.latents"),
    (rf"{_PERCEIVER}layer_norm_input\.", r"\1.attn.norm_x."),
    (rf"{_PERCEIVER}layer_norm_latents\.", r"\1.attn.norm_latents."),
    (rf"{_PERCEIVER}layer_norm_self\.", r"\1.self_attn.norm."),
    (rf"{_PERCEIVER}cross_attention\.", r"\1.attn."),
    (rf"{_PERCEIVER}self_attention\.", r"\1.self_attn."),
    (rf"{_PERCEIVER}((?:self_)?)mlp\.layer_norm\.", r"\1.\2ff.0."),
    (rf"{_PERCEIVER}((?:self_)?)mlp\.up_proj\.", r"\1.\2ff.1."),
    (rf"{_PERCEIVER}((?:self_)?)mlp\.down_proj\.", r"\1.\2ff.3."),
    (rf"{_PERCEIVER}((?:self_)?attn)\.([qkv])_proj\.", r"\1.\2.to_\3."),
    (rf"{_PERCEIVER}((?:self_)?attn)\.o_proj\.", r"\1.\2.to_out."),
    # Perceptrons: of three layers, then of two.
    (rf"{_THREE_LAYERS}\.layers\.0\.", r"\1.layers.1."),
    (rf"{_THREE_LAYERS}\.proj_in\.", r"\1.layers.0."),
    (rf"{_THREE_LAYERS}\.proj_out\.", r"\1.layers.2."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    # Sequences whose members have names there and indices here.
    (r"mask_embed\.conv1\.", "mask_downscaling.0."),
    (r"mask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"mask_embed\.conv2\.", "mask_downscaling.3."),
    (r"mask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"mask_embed\.conv3\.", "mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    *((rf"downsampler\.layers\.{i}\.conv\.", f"downsampler.encoder.{3 * i}.") for i in range(4)),
    *((rf"downsampler\.layers\.{i}\.layer_norm\.", f"downsampler.encoder.{3 * i + 1}.") for i in range(4)),
    (r"downsampler\.final_conv\.", "downsampler.encoder.12."),
    # Words.
    (r"(fuser\.layers\.\d)\.scale$", r"\1.gamma"),
    (r"\.depthwise_conv\.", ".dwconv."),
    (r"\.pointwise_conv", ".pwconv"),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d?)\.", r".norm\1."),
    (r"\.o_proj\.", ".out_proj."),
    (r"^memory_encoder\.feature_projection\.", "memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", "memory_encoder.fuser."),
    (r"^vision_encoder\.backbone\.patch_embed\.projection\.", "vision_encoder.backbone.patch_embed.proj."),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (
        r"^shared_image_embedding\.positional_embedding$",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", "obj_ptr_tpos_proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
)


def is_huggingface(state: dict[str, Tensor]) -> bool:
    """Whether these are the names of `transformers`."""
    return any(name.startswith("vision_encoder.") for name in state)


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names of the official checkpoints; a name that no rule matches is kept.

    Raises:
        ValueError: the two copies of the Fourier matrix differ, where SAM 2 has one, or two names are those of one
            tensor. What torch raises of types that it cannot compare is a RuntimeError.
    """
    state = dict(state)
    again = state.pop(_FOURIER_AGAIN, None)
    if again is not None and not torch.equal(state.setdefault(_FOURIER, again).float(), again.float()):
        raise ValueError(f"{_FOURIER} and {_FOURIER_AGAIN} differ, where SAM 2 has one matrix for both")
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = {_official_name(name): tensor}
        if name == _POINTS and tensor.ndim == 2 and len(tensor) == _NUM_POINT_EMBEDDINGS:
            parts = {f"sam_prompt_encoder.point_embeddings.{i}.weight": row for i, row in enumerate(tensor.split(1))}
        if twice := sorted(parts.keys() & renamed.keys()):
            raise ValueError(f"{name[:80]!r} and another name both stand for {twice[0][:80]!r}")
        renamed |= parts
    return _with_joined_values(renamed)


def _with_joined_values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each ``to_k`` and ``to_v`` of EdgeTAM's perceiver as one ``to_kv``; a pair that does not fit stays as it is."""
    joined = dict(state)
    for name, keys in state.items():
        if name.startswith("spatial_perceiver.") and name.endswith(".to_k.weight"):
            values = state.get(name.replace(".to_k.", ".to_v."))
            if values is not None and values.shape == keys.shape and keys.ndim == 2:
                joined[name.replace(".to_k.", ".to_kv.")] = torch.cat((joined.pop(name), values))
                del joined[name.replace(".to_k.", ".to_v.")]
    return joined


def _official_name(name: str) -> str:
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
