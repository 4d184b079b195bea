"""The unrolled tracker: it learns everywhere, and it is the tracker."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import TINY, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.transforms import image_to_input
from sam2_ros.training import prompting
from sam2_ros.training import unroll as unroll_module
from sam2_ros.training.batches import TrainingBatch
from sam2_ros.training.config import PromptMix
from sam2_ros.training.losses import Losses
from sam2_ros.training.prompting import PromptPlan
from sam2_ros.training.unroll import UnrollResult, unroll

pytestmark = pytest.mark.numeric

SIZE = TINY.image_size
CLICKS = PromptMix(mask=0.0, box=0.0, correction_probability=1.0)
BOXES = PromptMix(mask=0.0, box=1.0)
MASKS = PromptMix(mask=1.0, box=0.0)


def moving_squares(num_frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2, S, S, 3) uint8 images of two clips and (T, 2, S, S) bool masks of one square each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 150, (num_frames, 2, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((num_frames, 2, SIZE, SIZE), bool)
    for t in range(num_frames):
        masks[t, 0, 8 : 8 + 24, 4 + 4 * t : 28 + 4 * t] = True
        masks[t, 1, 20 : 20 + 32, 30 - 4 * t : 62 - 4 * t] = True
    images[masks] = (250, 200, 60)
    return images, masks


def batch_of(images: np.ndarray, masks: np.ndarray) -> TrainingBatch:
    cpu = torch.device("cpu")
    tensors = torch.stack([torch.cat([image_to_input(image, SIZE, cpu) for image in clips]) for clips in images])
    return TrainingBatch(tensors, torch.from_numpy(masks)[:, :, None].float(), torch.tensor([0, 1]), (0, 1))


def run(
    model: SAM2, mix: PromptMix, batch: TrainingBatch | None = None, seed: int = 0, plan: PromptPlan | None = None
) -> UnrollResult:
    batch = batch_of(*moving_squares()) if batch is None else batch
    if plan is None:
        plan = PromptPlan.draw(mix, len(batch.images_tcchw), torch.Generator().manual_seed(0))
    return unroll(model, replace(batch, object_seeds=(2 * seed, 2 * seed + 1)), mix, plan, SIZE // 2)


def record_decoding(model: SAM2, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of the decoder from now on."""
    calls: list[dict[str, Any]] = []
    decode = model.decode_masks

    def recording(conditioned, features, points=None, mask_logits_b1hw=None, multimask=True):  # type: ignore[no-untyped-def]
        made = decode(conditioned, features, points, mask_logits_b1hw, multimask)
        calls.append({"points": points, "fed_back": mask_logits_b1hw, "multimask": multimask, "made": made})
        return made

    monkeypatch.setattr(model, "decode_masks", recording)
    return calls


@pytest.mark.parametrize("mix", [CLICKS, BOXES, MASKS, PromptMix()], ids=["clicks", "boxes", "masks", "mixed"])
def test_gradients_reach_every_part(mix: PromptMix) -> None:
    model = tiny_model(seed=4)
    result = run(model, mix)
    assert math.isfinite(float(result.losses.total.detach()))
    result.losses.total.backward()
    for part in (
        "image_encoder.trunk",
        "image_encoder.neck",
        "memory_attention",
        "memory_encoder",
        "sam_mask_decoder",
        "sam_prompt_encoder",
        "obj_ptr_proj",
        "obj_ptr_tpos_proj",
    ):
        gradients = [p.grad for p in model.get_submodule(part).parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), part
    assert model.maskmem_tpos_enc.grad is not None
    used = (model.maskmem_tpos_enc.grad.abs().sum((1, 2, 3)) > 0).tolist()
    assert used == [True, True, False, True], "four frames use the slots of t-1, t-2 and the prompted frame"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_gradient_goes_back_through_memory_to_the_first_frame() -> None:
    batch = batch_of(*moving_squares(2))
    batch.images_tcchw.requires_grad_()
    model = tiny_model(seed=4)
    # With masks given, nothing of the first frame is compared: what arrives there came through memory.
    run(model, MASKS, batch).losses.total.backward()
    assert batch.images_tcchw.grad is not None
    assert batch.images_tcchw.grad[0].abs().sum() > 0


