"""Which model the node's parameters mean."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.checkpoint import CheckpointError
from sam2_ros.model.config import MODELS, Approximations, ModelConfig
from sam2_ros.session import model_loading
from sam2_ros.session.model_loading import SharedNetworks, describe_model, load_configured_tracker
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.rules.memory_selection import MEMORY_SELECTIONS
from sam2_ros.tracking.runtime.compiled import CompiledNetwork


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model().state_dict(), path)
    return path


def load(**values: object) -> Any:
    return load_configured_tracker(parse({"device": "cpu", **values}))


def load_network_config(**values: object) -> ModelConfig:
    return SharedNetworks().load(parse({"device": "cpu", "weights": "random", **values})).config


def test_when_an_object_is_believed_to_be_back_can_be_chosen() -> None:
    assert load(weights="random")._engine.recover_after_frames == 2
    assert load(weights="random", recover_after_frames=5)._engine.recover_after_frames == 5


@pytest.mark.parametrize("selection", MEMORY_SELECTIONS)
def test_which_frames_are_remembered_can_be_chosen(selection: str) -> None:
    expected = "distractor" if selection == "auto" else selection  # nano's
    assert load(weights="random", memory_selection=selection)._engine.policy.name == expected


def test_auto_is_the_model_of_the_checkpoint_and_nano_without_one(checkpoint: Path) -> None:
    assert load(checkpoint=str(checkpoint)).model_name == TINY.name
    assert load(weights="random").model_name == "nano"


def test_a_name_must_fit_the_checkpoint(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="It looks like tiny-test"):
        load(model="nano", checkpoint=str(checkpoint))


def test_the_hash_of_the_checkpoint_is_checked(checkpoint: Path) -> None:
    right = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert load(checkpoint=str(checkpoint), checkpoint_sha256=right).model_name == TINY.name
    with pytest.raises(CheckpointError, match="has another sha256"):
        load(checkpoint=str(checkpoint), checkpoint_sha256=right[::-1])


def test_the_number_of_threads_can_be_given_back_to_pytorch() -> None:
    before, default = torch.get_num_threads(), model_loading._threads_by_default()
    other = default + 1
    try:
        load(weights="random", num_threads=other)
        assert torch.get_num_threads() == other
        load_configured_tracker(parse({"device": "cpu", "weights": "random"}), SharedNetworks())
        assert torch.get_num_threads() == other, "one camera of several has no say in what another one asked for"
        load(weights="random")
        assert torch.get_num_threads() == default
    finally:
        torch.set_num_threads(before)


def test_how_much_it_computes_can_be_chosen() -> None:
    config = load_network_config()
    assert config.image_size == 320 and config.approximations == Approximations()
    config = load_network_config(image_size=256, memory_pooling=2, recent_memories=1)
    assert config.image_size == 256 and config.approximations == Approximations(2, 1)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "nano with embedded weights"),
        ({"model": "edgetam"}, "edgetam with its official weights"),
        ({"model": "sam2_hiera_tiny", "weights": "random"}, "sam2_hiera_tiny with random weights"),
        ({"checkpoint": "w.pt"}, "the model of w.pt"),
        ({"model": "sam2_hiera_tiny", "checkpoint": "w.pt"}, "sam2_hiera_tiny of w.pt"),
    ],
)
def test_the_log_says_what_is_loaded(values: dict[str, Any], text: str) -> None:
    assert describe_model(parse(values)) == text


def test_the_tracker_keeps_as_much_of_the_past_as_the_parameters_say() -> None:
    tracker = load(weights="random", prompt_buffer_s=2.0, catchup_budget_ms=12.0)
    assert (tracker._buffer_frames, tracker._catchup_budget_ms) == (60, 12.0)


@pytest.mark.parametrize("zoom", [False, True])
def test_zoom_can_be_asked_for(zoom: bool) -> None:
    assert load(weights="random", zoom=zoom)._engine.zoom is zoom


def test_compiling_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledNetwork, "warm_up", lambda self: None)
    networks = SharedNetworks()
    compiled = networks.load(parse({"device": "cpu", "weights": "random", "compile": True}))
    plain = networks.load(parse({"device": "cpu", "weights": "random"}))
    assert isinstance(compiled, CompiledNetwork) and not isinstance(plain, CompiledNetwork)
