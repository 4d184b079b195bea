"""Weights in the names of `transformers`: the same network comes out of them, with nothing missing or left over."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface import MISSING, import_transformers, transformers_config, transformers_model

from sam2_ros.model.checkpoint import (
    MEMORY_PART,
    CheckpointError,
    fill_model,
    infer_model_name,
    load_checkpoint,
    read_state_dict,
)
from sam2_ros.model.config import MODELS, HieraSpec
from sam2_ros.model.huggingface import is_huggingface, official_names
from sam2_ros.model.position_encoding import sine_map
from sam2_ros.model.prompt_encoder import PointPrompts
from sam2_ros.model.sam2 import SAM2

pytestmark = pytest.mark.numeric

OFFICIAL = [name for name in MODELS if "hiera" in name]  # EdgeTAM's: test/parity/test_relatives.py
SMALL = replace(
    MODELS["sam2.1_hiera_tiny"],
    name="small-test",
    trunk=HieraSpec(16, 1, (1, 2, 3, 2), (4,), background_grid=(3, 3)),
    image_size=128,
    d_model=128,
    memory_layers=2,
    memory_ffn_dim=64,
    decoder_heads=4,
    decoder_ffn_dim=96,
    iou_hidden_dim=64,
)
SIDE = SMALL.feature_size
FOURIER_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return transformers_model(SMALL)


@pytest.fixture(scope="module")
def folder(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> SAM2:
    model = SAM2(SMALL).eval()
    load_checkpoint(model, folder / "model.safetensors")
    return model


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.std() > 1e-3, "comparing constants says nothing"
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * scale)


def assert_same_features(ours: SAM2, theirs: torch.nn.Module, images: torch.Tensor) -> None:
    """As the heads see them: strides 4 and 8 after the decoder's own convolutions, which both kinds of theirs have."""
    features, decoder = ours.encode_image(images), theirs.mask_decoder
    by_side = {level.shape[-1]: level for level in theirs.vision_encoder(images).fpn_hidden_states}
    assert_same(features.top_bchw, by_side[features.top_bchw.shape[-1]])
    assert_same(features.stride8_bchw, decoder.conv_s1(by_side[features.stride8_bchw.shape[-1]]))
    assert_same(features.stride4_bchw, decoder.conv_s0(by_side[features.stride4_bchw.shape[-1]]))


@torch.no_grad()
def test_image_features_are_theirs(ours: SAM2, theirs: torch.nn.Module) -> None:
    images = noise(2, 3, 128, 128)
    assert_same_features(ours, theirs, images)


