"""Which masks the decoder answers with: one, three, or the best of three where the one is unstable."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tiny_model import TINY, tiny_model

from sam2_ros.model.mask_decoder import DecodedMasks, MaskDecoder, StabilityFallback
from sam2_ros.model.prompt_encoder import EncodedPrompts

pytestmark = pytest.mark.numeric

assert_same = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)  # each time another network of equal weights
NEVER_STABLE, ALWAYS_STABLE = StabilityFallback(threshold=1.1), StabilityFallback(threshold=0.0)


def decode(batch: int, multimask: bool, fallback: StabilityFallback | None = None) -> DecodedMasks:
    """Masks for random features, always the same ones, from the same random weights."""
    model = tiny_model(fallback=fallback)
    model.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data.zero_()  # so that rows differ in their best mask
    generator = torch.Generator().manual_seed(5)
    prompts = EncodedPrompts(
        3 * torch.randn(batch, 2, TINY.d_model, generator=generator), torch.zeros(batch, TINY.d_model, 4, 4)
    )
    with torch.inference_mode():
        return model.sam_mask_decoder(
            3 * torch.randn(batch, TINY.d_model, 4, 4, generator=generator),
            model.sam_prompt_encoder.dense_position(),
            prompts,
            torch.randn(batch, TINY.d_model // 8, 16, 16, generator=generator),
            torch.randn(batch, TINY.d_model // 4, 8, 8, generator=generator),
            multimask,
        )


def test_an_ambiguous_prompt_gives_three_masks_and_another_one() -> None:
    three, one = decode(2, multimask=True), decode(2, multimask=False)
    assert three.logits_bmhw.shape == (2, 3, 16, 16)
    assert three.tokens_bmc.shape == (2, 3, TINY.d_model)
    assert one.logits_bmhw.shape == (2, 1, 16, 16)
    assert three.object_score_logits_b1.shape == one.object_score_logits_b1.shape == (2, 1)
    assert ((three.ious_bm >= 0) & (three.ious_bm <= 1)).all()
    distances = (three.logits_bmhw - one.logits_bmhw).abs().amax((2, 3))
    assert (distances > 1e-3).all(), "the single mask is one of its own, not one of the three"


def test_unstable_mask_is_replaced_by_the_best_of_three() -> None:
    three, one, chosen = decode(8, True), decode(8, False), decode(8, False, NEVER_STABLE)
    best = three.ious_bm.argmax(1)
    assert len(set(best.tolist())) > 1, "the batch should not have the same best mask throughout"
    for row, index in enumerate(best.tolist()):
        assert_same(chosen.logits_bmhw[row, 0], three.logits_bmhw[row, index])
        assert_same(chosen.ious_bm[row, 0], three.ious_bm[row, index])
    assert_same(chosen.tokens_bmc, one.tokens_bmc)  # the pointer stays the single mask's


def test_stable_mask_stays() -> None:
    one, chosen = decode(2, False), decode(2, False, ALWAYS_STABLE)
    assert_same(chosen.logits_bmhw, one.logits_bmhw)
    assert_same(chosen.ious_bm, one.ious_bm)


def test_fallback_does_not_touch_three_masks() -> None:
    assert_same(decode(2, True, NEVER_STABLE).logits_bmhw, decode(2, True).logits_bmhw)


@pytest.mark.parametrize(
    ("single", "is_stable"),
    [
        ([9.0, 9, 9, -9], True),
        ([9.0, 9, 0.01, -9], False),  # one of three pixels is within 0.05 of the threshold
        ([-9.0, -9, -9, -9], True),  # empty at both thresholds
        ([-0.01, -9, -9, -9], False),
    ],
)
def test_stability_is_the_overlap_of_the_mask_at_two_thresholds(single: list[float], is_stable: bool) -> None:
    decoder = MaskDecoder(TINY, StabilityFallback())
    others = [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    every = DecodedMasks(
        torch.tensor([single, *others]).view(1, 4, 2, 2),
        torch.tensor([[0.1, 0.2, 0.9, 0.3]]),
        torch.zeros(1, 4, TINY.d_model),
        torch.zeros(1, 1),
    )
    chosen = decoder._choose(every, multimask=False)
    expected = (single, 0.1) if is_stable else ([2.0] * 4, 0.9)
    assert chosen.logits_bmhw.flatten().tolist() == pytest.approx(expected[0])
    assert float(chosen.ious_bm) == pytest.approx(expected[1])
