"""The unrolled tracker: it learns everywhere, and it is the tracker."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import TINY, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.preprocess import image_to_input
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.training import unroll as unroll_module
from sam2_ros.training.batches import TrainingBatch
from sam2_ros.training.config import PromptMix
from sam2_ros.training.unroll import UnrollResult, unroll

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
    return TrainingBatch(tensors, torch.from_numpy(masks)[:, :, None].float(), torch.tensor([0, 1]))


def run(model: SAM2, mix: PromptMix, batch: TrainingBatch | None = None, seed: int = 0) -> UnrollResult:
    batch = batch_of(*moving_squares()) if batch is None else batch
    return unroll(model, batch, mix, torch.Generator().manual_seed(seed), SIZE // 2)


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
    decode, add_click = model.decode_masks, unroll_module.add_corrective_click

    def recording_decode(*args, **kwargs):  # type: ignore[no-untyped-def]
        predictions.append(decode(*args, **kwargs))
        return predictions[-1]

    def recording_click(prompts, predicted, masks, generator):  # type: ignore[no-untyped-def]
        corrected.append((predicted, predictions[-1].logits_b1hw))
        return add_click(prompts, predicted, masks, generator)

    monkeypatch.setattr(model, "decode_masks", recording_decode)
    monkeypatch.setattr(unroll_module, "add_corrective_click", recording_click)
    run(model, CLICKS, batch_of(*moving_squares(1)))
    ((predicted, logits),) = corrected
    assert 0.02 < predicted.float().mean() < 0.98
    shown = F.interpolate(logits, predicted.shape[2:], mode="bilinear") > 0
    assert torch.equal(predicted, shown)
    assert [p.candidates_bmhw.shape[1] for p in predictions] == [3, 1]


def test_same_seed_gives_the_same_loss_and_another_one_another() -> None:
    model = tiny_model(seed=4)
    totals = [float(run(model, CLICKS, seed=seed).losses.total.detach()) for seed in (1, 1, 2)]
    assert totals[0] == totals[1] != totals[2]


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
