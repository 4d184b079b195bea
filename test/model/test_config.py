"""The table of sizes: each entry builds the network whose released checkpoint it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from sam2_ros.model.checkpoint import fill_model, fitting_models, infer_model_name, read_state_dict
from sam2_ros.model.config import MODELS, model_config
from sam2_ros.model.repvit import fold_batch_norms
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
    *((f"efficienttam_ti{variant}", 17_866_018, 455) for variant in ("", "_1", "_2", "_512x512")),
    *((f"efficienttam_s{variant}", 34_055_842, 455) for variant in ("", "_1", "_2", "_512x512")),
]
EDGETAM_PARAMETERS = 13_895_794
KEYS = Path(__file__).parents[1] / "support" / "official_keys"


def official_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in an official checkpoint, as counted on the official code."""
    lines = (KEYS / f"{name}.txt").read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines)}


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


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
    assert {name for name, _, _ in OFFICIAL_SIZES} | {"nano", "edgetam"} == set(MODELS)


def test_efficienttam_has_all_official_keys() -> None:
    assert shapes(on_meta("efficienttam_ti").state_dict()) == official_keys("efficienttam_ti")


def test_edgetam_has_all_official_keys_once_they_are_folded() -> None:
    keys = official_keys("edgetam")
    state = {name: torch.zeros(shape) for name, shape in keys.items()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert len(keys) == 982
    assert sum(tensor.numel() for name, tensor in state.items() if not name.endswith(statistics)) == (
        EDGETAM_PARAMETERS + 2 * 128  # and the Fourier matrix, a buffer
    )
    folded = fold_batch_norms(state)
    assert shapes(folded) == shapes(on_meta("edgetam").state_dict())
    assert sum(name.startswith("image_encoder.trunk.") for name in folded) == 206


@pytest.mark.parametrize(("file", "name"), [("edgetam", "edgetam"), ("efficienttam_ti", "efficienttam_ti")])
def test_official_checkpoint_tells_its_model(tmp_path: Path, file: str, name: str) -> None:
    """All of them filled with ones, through a file and the loader."""
    state = {key: torch.ones(shape) for key, shape in official_keys(file).items()}
    torch.save({"model": state}, tmp_path / "official.pt")
    read = read_state_dict(tmp_path / "official.pt")
    assert infer_model_name(read) == name
    model = SAM2(MODELS[name])
    fill_model(model, read, tmp_path / "official.pt")
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("trunk", ["efficienttam_ti", "efficienttam_s"])
def test_variant_of_equal_shapes_is_the_one_that_the_file_is_named_after(trunk: str) -> None:
    variants = [trunk, f"{trunk}_1", f"{trunk}_2", f"{trunk}_512x512"]
    state = on_meta(trunk).state_dict()
    assert fitting_models(state) == variants
    assert [infer_model_name(state, variant) for variant in variants] == variants
    for other in ("", "weights", "edgetam", "efficienttam_ti" if trunk == "efficienttam_s" else "efficienttam_s"):
        assert infer_model_name(state, other) == trunk


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
def test_size_that_the_strides_do_not_divide_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 32 px for nano, got {size}"):
        model_config("nano", size)


@pytest.mark.parametrize("size", [0, 128, 320, 640])
def test_size_whose_map_has_no_16_windows_in_a_row_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 256 px for edgetam, got {size}"):
        model_config("edgetam", size)
