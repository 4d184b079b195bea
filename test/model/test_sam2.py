"""The four functions of the network: what absence, a given mask and the kind of a prompt change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.config import MODELS
from sam2_ros.model.position_encoding import sine_map
from sam2_ros.model.sam2 import ABSENT_LOGIT, SAM2, ImageFeatures, MemoryTokens

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def encoded(model: SAM2, batch: int = 2) -> ImageFeatures:
    images = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return model.encode_image(images)


def blob_logits() -> torch.Tensor:
    """(2, 1, 16, 16): a soft blob, and another one elsewhere."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.stack([4 - ((x - cx) ** 2 + (y - 8) ** 2) / 6 for cx in (5, 10)])[:, None]


@torch.inference_mode()
def test_chosen_mask_is_the_candidate_of_highest_predicted_quality() -> None:
    model = tiny_model()
    features = encoded(model)
    prediction = model.decode_masks(model.without_memory(features), features)
    assert prediction.candidates_bmhw.shape == (2, 3, 16, 16)
    for row, best in enumerate(prediction.candidate_ious_bm.argmax(1).tolist()):
        assert torch.equal(prediction.logits_b1hw[row, 0], prediction.candidates_bmhw[row, best])
        assert prediction.iou_b[row] == prediction.candidate_ious_bm[row, best]


@torch.inference_mode()
def test_absent_object_has_no_mask_and_the_pointer_of_absence() -> None:
    model = tiny_model(object_score_bias=-20.0)
    features = encoded(model)
    prediction = model.decode_masks(model.without_memory(features), features)
    assert (prediction.logits_b1hw == ABSENT_LOGIT).all()
    assert torch.equal(prediction.pointer_bc, model.no_obj_ptr.expand(2, -1))
    assert prediction.candidates_bmhw.max() > ABSENT_LOGIT


@torch.inference_mode()
def test_memory_of_an_absent_object_is_marked() -> None:
    model = tiny_model()
    features, logits = encoded(model), blob_logits()
    visible = model.encode_memory(features, logits, torch.tensor([[1.0], [1.0]]), prompted=False)
    mixed = model.encode_memory(features, logits, torch.tensor([[1.0], [-1.0]]), prompted=False)
    torch.testing.assert_close(visible[0], mixed[0])
    torch.testing.assert_close(mixed[1] - visible[1], model.no_obj_embed_spatial[0][:, None, None].expand(-1, 4, 4))


@torch.inference_mode()
def test_memories_of_2_0_are_not_marked() -> None:
    model = tiny_model(replace(TINY, no_object_memory_embed=False, pointer_time_encoding=False))
    features, logits = encoded(model), blob_logits()
    memories = [model.encode_memory(features, logits, torch.full((2, 1), score), prompted=False) for score in (1.0, -1)]
    torch.testing.assert_close(*memories)
    assert (model.pointer_positions((1, 5)) == 0).all()


@pytest.mark.parametrize(
    ("binarize", "prompted", "differs"), [(False, True, False), (True, False, False), (True, True, True)]
)
@torch.inference_mode()
def test_only_prompted_masks_are_binarized_and_only_on_demand(binarize: bool, prompted: bool, differs: bool) -> None:
    plain, model = tiny_model(), tiny_model(binarize_prompted_masks=binarize)
    features, score = encoded(plain), torch.ones(2, 1)
    expected = plain.encode_memory(features, blob_logits(), score, prompted=False)
    actual = model.encode_memory(features, blob_logits(), score, prompted=prompted)
    difference = float((actual - expected).abs().max())
    assert difference > 0.1 if differs else difference < 1e-4


@torch.inference_mode()
def test_a_given_mask_is_the_answer() -> None:
    model = tiny_model()
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, 16:48, 8:40] = 1
    prediction = model.adopt_mask(encoded(model), mask)
    assert torch.equal(prediction.logits_b1hw[0, 0] > 0, mask[0, 0, ::4, ::4] > 0)
    assert prediction.object_score_logits_b1.flatten().tolist() == [10, -10]
    torch.testing.assert_close(prediction.logits_b1hw[1], torch.full((1, 16, 16), -10.0))
    assert torch.equal(prediction.pointer_bc[1], model.no_obj_ptr[0])
    assert not torch.equal(prediction.pointer_bc[0], model.no_obj_ptr[0])


@torch.inference_mode()
def test_memory_positions_are_place_plus_slot() -> None:
    model = tiny_model()
    position = model.memory_positions((3, 0))
    place = sine_map(TINY.memory_dim, 4, 4, CPU)[0].flatten(1).T
    assert position.shape == (1, 32, TINY.memory_dim)
    torch.testing.assert_close(position[0, :16], place + model.maskmem_tpos_enc[3, 0])
    torch.testing.assert_close(position[0, 16:], place + model.maskmem_tpos_enc[0, 0])


@torch.inference_mode()
def test_tokens_of_a_pointer_share_the_encoding_of_its_age() -> None:
    model = tiny_model()
    position = model.pointer_positions((1, 7))
    assert position.shape == (1, 2 * TINY.tokens_per_pointer, TINY.memory_dim)
    assert torch.equal(position[0, 0], position[0, 1])
    assert torch.equal(position[0, 2], position[0, 3])
    assert (position[0, 0] - position[0, 2]).abs().max() > 1e-3
    torch.testing.assert_close(position[:, :2], model.pointer_positions((1,)))


@torch.inference_mode()
def test_what_is_remembered_changes_what_is_seen() -> None:
    model = tiny_model()
    features = encoded(model, batch=1)
    tokens = torch.randn(1, 16 + 2, TINY.memory_dim, generator=torch.Generator().manual_seed(1))
    position = torch.cat((model.memory_positions((0,)), model.pointer_positions((1,))), dim=1)
    conditioned = model.attend_to_memory(features, MemoryTokens(tokens, position, 2))
    assert conditioned.shape == (1, TINY.d_model, 4, 4)
    for part in (slice(0, 16), slice(16, 18)):  # the map, the pointer
        changed = tokens.clone()
        changed[:, part] *= -1
        other = model.attend_to_memory(features, MemoryTokens(changed, position, 2))
        assert (other - conditioned).abs().max() > 1e-3


@torch.inference_mode()
def test_batch_of_objects_is_the_same_as_one_by_one() -> None:
    model = tiny_model()
    features = encoded(model)
    together = model.decode_masks(model.without_memory(features), features)
    for row in range(2):
        one = ImageFeatures(
            *(t[row : row + 1] for t in (features.top_bchw, features.stride8_bchw, features.stride4_bchw))
        )
        alone = model.decode_masks(model.without_memory(one), one)
        torch.testing.assert_close(together.logits_b1hw[row], alone.logits_b1hw[0], rtol=1e-4, atol=1e-4)


def test_pointers_divide_into_whole_memory_tokens() -> None:
    for config in MODELS.values():
        assert config.tokens_per_pointer * config.memory_dim == config.d_model
