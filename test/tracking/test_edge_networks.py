"""The networks that are not SAM 2's own go through everything that a network goes through, at tiny sizes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from tiny_model import (
    TINY_EDGETAM,
    TINY_EFFICIENTTAM,
    TINY_EFFICIENTTAM_1,
    TINY_EFFICIENTTAM_2,
    assert_same_result,
    noise_frames,
    tiny_model,
)

from sam2_ros.model.config import MODELS, ModelConfig
from sam2_ros.model.inference import is_cpu_inference
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.loading import load_network
from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator, GeneratorSettings
from sam2_ros.tracking.runtime.compiled import compile_network
from sam2_ros.tracking.tracker import Tracker

pytestmark = pytest.mark.numeric

CONFIGS = (TINY_EDGETAM, TINY_EFFICIENTTAM, TINY_EFFICIENTTAM_1, TINY_EFFICIENTTAM_2)
FRAMES = noise_frames(12)
every_network = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def play(network: SAM2, frames: list[np.ndarray] = FRAMES, objects: int = 2) -> list[np.ndarray]:
    """Objects that come one after another, one of them corrected: all their logits."""
    tracker = Tracker(network, corrections_are_conditioning=True)
    found = []
    for index, image in enumerate(frames):
        if index < objects:
            tracker.add_prompt(str(index), box=(8 + 4 * index, 6, 44 + 4 * index, 40))
        if index == 6:
            tracker.add_prompt("0", points=[(20, 20)], labels=[1])
        found += [tracked.low_res_logits for tracked in tracker.step(image)]
    return found


def assert_alike(actual: list[np.ndarray], expected: list[np.ndarray], share: float = 1e-3) -> None:
    assert len(actual) == len(expected) > 0
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * max(1.0, float(np.abs(theirs).max())))


@every_network
def test_objects_are_followed_together_as_alone(config: ModelConfig) -> None:
    """The official code of EdgeTAM fails with two objects, and one that is added later erases others there."""
    network = tiny_model(config)
    together = Tracker(network)
    alone = [Tracker(network) for _ in range(3)]
    for index, image in enumerate(FRAMES):
        if index % 3 == 0 and index < 9:
            number = index // 3
            for tracker in (together, alone[number]):
                tracker.add_prompt(str(number), box=(8 + 4 * number, 6, 44 + 4 * number, 40))
        result = together.step(image)
        for number, tracker in enumerate(alone):
            for expected in tracker.step(image):
                logits = result[str(number)].low_res_logits
                np.testing.assert_allclose(logits, expected.low_res_logits, rtol=0, atol=2e-2)
    assert len(result.objects) == 3
    first, second, _ = (tracked.low_res_logits for tracked in result)
    assert np.abs(first - second).max() > 0.1


@every_network
def test_session_that_was_saved_goes_on_bit_for_bit(config: ModelConfig) -> None:
    network = tiny_model(config)
    tracker, loaded = Tracker(network), Tracker(network)
    tracker.add_prompt("mug", points=[[20, 20]], labels=[1])
    for image in FRAMES[:7]:
        tracker.step(image)
    file = io.BytesIO()
    torch.save(tracker.save_state(), file)
    file.seek(0)
    loaded.load_state(torch.load(file, weights_only=True))
    for image in FRAMES[7:]:
        assert_same_result(loaded.step(image), tracker.step(image))


@every_network
def test_image_predictor_and_mask_generator(config: ModelConfig) -> None:
    network = tiny_model(config)
    predictor = ImagePredictor(network)
    predictor.set_image(FRAMES[0])
    answer = predictor.predict(points=[(20, 20)], labels=[1])
    other = predictor.predict(points=[(60, 40)], labels=[1])
    assert answer.masks.shape == (3, 48, 80)
    assert np.abs(answer.logits - other.logits).max() > 1e-2
    refined = predictor.predict(points=[(20, 20)], labels=[1], logits=answer.logits[:1], multimask=False)
    assert refined.masks.shape == (1, 48, 80)
    settings = GeneratorSettings(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    generated = AutomaticMaskGenerator(network, settings).generate(FRAMES[1])
    assert generated
    assert all(mask.mask.shape == (48, 80) for mask in generated)


@every_network
def test_compiled_network_gives_the_masks_of_the_plain_one(config: ModelConfig) -> None:
    """Captured whole, but run by PyTorch's own kernels; memories fill up, and the first is alone."""
    network = tiny_model(config)
    compiled = compile_network(tiny_model(config), backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        actual = play(compiled)
    assert_alike(actual, play(network))


@every_network
def test_gradients_reach_every_weight(config: ModelConfig) -> None:
    """It can be fine-tuned: nothing is computed as for inference alone, and no weight is left out."""
    network = tiny_model(config).train()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not is_cpu_inference(images)
    features = network.encode_image(images)
    prompted = network.decode_masks(network.without_memory(features), features)
    memory = network.encode_memory(features, prompted.logits_b1hw, prompted.object_score_logits_b1, prompted=True)
    tokens = torch.cat((memory.flatten(2).transpose(1, 2), prompted.pointer_bc.reshape(1, -1, config.memory_dim)), 1)
    position = torch.cat((network.memory_positions((0,)), network.pointer_positions((1,))), dim=1)
    conditioned = network.attend_to_tokens(features.top_bchw, tokens, position, config.tokens_per_pointer)
    found = network.decode_masks(conditioned, features)
    (found.candidates_bmhw.square().mean() + found.candidate_ious_bm.sum()).backward()
    parts = ("image_encoder.", "memory_attention.", "spatial_perceiver.", "memory_encoder.")
    names = [name for name, _ in network.named_parameters() if name.startswith(parts)]
    without = [name for name in names if network.get_parameter(name).grad is None]
    assert not without
    silent = [name for name in names if not network.get_parameter(name).grad.abs().max() > 0]
    assert not [name for name in silent if not name.endswith("k_proj.bias")]  # a shift of all keys changes no softmax


@pytest.mark.parametrize("name", ["edgetam", "efficienttam_ti_2", "efficienttam_ti_512x512"])
def test_entry_of_the_table_runs_with_random_weights(name: str) -> None:
    network = load_network(name, weights="random", image_size=256)
    assert network.config.trunk == MODELS[name].trunk
    found = play(network, FRAMES[:3], objects=1)
    assert [logits.shape for logits in found] == [(64, 64)] * 3
    assert all(np.isfinite(logits).all() for logits in found)
