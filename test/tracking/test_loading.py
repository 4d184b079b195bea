"""From a name and a file to a tracker, errors if they do not fit, the choice of precision, and the embedded weights."""

from __future__ import annotations

import hashlib
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tiny_model import TINY, assert_other_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros import load_image_predictor, load_tracker
from sam2_ros.demo.tabletop.scene import Tabletop
from sam2_ros.model.checkpoint import MEMORY_PART, CheckpointError, read_state_dict
from sam2_ros.model.config import MODELS, Approximations
from sam2_ros.tracking import loading
from sam2_ros.tracking.loading import EMBEDDED_WEIGHTS, Precision, choose_precision, has_fast_bfloat16, load_network
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, PromptError

pytestmark = pytest.mark.numeric

FRAMES = noise_frames(3)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)


def run(tracker: Tracker) -> list[FrameResult]:
    tracker.add_prompt("mug", points=[[20, 20], [40, 20]], labels=[1, 1])
    return [tracker.step(frame) for frame in FRAMES]


def test_checkpoint_gives_the_model_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    model = tiny_model(seed=4)
    torch.save({"model": model.state_dict()}, path)
    loaded = run(load_tracker(TINY.name, str(path), postprocess=False, precision="float32"))
    for result, expected in zip(loaded, run(Tracker(model)), strict=True):
        assert_same_result(result, expected)


def test_a_checkpoint_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=str(tmp_path / "none.pt")):  # no shell expands a parameter's ~
        load_network(checkpoint="~/none.pt")


def test_postprocessing_is_on_unless_turned_off(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model(seed=4).state_dict(), path)
    processed, plain = (run(load_tracker(TINY.name, path, postprocess=on)) for on in (True, False))
    assert_other_logits(processed[2]["mug"].low_res_logits, plain[2]["mug"].low_res_logits)


@pytest.mark.parametrize("name", ["nano", TINY.name])
@pytest.mark.parametrize("postprocess", [True, False])
def test_prompted_masks_are_binarised_with_postprocessing(name: str, postprocess: bool) -> None:
    network = load_network(name, weights="random", image_size=64, postprocess=postprocess)
    assert network.binarize_prompted_masks is postprocess


def test_nano_keeps_its_single_mask() -> None:
    """Its three candidates are taught with single clicks only: with the fallback corrections changed little."""
    assert load_network("nano", weights="random", image_size=64).sam_mask_decoder.fallback is None
    assert load_network(TINY.name, weights="random").sam_mask_decoder.fallback is not None


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"expected cpu, or a cuda device .*got '{device}'"):
        load_network(TINY.name, weights="random", device=device)


def test_nano_runs_with_random_weights_at_another_size() -> None:
    tracker = load_tracker("nano", weights="random", image_size=64)
    assert tracker.model_name == "nano"
    logits = run(tracker)[0]["mug"].low_res_logits
    assert logits is not None
    assert logits.shape == (16, 16)


NETWORK_ARGUMENTS: dict[str, Any] = {
    "model": "m",
    "checkpoint": "c",
    "device": "d",
    "postprocess": False,
    "weights": "w",
    "image_size": 64,
    "sha256": "s",
    "precision": "p",
    "encoder_engine": "e",
}


def arguments_of(call: Mock) -> dict[str, Any]:
    return dict(signature(load_network).bind(*call.call_args.args, **call.call_args.kwargs).arguments)


def test_every_argument_reaches_the_network_and_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    for_network = {**NETWORK_ARGUMENTS, "approximations": Approximations(memory_pooling=2), "compiled": True}
    for_tracker = {
        "lost_after_frames": 2,
        "corrections_are_conditioning": True,
        "buffer_frames": 3,
        "catchup_budget_ms": 4.0,
        "recover_after_frames": 5,
        "zoom": True,
        "memory_selection": "confident",
        "crowd_suppression": True,
        "lookalike_doubt": True,
        "scene_changes": True,
        "lost_after_s": 6.0,
        "recover_after_s": 7.0,
        "stamp_slop_s": 8.0,
        "follow_load": True,
    }
    given = {**for_tracker, "calibrated": False}
    assert for_network.keys() | given.keys() == signature(load_tracker).parameters.keys()
    network, tracker = Mock(), Mock()
    monkeypatch.setattr(loading, "load_network", network)
    monkeypatch.setattr(loading, "Tracker", tracker)
    load_tracker(**for_network, **given)
    assert arguments_of(network) == {**for_network, "image_only": False}
    expected = {**for_tracker, "calibration": None}
    tracker.assert_called_once_with(network.return_value, **{**expected, "follow_load": False})  # it is compiled
    load_tracker(**{**for_network, "compiled": False}, **given)
    assert tracker.call_args.kwargs == expected


def test_every_argument_of_an_image_predictor_reaches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NETWORK_ARGUMENTS.keys() == signature(load_image_predictor).parameters.keys()
    network = Mock()
    monkeypatch.setattr(loading, "load_network", network)
    load_image_predictor(**NETWORK_ARGUMENTS)
    assert arguments_of(network) == {**NETWORK_ARGUMENTS, "image_only": True}


