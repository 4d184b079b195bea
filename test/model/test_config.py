"""The table of sizes: each entry builds the network whose released checkpoint it is for."""

from __future__ import annotations

import pytest
import torch

from sam2_ros.model.config import MODELS, model_config
from sam2_ros.model.sam2 import SAM2

# Counted on the official code: parameters and state-dict entries.
OFFICIAL_SIZES = [
    ("sam2_hiera_tiny", 38_945_986, 468),
    ("sam2_hiera_small", 46_043_842, 516),
    ("sam2_hiera_base_plus", 80_833_666, 612),
    ("sam2_hiera_large", 224_430_130, 900),
    ("sam2.1_hiera_tiny", 38_962_498, 471),
    ("sam2.1_hiera_small", 46_060_354, 519),
    ("sam2.1_hiera_base_plus", 80_850_178, 615),
    ("sam2.1_hiera_large", 224_446_642, 903),
]


def on_meta(name: str) -> SAM2:
    """Shapes without memory."""
    with torch.device("meta"):
        return SAM2(MODELS[name])


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def num_values(module: torch.nn.Module) -> int:
    return sum(value.numel() for value in module.state_dict().values())


@pytest.mark.parametrize(("name", "parameters", "keys"), OFFICIAL_SIZES)
def test_size_is_that_of_the_released_model(name: str, parameters: int, keys: int) -> None:
    model = on_meta(name)
    assert num_parameters(model) == parameters
    assert len(model.state_dict()) == keys


def test_every_official_entry_of_the_table_is_counted_above() -> None:
    assert {name for name, _, _ in OFFICIAL_SIZES} | {"nano"} == set(MODELS)


def test_heads_have_the_released_sizes() -> None:
    model = on_meta("sam2.1_hiera_tiny")
    counts = {
        "memory_attention": 5_922_304,
        "sam_mask_decoder": 4_215_109,
        "memory_encoder": 1_384_608,
        "obj_ptr_proj": 197_376,
        "sam_prompt_encoder": 6_476,  # with its one buffer
        "obj_ptr_tpos_proj": 16_448,
    }
    assert {name: num_values(model.get_submodule(name)) for name in counts} == counts


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("maskmem_tpos_enc", (7, 1, 1, 64)),
        ("no_mem_embed", (1, 1, 256)),
        ("no_obj_ptr", (1, 256)),
        ("no_obj_embed_spatial", (1, 64)),
        ("obj_ptr_tpos_proj.weight", (64, 256)),
        ("image_encoder.trunk.pos_embed", (1, 96, 7, 7)),
        ("image_encoder.trunk.pos_embed_window", (1, 96, 8, 8)),
        ("image_encoder.trunk.blocks.1.proj.weight", (192, 96)),
        ("image_encoder.trunk.blocks.11.mlp.layers.1.weight", (768, 3072)),
        ("image_encoder.neck.convs.0.conv.weight", (256, 768, 1, 1)),
        ("memory_attention.layers.3.cross_attn_image.k_proj.weight", (256, 64)),
        ("memory_encoder.mask_downsampler.encoder.12.weight", (256, 256, 1, 1)),
        ("memory_encoder.fuser.layers.1.gamma", (256,)),
        ("sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, 128)),
        ("sam_prompt_encoder.mask_downscaling.6.weight", (256, 16, 1, 1)),
        ("sam_mask_decoder.mask_tokens.weight", (4, 256)),
        ("sam_mask_decoder.output_hypernetworks_mlps.3.layers.2.weight", (32, 256)),
        ("sam_mask_decoder.pred_obj_score_head.layers.2.weight", (1, 256)),
        ("mask_downsample.weight", (1, 1, 4, 4)),
    ],
)
def test_state_dict_has_the_released_names_and_shapes(key: str, shape: tuple[int, ...]) -> None:
    assert tuple(on_meta("sam2.1_hiera_tiny").state_dict()[key].shape) == shape


def test_2_1_adds_exactly_these_keys_to_2_0() -> None:
    newer, older = (set(on_meta(f"{version}_hiera_tiny").state_dict()) for version in ("sam2.1", "sam2"))
    assert newer - older == {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
    assert older <= newer


def test_no_weight_depends_on_the_image_size() -> None:
    with torch.device("meta"):
        small, large = (SAM2(model_config("nano", size)).state_dict() for size in (64, 512))
    assert {k: v.shape for k, v in small.items()} == {k: v.shape for k, v in large.items()}


def test_image_size_of_the_table_can_be_changed() -> None:
    assert model_config("sam2.1_hiera_tiny").image_size == 1024
    assert model_config("sam2.1_hiera_tiny", 512).feature_size == 32


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*nano.*sam2\.1_hiera_tiny"):
        model_config("huge")


@pytest.mark.parametrize("size", [0, -32, 1000])
def test_size_that_the_strides_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32 px, got {size}"):
        model_config("nano", size)