@torch.no_grad()
@pytest.mark.parametrize("with_mask", [False, True])
def test_prompts_and_masks_are_theirs(ours: SAM2, theirs: torch.nn.Module, with_mask: bool) -> None:
    points, labels = torch.tensor([[[20.0, 31.0], [90.0, 64.5], [7.0, 3.0]]]), torch.tensor([[2, 3, 0]])
    mask = noise(1, 1, 4 * SIDE, 4 * SIDE) * 5 if with_mask else None
    sparse, dense = theirs.prompt_encoder(points[None], labels[None], None, mask)
    encoded = ours.sam_prompt_encoder(PointPrompts(points, labels), mask, 1)
    assert_same(encoded.tokens_bnc, sparse[0])
    assert_same(encoded.dense_bchw.expand_as(dense), dense)

    top, stride8, stride4 = (
        noise(1, 128, SIDE, SIDE),
        noise(1, 128, 2 * SIDE, 2 * SIDE),
        noise(1, 128, 4 * SIDE, 4 * SIDE),
    )
    decoder = theirs.mask_decoder
    fine = [decoder.conv_s0(stride4), decoder.conv_s1(stride8)]
    wide = theirs.get_image_wide_positional_embeddings()
    for multimask in (False, True):
        masks, ious, tokens, scores = decoder(top, wide, sparse, dense, multimask, fine)
        decoded = ours.sam_mask_decoder(
            top,
            ours.sam_prompt_encoder.dense_position(),
            encoded,
            ours.sam_mask_decoder.conv_s0(stride4),
            ours.sam_mask_decoder.conv_s1(stride8),
            multimask,
        )
        assert_same(decoded.logits_bmhw, masks[:, 0])
        torch.testing.assert_close(decoded.ious_bm, ious[:, 0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoded.object_score_logits_b1, scores[:, 0], rtol=1e-4, atol=1e-5)
        pointer = theirs.object_pointer_proj(tokens[:, 0])
        assert_same(ours.obj_ptr_proj(decoded.tokens_bmc)[:, : pointer.shape[1]], pointer)


@torch.no_grad()
def test_memory_attention_is_theirs(ours: SAM2, theirs: torch.nn.Module) -> None:
    top, position = noise(1, 128, SIDE, SIDE), sine_map(128, SIDE, SIDE, torch.device("cpu"))
    count = 2 * SIDE * SIDE + 4  # two memory maps and two pointers of two tokens
    memory, memory_position = noise(1, count, 64, seed=2), noise(1, count, 64, seed=3)
    expected = theirs.memory_attention(
        top.flatten(2).permute(2, 0, 1),
        memory.transpose(0, 1),
        position.flatten(2).permute(2, 0, 1),
        memory_position.transpose(0, 1),
        4,
    )
    found = ours.memory_attention(top, position, memory, memory_position, 4)
    assert_same(found.flatten(2)[0].T, expected.reshape(SIDE * SIDE, 128))


@torch.no_grad()
def test_memories_are_theirs(ours: SAM2, theirs: torch.nn.Module) -> None:
    top, mask = noise(1, 128, SIDE, SIDE), noise(1, 1, 128, 128).sigmoid() * 20 - 10
    assert_same(ours.memory_encoder(top, mask), theirs.memory_encoder(top, mask)[0])
    assert_same(ours.mask_downsample(mask), theirs.mask_downsample(mask))
    times = noise(3, 128)
    assert_same(ours.obj_ptr_tpos_proj(times), theirs.temporal_positional_encoding_projection_layer(times))


def test_single_tensors_are_theirs(ours: SAM2, theirs: torch.nn.Module) -> None:
    pairs = {
        "no_mem_embed": "no_memory_embedding",
        "no_mem_pos_enc": "no_memory_positional_encoding",
        "maskmem_tpos_enc": "memory_temporal_positional_encoding",
        "no_obj_ptr": "no_object_pointer",
        "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
    }
    for our_name, their_name in pairs.items():
        assert torch.equal(getattr(ours, our_name), getattr(theirs, their_name))


def state_without_values(name: str, kind: str) -> dict[str, torch.Tensor]:
    """Names and shapes of their model of that size; no memory is used."""
    transformers = import_transformers()
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(transformers_config(MODELS[name], kind))
    return {key: torch.zeros(1).expand(value.shape) for key, value in model.state_dict().items()}


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("kind", ["Sam2Video", "Sam2"])
def test_every_key_of_every_size_has_its_place(name: str, kind: str) -> None:
    with torch.device("meta"):
        expected = shapes(SAM2(MODELS[name]).state_dict())
    if kind == "Sam2":
        expected = {key: shape for key, shape in expected.items() if not key.startswith(MEMORY_PART)}
    stored = state_without_values(name, kind)
    assert is_huggingface(stored)
    state = official_names(stored)
    assert shapes(state) == expected
    assert infer_model_name(state) == (name if kind == "Sam2Video" else name.replace("sam2_", "sam2.1_"))


def test_image_model_fills_the_image_part(tmp_path: Path) -> None:
    theirs, ours = transformers_model(SMALL, "Sam2"), SAM2(SMALL).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"not for a tracker.*Sam2VideoModel"):
        load_checkpoint(ours, tmp_path)
    fill_model(ours, read_state_dict(tmp_path), tmp_path, image_only=True)
    images = noise(1, 3, 128, 128)
    with torch.no_grad():
        assert_same_features(ours, theirs, images)