@pytest.mark.parametrize(("mix", "has_clicks"), [(CLICKS, True), (BOXES, False), (MASKS, False)])
def test_iou_after_a_click_is_told_where_there_was_one(mix: PromptMix, has_clicks: bool) -> None:
    result = run(tiny_model(seed=4), mix)
    assert math.isnan(result.click_iou) is not has_clicks
    assert 0 <= result.last_iou <= 1


def test_last_iou_counts_visible_objects_only() -> None:
    images, masks = moving_squares()
    masks[-1, 0] = False
    absent = run(tiny_model(seed=4, object_score_bias=-20.0), MASKS, batch_of(images, masks))
    assert absent.last_iou == 0, "the object that is there was called absent; the other one is not asked for"
    masks[-1] = False
    assert math.isnan(run(tiny_model(seed=4), MASKS, batch_of(images, masks)).last_iou)


def test_object_that_leaves_teaches_its_absence() -> None:
    images, masks = moving_squares(2)
    masks[1] = False
    batch = batch_of(images, masks)
    present, absent = (run(tiny_model(seed=4, object_score_bias=bias), MASKS, batch) for bias in (20.0, -20.0))
    assert float(present.losses.presence.detach()) > 10
    assert float(absent.losses.presence.detach()) < 0.1
    assert float(present.losses.dice.detach()) == 0


def test_corrective_click_is_for_the_mask_that_the_first_click_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(seed=4)
    predictions, corrected = [], []
    decode, add_click = model.decode_masks, prompting.add_corrective_click

    def recording_decode(*args, **kwargs):  # type: ignore[no-untyped-def]
        predictions.append(decode(*args, **kwargs))
        return predictions[-1]

    def recording_click(prompts, predicted, *args):  # type: ignore[no-untyped-def]
        corrected.append((predicted, predictions[-1].logits_b1hw))
        return add_click(prompts, predicted, *args)

    monkeypatch.setattr(model, "decode_masks", recording_decode)
    monkeypatch.setattr(prompting, "add_corrective_click", recording_click)
    run(model, CLICKS, batch_of(*moving_squares(1)))
    ((predicted, logits),) = corrected
    assert 0.02 < predicted.float().mean() < 0.98
    shown = F.interpolate(logits, predicted.shape[2:], mode="bilinear")
    sure = shown.abs() > 1e-4
    assert torch.equal(predicted[sure], (shown > 0)[sure])
    assert [p.candidates_bmhw.shape[1] for p in predictions] == [3, 1]


