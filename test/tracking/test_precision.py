"""Which types a network runs in, and that its masks stay the same in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.model.config import MODELS
from sam2_ros.tracking import precision as module
from sam2_ros.tracking.loading import load_network
from sam2_ros.tracking.precision import Precision, choose_precision, has_fast_bfloat16
from sam2_ros.tracking.tracker import Tracker

CPU = torch.device("cpu")
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("word", "model", "fast", "expected"),
    [
        ("auto", "sam2.1_hiera_tiny", True, Precision(BFLOAT16, BFLOAT16)),
        ("auto", "nano", True, Precision(FLOAT32, BFLOAT16)),
        ("auto", "sam2.1_hiera_tiny", False, Precision(FLOAT32, FLOAT32)),
        ("auto", "nano", False, Precision(FLOAT32, FLOAT32)),
        ("float32", "sam2.1_hiera_tiny", True, Precision(FLOAT32, FLOAT32)),
        ("bfloat16", "nano", False, Precision(BFLOAT16, BFLOAT16)),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, word: str, model: str, fast: bool, expected: Precision) -> None:
    monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: fast)
    assert choose_precision(word, MODELS[model], CPU) == expected


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: expected one of auto, float32, bfloat16, got 'half'"):
        load_network("nano", precision="half")


@pytest.mark.parametrize(
    ("found", "fast"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_a_cpu_is_asked_for_its_instructions(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_fast_bfloat16(CPU) is fast


def test_loaded_network_has_the_types_asked_for() -> None:
    network = load_network("nano", precision="bfloat16")
    assert network.image_encoder.trunk.stem.weight.dtype == BFLOAT16
    assert network.memory_attention.layers[0].linear1.weight.dtype == BFLOAT16
    assert {p.dtype for p in network.memory_encoder.parameters()} == {FLOAT32}
    assert {p.dtype for p in load_network("nano", precision="float32").parameters()} == {FLOAT32}


@torch.inference_mode()
def test_sums_through_the_blocks_stay_in_float32() -> None:
    """Also where a block widens them; and a GPU's layer norm takes one type alone."""
    model = tiny_model(TINY)
    model.compute_in(BFLOAT16, BFLOAT16)
    levels = model.image_encoder.trunk(torch.zeros(1, 3, TINY.image_size, TINY.image_size))
    assert {level.dtype for level in levels} == {FLOAT32}


def test_what_makes_and_ends_the_sums_stays_in_float32() -> None:
    model = tiny_model(TINY)
    model.compute_in(BFLOAT16, BFLOAT16)
    trunk, decoder = model.image_encoder.trunk, model.sam_mask_decoder
    widening = [block for block in trunk.blocks if block.widens]
    assert widening
    for part in (trunk.patch_embed, model.image_encoder.neck, decoder, *(block.proj for block in widening)):
        assert {p.dtype for p in part.parameters()} == {FLOAT32}
    assert {p.dtype for block in trunk.blocks for p in (*block.attn.parameters(), *block.mlp.parameters())} == {
        BFLOAT16
    }


@pytest.mark.parametrize("types", [Precision(FLOAT32, BFLOAT16), Precision(BFLOAT16, BFLOAT16)], ids=str)
def test_masks_stay_nearly_the_same(types: Precision) -> None:
    def masks(chosen: Precision) -> np.ndarray:
        model = tiny_model(TINY)
        model.compute_in(chosen.image_encoder, chosen.memory_attention)
        tracker = Tracker(model)
        tracker.add_prompt("a", points=[(20, 20)], labels=[1])
        tracker.add_prompt("b", box=(30, 10, 70, 40))
        return np.stack([[t.low_res_logits for t in tracker.step(image)] for image in noise_frames(8)])

    exact, rounded = masks(Precision(FLOAT32, FLOAT32)), masks(types)
    assert not np.array_equal(exact, rounded)  # or nothing was changed
    assert ((exact > 0) == (rounded > 0)).mean() > 0.97