def test_all_ways_of_saving_give_the_same(ours: SAM2, theirs: torch.nn.Module, folder: Path, tmp_path: Path) -> None:
    shards, pickled = tmp_path / "shards", tmp_path / "pytorch_model.bin"
    theirs.save_pretrained(shards, max_shard_size="1MB")
    assert (shards / "model.safetensors.index.json").is_file()
    torch.save(theirs.state_dict(), pickled)
    renamed = tmp_path / "weights"
    renamed.write_bytes((folder / "model.safetensors").read_bytes())
    for path in (folder, shards, shards / "model.safetensors.index.json", pickled, tmp_path, renamed):
        state = read_state_dict(path)
        assert shapes(state) == shapes(ours.state_dict())
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


def test_one_fourier_matrix_is_enough_and_two_must_agree(ours: SAM2, theirs: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(theirs.state_dict())
    path = tmp_path / "weights.bin"
    torch.save({name: tensor for name, tensor in state.items() if name != FOURIER_AGAIN}, path)
    assert shapes(read_state_dict(path)) == shapes(ours.state_dict())
    torch.save({**state, FOURIER_AGAIN: state[FOURIER_AGAIN] + 1}, path)
    with pytest.raises(CheckpointError, match=r"weights\.bin: shared_image_embedding.* differ, where SAM 2 has one"):
        read_state_dict(path)


def test_fourier_matrices_that_cannot_be_compared_are_rejected(theirs: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(theirs.state_dict())
    state[FOURIER_AGAIN] = torch.zeros(state[FOURIER_AGAIN].shape, dtype=torch.uint8).view(torch.bits8)
    torch.save(state, tmp_path / "odd.bin")
    with pytest.raises(CheckpointError, match=r"odd\.bin: not a readable checkpoint") as caught:
        read_state_dict(tmp_path / "odd.bin")
    assert "\n" not in str(caught.value)


def test_two_names_of_one_tensor_are_rejected(theirs: torch.nn.Module, tmp_path: Path) -> None:
    state = dict(theirs.state_dict())
    name = next(name for name in state if name.endswith(".o_proj.weight"))
    state[name.replace("o_proj", "out_proj")] = state[name]
    torch.save(state, tmp_path / "merged.bin")
    with pytest.raises(CheckpointError, match=r"out_proj\.weight' and another name both stand for '"):
        read_state_dict(tmp_path / "merged.bin")


def test_a_tensor_in_two_shards_is_rejected(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save({"a": torch.full((1,), number)}, tmp_path / f"part-{number}.bin")
    index = {"weight_map": {"a": "part-1.bin", "b": "part-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"'a' is in part-2\.bin and in a file before it"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "not a readable index of weights"),
        ("[1]", "not a readable index of weights"),
        ("[" * 100_000, "not a readable index of weights"),
        (
            json.dumps({"weight_map": {"a": "../model.safetensors"}}),
            "expected the names of files beside it, found '../m",
        ),
        (json.dumps({"weight_map": {"a": "/etc/passwd"}}), "expected the names of files beside it"),
        (json.dumps({"weight_map": {"a": "model-1.safetensors"}}), "model-1.safetensors: no such file"),
    ],
)
def test_index_that_leads_nowhere_is_rejected(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(tmp_path)


def test_sha256_of_shards_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="one sha256 cannot vouch for them"):
        read_state_dict(tmp_path, "0" * 64)


def test_truncated_safetensors_file_is_rejected(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in (5, 9, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(
            CheckpointError, match=r"cut\.safetensors: not a readable checkpoint, it is damaged"
        ) as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value)


def test_the_length_of_a_safetensors_header_is_no_sign_of_a_web_page(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch", reason=MISSING).save_file
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    padded = length + (ord("<") - length) % 256
    header = content[8 : 8 + length].ljust(padded)  # a writer may pad it with blanks
    path.write_bytes(padded.to_bytes(8, "little") + header + content[8 + length :])
    assert path.read_bytes()[:1] == b"<"
    assert read_state_dict(path)["a"].tolist() == [0.0]


def test_official_names_in_safetensors_load_as_well(ours: SAM2, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch", reason=MISSING).save_file
    save_file(ours.state_dict(), tmp_path / "official.safetensors")
    again = SAM2(SMALL)
    load_checkpoint(again, tmp_path / "official.safetensors")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="needs safetensors: pip install safetensors"):
        read_state_dict(folder)