@pytest.mark.parametrize("share", [0.0, 0.75])
def test_some_corrective_clicks_are_drawn_from_the_object(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    shares: list[float] = []
    add_click = prompting.add_corrective_click
    monkeypatch.setattr(prompting, "add_corrective_click", lambda *args: shares.append(args[4]) or add_click(*args))
    run(tiny_model(seed=4), replace(CLICKS, truth_click_share=share), batch_of(*moving_squares(1)))
    assert shares == [share]


@pytest.mark.parametrize("mix", [CLICKS, BOXES], ids=["clicks", "boxes"])
def test_further_rounds_feed_the_mask_back_and_decode_one(mix: PromptMix, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(seed=4)
    calls = record_decoding(model, monkeypatch)
    run(model, mix, batch_of(*moving_squares(1)), plan=PromptPlan((3,), None, 1))
    starts = 1 if mix is CLICKS else 2
    assert [call["points"].labels_bn.shape[1] for call in calls] == [starts + i for i in range(4)]
    assert [call["multimask"] for call in calls] == [mix is CLICKS, False, False, False]
    assert calls[0]["fed_back"] is None
    for before, call in itertools.pairwise(calls):
        torch.testing.assert_close(call["fed_back"], before["made"].logits_b1hw.detach().clamp(-32, 32))


def test_corrected_later_frame_fades_as_in_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered as made from a prompt, in the slot of its age, and never in the conditioning slot (3)."""
    model = tiny_model(seed=4)
    selections, prompted = [], []
    gather, encode = unroll_module.gather_tokens, model.encode_memory

    def recording_gather(model, selection, frames):  # type: ignore[no-untyped-def]
        selections.append([(choice.frame, choice.slot) for choice in selection.spatial])
        return gather(model, selection, frames)

    def recording_encode(*args, prompted_frames=prompted, **kwargs):  # type: ignore[no-untyped-def]
        prompted_frames.append(kwargs["prompted"])
        return encode(*args, **kwargs)

    monkeypatch.setattr(unroll_module, "gather_tokens", recording_gather)
    monkeypatch.setattr(model, "encode_memory", recording_encode)
    calls = record_decoding(model, monkeypatch)
    mix = replace(MASKS, image_weight=0.0)
    run(model, mix, batch_of(*moving_squares(6)), plan=PromptPlan((0,) * 6, 1, 2))
    assert prompted == [True, True, False, False, False]
    assert selections[1] == [(0, 3), (1, 0)]
    assert selections[4] == [(0, 3), (2, 2), (3, 1), (4, 0)], "four frames later the correction is forgotten"
    clicks = [0 if call["points"] is None else call["points"].labels_bn.shape[1] for call in calls]
    assert clicks == [0, 0, 1, 2, 0, 0, 0, 0], "given masks, frame 1 and its two corrections, frames 2 to 5"
    assert [call["multimask"] for call in calls[1:4]] == [True, True, False]


def thin_bars(num_frames: int = 2) -> TrainingBatch:
    """An object that is one pixel wide: at half size no pixel is more than half covered by it."""
    images, masks = moving_squares(num_frames)
    masks[:] = False
    masks[:, :, 8:56, 21] = True
    return batch_of(images, masks)


@pytest.mark.parametrize("mix", [CLICKS, MASKS], ids=["clicked", "tracked"])
def test_thin_object_is_taught_to_be_there(mix: PromptMix) -> None:
    present, absent = (run(tiny_model(seed=4, object_score_bias=bias), mix, thin_bars()) for bias in (20.0, -20.0))
    assert float(present.losses.presence.detach()) < 0.1
    assert float(absent.losses.presence.detach()) > 10
    assert float(present.losses.dice.detach()) > 0


def test_target_is_the_share_of_each_pixel_that_the_object_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[torch.Tensor] = []
    losses = unroll_module.mask_losses
    monkeypatch.setattr(unroll_module, "mask_losses", lambda *args: taught.append(args[3]) or losses(*args))
    run(tiny_model(seed=4), MASKS, thin_bars())
    assert taught[0].unique().tolist() == [0, 0.5]
    assert taught[0].sum() == pytest.approx(2 * 48 / 4), "no part of the object is lost at a quarter of the pixels"


def weighed(model: SAM2, mix: PromptMix, plan: PromptPlan, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss of a run in which every decoding costs 1 and nothing else does."""

    def one(*args: object) -> Losses:
        zero, cost = torch.zeros(()), torch.ones(())
        return Losses(zero, cost, zero, zero, zero)

    monkeypatch.setattr(unroll_module, "mask_losses", one)
    return [float(run(model, mix, plan=plan).losses.total)]


@pytest.mark.parametrize(
    ("mix", "plan", "expected"),
    [
        pytest.param(replace(MASKS, image_weight=0.0), PromptPlan((0,) * 4, None, 1), 3.0, id="three tracked frames"),
        pytest.param(replace(CLICKS, image_weight=0.0), PromptPlan((0,) * 4, None, 1), 4.0, id="and a clicked one"),
        pytest.param(replace(CLICKS, image_weight=0.0), PromptPlan((5,) * 4, None, 1), 4.0, id="rounds share a frame"),
        pytest.param(replace(CLICKS, image_weight=0.5), PromptPlan((5,) * 4, None, 1), 5.5, id="and images of three"),
        pytest.param(replace(CLICKS, image_weight=0.0), PromptPlan((0,) * 4, 2, 3), 5.0, id="and corrections of one"),
    ],
)
def test_every_frame_counts_once(
    mix: PromptMix, plan: PromptPlan, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So most of the gradient is tracking's, however many clicks a frame gets."""
    assert weighed(tiny_model(seed=4), mix, plan, monkeypatch) == pytest.approx([expected])


def test_plan_follows_the_mix() -> None:
    mix = PromptMix(correction_probability=0.5, max_corrections=4, later_correction_probability=0.5)
    plans = [PromptPlan.draw(mix, 4, torch.Generator().manual_seed(seed)) for seed in range(200)]
    counts = [count for plan in plans for count in plan.corrections]
    assert set(counts) == {0, 1, 2, 3, 4}
    assert 0.4 < sum(count == 0 for count in counts) / len(counts) < 0.6
    assert {plan.later_frame for plan in plans} == {None, 1, 2}, "never the last frame: no memory of it is used"
    assert {plan.later_corrections for plan in plans} == {1, 2, 3, 4}
    nothing = PromptMix(correction_probability=0.0, later_correction_probability=0.0)
    assert PromptPlan.draw(nothing, 3, torch.Generator()) == PromptPlan((0, 0, 0), None, 1)


def test_single_images_are_never_given_as_masks() -> None:
    result = run(tiny_model(seed=4), MASKS, batch_of(*moving_squares(1)))
    assert float(result.losses.total.detach()) > 0
    assert math.isfinite(result.click_iou)


def test_mean_over_a_batch_is_that_of_its_objects() -> None:
    """What two processes average is what one computes."""
    model, plan = tiny_model(seed=4), PromptPlan((1, 0, 2, 1), 2, 2)
    images, masks = moving_squares()
    masks[2, 0] = False  # one object is hidden for a while
    whole = batch_of(images, masks)
    parts = [
        replace(
            whole,
            images_tcchw=whole.images_tcchw[:, [i]],
            masks_tm1hw=whole.masks_tm1hw[:, [i]],
            clip_of_object_m=torch.tensor([0]),
            object_seeds=(7 + i,),
        )
        for i in range(2)
    ]
    both = unroll(model, replace(whole, object_seeds=(7, 8)), PromptMix(), plan, SIZE // 2)
    alone = [unroll(model, part, PromptMix(), plan, SIZE // 2) for part in parts]
    for name in ("focal", "dice", "iou", "presence"):
        expected = sum(getattr(result.losses, name) for result in alone) / 2
        torch.testing.assert_close(getattr(both.losses, name), expected, rtol=1e-4, atol=1e-5)


def test_same_seed_gives_the_same_loss_and_another_one_another() -> None:
    model = tiny_model(seed=4)
    totals = [float(run(model, CLICKS, seed=seed).losses.total.detach()) for seed in (1, 1, 2)]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    assert totals[0] != pytest.approx(totals[2], rel=1e-3)


def test_it_does_what_the_tracker_does() -> None:
    """Given masks leave nothing to chance. The tracker keeps memories in bfloat16, so a few pixels may differ."""
    images, masks = moving_squares(6)
    model = tiny_model(seed=4)
    result = run(model, MASKS, batch_of(images, masks))
    ious = []
    for clip in range(2):
        tracker = Tracker(model)
        tracker.add_prompt("square", mask=masks[0, clip])
        logits = [tracker.step(image)["square"].low_res_logits for image in images[:, clip]][-1]
        half = F.interpolate(torch.from_numpy(logits)[None, None], (SIZE // 2, SIZE // 2), mode="bilinear")[0, 0] > 0
        truth = torch.from_numpy(masks[-1, clip, ::2, ::2])
        ious.append(float((half & truth).sum() / (half | truth).sum()))
    assert min(ious) > 0.02, "an empty mask would agree with anything"
    assert result.last_iou == pytest.approx(sum(ious) / 2, abs=0.02)
