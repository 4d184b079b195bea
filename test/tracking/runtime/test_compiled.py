"""The compiled network gives the masks of the plain one, and compiles nothing once images come.

Captured whole, but run by PyTorch's own kernels (backend "eager"): making machine code would take minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2, MemoryTokens
from sam2_ros.tracking.concurrency import prefetch_images
from sam2_ros.tracking.loading import load_network
from sam2_ros.tracking.rules.memory_selection import bank_policy
from sam2_ros.tracking.runtime.compiled import CompiledNetwork, compile_network, fill_slots
from sam2_ros.tracking.tracker import Tracker

pytestmark = pytest.mark.numeric

FRAMES = 2 + TINY.max_pointers  # until all slots are filled, and on


@pytest.fixture(scope="module")
def compiled() -> CompiledNetwork:
    return compile_network(tiny_model(TINY), backend="eager")


def one_object(tracker: Tracker, frame: int) -> None:
    if frame == 0:
        tracker.add_prompt("a", points=[(20, 20)], labels=[1])


def objects_that_come_and_go(tracker: Tracker, frame: int) -> None:
    if frame in (0, 2, 3, 5, 6, 7):  # six in the end: more than fit in a batch
        tracker.add_prompt(str(frame), box=(10 + frame, 8, 50 + frame, 40))
    if frame == 9:
        tracker.remove("3")


def corrections_in_many_frames(tracker: Tracker, frame: int) -> None:
    """There are slots for one conditioning frame."""
    if frame % 4 == 0:
        tracker.add_prompt("a", points=[(20, 20)], labels=[1])


def a_mask(tracker: Tracker, frame: int) -> None:
    if frame == 1:
        mask = np.zeros(noise_frames(1)[0].shape[:2], dtype=np.bool_)
        mask[10:30, 15:40] = True
        tracker.add_prompt("a", mask=mask)


def logits(network: SAM2, prompt: Callable[[Tracker, int], None]) -> list[np.ndarray]:
    tracker = Tracker(network, corrections_are_conditioning=True)
    found = []
    for index, image in enumerate(noise_frames(FRAMES)):
        prompt(tracker, index)
        found += [tracked.low_res_logits for tracked in tracker.step(image)]
    return found


@pytest.mark.parametrize("prompt", [one_object, objects_that_come_and_go, corrections_in_many_frames, a_mask])
def test_masks_are_those_of_the_plain_network(
    compiled: CompiledNetwork, prompt: Callable[[Tracker, int], None]
) -> None:
    expected = logits(tiny_model(TINY), prompt)
    with torch._dynamo.config.patch(error_on_recompile=True):
        actual = logits(compiled, prompt)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        scale = max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * scale)


def test_memories_with_anchors_have_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditioning frames that the tracker itself adds do not make an object leave the compiled code."""
    config = replace(TINY, memory_selection="distractor")
    policy = bank_policy(config)
    network, plain = compile_network(tiny_model(config), backend="eager"), tiny_model(config)
    monkeypatch.setattr(SAM2, "attend_to_memory", lambda *_: pytest.fail("not in compiled code"))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        features = plain.encode_image(torch.randn(1, 3, 64, 64, generator=generator))
        for conditioning in (1, 2, 1 + policy.most_anchors):
            pointers = (policy.max_pointers - 1 + conditioning) * config.tokens_per_pointer
            count = (policy.reach + conditioning) * config.memory_tokens + pointers
            tokens = torch.randn(1, count, config.memory_dim, generator=generator)
            actual = network.attend_to_memory(features, MemoryTokens(tokens, tokens, pointers))
            expected = plain.attend_to_tokens(features.top_bchw, tokens, tokens, pointers)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_nothing_is_compiled_again_beside_an_image_that_is_encoded_ahead(compiled: CompiledNetwork) -> None:
    """There each side has half of the threads."""
    tracker = Tracker(compiled)
    tracker.add_prompt("a", points=[(20, 20)], labels=[1])
    threads = torch.get_num_threads()
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.set_num_threads(threads + 1)  # on a machine with one core a half is the whole
        try:
            found = [tracker.step(image).rejected for image in prefetch_images(tracker, noise_frames(4))]
        finally:
            torch.set_num_threads(threads)
    assert found == [()] * 4


def test_several_sizes_in_one_process(compiled: CompiledNetwork) -> None:
    """Each has as many shapes as half of the compiler's own limit, and the fixture's is the first of three."""
    for size in (96, 128):
        compile_network(tiny_model(replace(TINY, image_size=size)), backend="eager")


@torch.inference_mode()
def test_what_is_not_compiled_is_as_ever(compiled: CompiledNetwork) -> None:
    plain = tiny_model(TINY)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, TINY.image_size, TINY.image_size, generator=generator)
    ours, theirs = compiled.encode_image(images), plain.encode_image(images)  # two images, not one for two objects
    for multimask in (True, False):
        actual = compiled.decode_masks(compiled.without_memory(ours), ours, multimask=multimask)
        expected = plain.decode_masks(plain.without_memory(theirs), theirs, multimask=multimask)
        torch.testing.assert_close(actual.candidates_bmhw, expected.candidates_bmhw, rtol=1e-4, atol=1e-3)
    arguments = expected.logits_b1hw, expected.object_score_logits_b1, False
    memories = compiled.encode_memory(ours, *arguments), plain.encode_memory(theirs, *arguments)
    torch.testing.assert_close(*memories, rtol=1e-4, atol=1e-3)
    with pytest.raises(TypeError, match="copy the network that it was made from"):
        copy.deepcopy(compiled)


def test_weights_are_shared_not_copied() -> None:
    model = tiny_model(TINY)
    assert CompiledNetwork(model, "eager").no_mem_embed.data_ptr() == model.no_mem_embed.data_ptr()


def test_empty_slots_stand_after_the_filled_ones_of_their_kind() -> None:
    tokens = torch.arange(1.0, 7.0)[None, :, None].expand(2, -1, 3)  # one map of 4 tokens and a pointer of 2
    filled = fill_slots(MemoryTokens(tokens, tokens[:1], num_pointer_tokens=2), map_tokens=8, pointer_tokens=4)
    assert filled is not None
    assert filled.tokens_bmc[1, :, 0].tolist() == [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 0, 0]
    assert filled.valid_m is not None
    assert filled.valid_m.tolist() == [True] * 4 + [False] * 4 + [True] * 2 + [False] * 2
    assert filled.position_bmc.shape == filled.tokens_bmc.shape
    assert filled.num_pointer_tokens == 4


def test_full_slots_need_no_mask_and_more_do_not_fit() -> None:
    tokens = torch.zeros(1, 6, 3)
    filled = fill_slots(MemoryTokens(tokens, tokens, 2), map_tokens=4, pointer_tokens=2)
    assert filled is not None
    assert filled.valid_m is None
    assert fill_slots(MemoryTokens(tokens, tokens, 2), map_tokens=3, pointer_tokens=2) is None
    assert fill_slots(MemoryTokens(tokens, tokens, 2), map_tokens=4, pointer_tokens=1) is None


def test_what_cannot_be_compiled_is_told_with_the_reason() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        raise RuntimeError("no compiler to be found")

    with pytest.raises(ValueError, match=r"compile: .*no compiler to be found.*run without compile"):
        compile_network(tiny_model(replace(TINY, name="other")), backend=broken)


def test_loading_compiles_if_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledNetwork, "warm_up", lambda self: None)
    assert isinstance(load_network("nano", compiled=True), CompiledNetwork)
    assert not isinstance(load_network("nano"), CompiledNetwork)