def test_lost_after_frames_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "absent.pt"
    torch.save(tiny_model(object_score_bias=-20.0).state_dict(), path)
    results = run(load_tracker(TINY.name, path, lost_after_frames=1))
    assert [result["mug"].state.name for result in results] == ["OCCLUDED", "OCCLUDED", "LOST"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "micro"}, "unknown model 'micro'; expected one of: .*nano"),
        ({"weights": "none"}, 'weights: expected "embedded" or "random", got \'none\''),
        ({"model": TINY.name}, f"{TINY.name} has no published weights: name a checkpoint file"),
        ({"weights": "random", "image_size": 100}, "multiple of 32 px for nano, got 100"),
        ({"weights": "random", "checkpoint": "a.pt"}, 'weights is "random" and a checkpoint is given'),
        ({"sha256": "0" * 64}, "sha256 is given without a checkpoint"),
    ],
)
def test_impossible_request_is_a_value_error_that_says_why(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_tracker(**arguments)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.pt: no such file"):
        load_tracker(TINY.name, tmp_path / "absent.pt")


def test_checkpoint_of_another_model_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model().state_dict(), path)
    with pytest.raises(CheckpointError, match="It looks like tiny-test: give that name, or none"):
        load_tracker("nano", path)


def test_without_a_name_the_checkpoint_says_which_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model().state_dict(), path)
    assert load_tracker(checkpoint=path).model_name == TINY.name
    assert load_tracker().model_name == "nano"
    assert load_tracker(checkpoint=EMBEDDED_WEIGHTS).model_name == "nano"


def test_checkpoint_of_no_model_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pt"
    torch.save({"fc.weight": torch.zeros(3), "conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(
        CheckpointError, match=r"resnet\.pt looks like none of the models nano, .*; it has conv1.weight, fc"
    ):
        load_tracker(checkpoint=path)


def test_sha256_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny_model().state_dict(), path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_tracker(checkpoint=path, sha256=right).model_name == TINY.name
    with pytest.raises(CheckpointError, match=f"found {right}"):
        load_tracker(checkpoint=path, sha256="0" * 64)


def test_image_part_gives_a_network_for_images_and_no_tracker(tmp_path: Path) -> None:
    path = tmp_path / "image.pt"
    state = {name: value for name, value in tiny_model().state_dict().items() if not name.startswith(MEMORY_PART)}
    torch.save(state, path)
    assert load_network(checkpoint=path, image_only=True).config is TINY
    assert load_image_predictor(checkpoint=path).model.config is TINY
    with pytest.raises(CheckpointError, match="not for a tracker"):
        load_tracker(checkpoint=path)


def test_options_of_the_tracker_are_handed_on() -> None:
    tracker = load_tracker(TINY.name, weights="random", buffer_frames=2, catchup_budget_ms=0.0)
    image = np.zeros((48, 80, 3), np.uint8)
    for _ in range(3):
        tracker.step(image)
    with pytest.raises(PromptError, match="what is kept reaches back 1 frames, to frame 1"):
        tracker.add_prompt("mug", points=[[20, 20]], labels=[1], frame_index=0)
    tracker.add_prompt("mug", points=[[20, 20]], labels=[1], frame_index=1)
    assert tracker.frames_behind == {"mug": 2}


FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("word", "model", "fast", "expected"),
    [
        ("auto", "sam2.1_hiera_tiny", True, Precision(BFLOAT16, BFLOAT16)),
        ("auto", "nano", True, Precision(FLOAT32, BFLOAT16)),
        ("auto", "edgetam", True, Precision(BFLOAT16, BFLOAT16)),
        ("auto", "sam2.1_hiera_tiny", False, Precision(FLOAT32, FLOAT32)),
        ("auto", "nano", False, Precision(FLOAT32, FLOAT32)),
        ("float32", "sam2.1_hiera_tiny", True, Precision(FLOAT32, FLOAT32)),
        ("bfloat16", "nano", False, Precision(BFLOAT16, BFLOAT16)),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, word: str, model: str, fast: bool, expected: Precision) -> None:
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda device: fast)
    assert choose_precision(word, MODELS[model], CPU) == expected


def test_an_unknown_precision_is_rejected() -> None:
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
    assert np.abs(exact - rounded).max() > 1e-3  # or nothing was changed
    assert ((exact > 0) == (rounded > 0)).mean() > 0.97


MAX_BYTES = 16 * 2**20
MAX_PARAMETERS = 8_000_000


def test_the_embedded_weights_are_small() -> None:
    assert EMBEDDED_WEIGHTS.stat().st_size <= MAX_BYTES
    assert sum(tensor.numel() for tensor in read_state_dict(EMBEDDED_WEIGHTS).values()) <= MAX_PARAMETERS


def test_every_embedded_weight_is_finite() -> None:
    broken = [name for name, tensor in read_state_dict(EMBEDDED_WEIGHTS).items() if not torch.isfinite(tensor).all()]
    assert not broken


@pytest.mark.parametrize("prompt", ["click", "mask"])
def test_a_ball_on_a_table_is_found_and_followed(prompt: str) -> None:
    scene = Tabletop()
    first = scene.render(0)
    ball = 1 + scene.names.index("ball")
    tracker = load_tracker("nano")
    if prompt == "click":
        click = next(point for point in scene.click_points() if point.name == "ball")
        tracker.add_prompt("ball", points=[(click.x_px, click.y_px)], labels=[1])
    else:
        tracker.add_prompt("ball", mask=first.ids == ball)
    for index in range(3):
        frame = scene.render(index)
        mask = tracker.step(frame.image_rgb)["ball"].mask
        truth = frame.ids == ball
        iou = np.logical_and(mask, truth).sum() / np.logical_or(mask, truth).sum()
        assert iou > 0.6, f"frame {index}: IoU {iou:.2f}"
