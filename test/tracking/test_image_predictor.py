"""The image predictor's manners; that its masks are right is shown in test/parity."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_model import assert_same_logits, noise_frames, tiny_model

from sam2_ros.tracking.image_predictor import ImagePredictor, NoImageError
from sam2_ros.tracking.prompts import make_prompt
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH, LOW_RES = 48, 80, 16
CLICK = {"points": [(20, 30)], "labels": [1]}


@pytest.fixture(scope="module")
def predictor() -> ImagePredictor:
    predictor = ImagePredictor(tiny_model())
    predictor.set_image(noise_frames(1, HEIGHT, WIDTH)[0])
    return predictor


def test_shapes_and_types(predictor: ImagePredictor) -> None:
    three = predictor.predict(**CLICK)
    assert three.masks.shape == (3, HEIGHT, WIDTH) and three.masks.dtype == np.bool_
    assert three.scores.shape == (3,) and three.scores.dtype == np.float32
    assert three.logits.shape == (3, LOW_RES, LOW_RES) and three.logits.dtype == np.float32
    assert np.abs(three.logits).max() <= 32
    assert 0 < three.masks.mean() < 1, "a mask of everything or nothing shows nothing"
    one = predictor.predict(**CLICK, multimask=False)
    assert (one.masks.shape, len(one)) == ((1, HEIGHT, WIDTH), 1)


def test_ordered_is_best_first(predictor: ImagePredictor) -> None:
    three = predictor.predict(**CLICK)
    ordered = three.ordered()
    assert ordered.scores.tolist() == sorted(three.scores.tolist(), reverse=True)
    best = int(three.scores.argmax())
    assert np.array_equal(ordered.masks[0], three.masks[best])
    assert ordered.logits[0].tolist() == three.logits[best].tolist()


def test_every_part_of_a_prompt_counts(predictor: ImagePredictor) -> None:
    click = predictor.predict(**CLICK)
    box = predictor.predict(box=(10, 20, 40, 44))
    both = predictor.predict(**CLICK, box=(10, 20, 40, 44))
    fed_back = predictor.predict(**CLICK, logits=click.logits[:1])
    logits_alone = predictor.predict(logits=click.logits[:1])
    answers = [a.logits for a in (click, box, both, fed_back, logits_alone)]
    for i, first in enumerate(answers):
        assert all(np.abs(first - other).max() > 0.1 for other in answers[i + 1 :])


def test_a_batch_answers_each_prompt_as_if_alone(predictor: ImagePredictor) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    prompts = [
        make_prompt([(20, 30)], [1]),
        make_prompt(box=(10, 20, 40, 44)),
        make_prompt([(60, 10)], [1]),
        make_prompt([(20, 30), (5, 5)], [1, 0]),
        make_prompt(mask=mask),
    ]
    for prompt, answer in zip(prompts, predictor.predict_batch(prompts), strict=True):
        (alone,) = predictor.predict_batch([prompt])
        np.testing.assert_allclose(answer.logits, alone.logits, atol=1e-4)
        np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-5)
    assert predictor.predict_batch([]) == ()


def test_a_mask_is_a_prompt_like_the_logits_that_the_decoder_would_have_given_for_it(predictor: ImagePredictor) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    bilinear = partial(F.interpolate, mode="bilinear", antialias=True, align_corners=False)
    at_input = bilinear(torch.from_numpy(mask)[None, None].float(), (4 * LOW_RES, 4 * LOW_RES)) >= 0.5
    logits = bilinear(at_input * 20.0 - 10.0, (LOW_RES, LOW_RES))[0].numpy()
    (answer,) = predictor.predict_batch([make_prompt(mask=mask)])
    expected = predictor.predict(logits=logits)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-4)
    (other,) = predictor.predict_batch([make_prompt(mask=~mask)])
    assert np.abs(other.logits - answer.logits).max() > 0.1


def test_the_best_mask_of_a_click_is_one_of_three(predictor: ImagePredictor) -> None:
    click, box = make_prompt([(20, 30)], [1]), make_prompt(box=(10, 20, 40, 44))
    for_box, for_click = predictor.predict_best([box, click])
    assert len(for_box) == len(for_click) == 1
    np.testing.assert_allclose(for_click.scores[0], predictor.predict(**CLICK).scores.max(), atol=1e-5)
    np.testing.assert_allclose(
        for_box.logits, predictor.predict(box=(10, 20, 40, 44), multimask=False).logits, atol=1e-4
    )


def test_small_regions_are_cleaned_in_the_mask_and_not_in_the_logits() -> None:
    model, image = tiny_model(), noise_frames(1, HEIGHT, WIDTH)[0]
    plain, clean = ImagePredictor(model), ImagePredictor(model, max_hole_area=20, max_sprinkle_area=20)
    plain.set_image(image)
    clean.set_image(image)
    before, after = plain.predict(**CLICK), clean.predict(**CLICK)
    np.testing.assert_allclose(after.logits, before.logits, atol=1e-4)
    assert (before.masks != after.masks).any()


def test_before_an_image() -> None:
    with pytest.raises(NoImageError, match="call set_image"):
        ImagePredictor(tiny_model()).predict(**CLICK)


def test_a_bad_image_is_rejected_and_the_one_before_stays(predictor: ImagePredictor) -> None:
    before = predictor.predict(**CLICK).logits
    with pytest.raises(ValueError, match=r"expected shape \(H, W, 3\)"):
        predictor.set_image(np.zeros((4, 4), np.uint8))
    np.testing.assert_allclose(predictor.predict(**CLICK).logits, before, atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ({}, "empty prompt"),
        ({"points": [(1, 1)]}, "labels: expected one per point"),
        ({"points": [(WIDTH, 1)], "labels": [1]}, "0 <= x < 80"),
        ({"points": [(float("nan"), 1)], "labels": [1]}, "finite"),
        ({"box": (5, 5, 5, 9)}, "x0 < x1"),
        ({**CLICK, "logits": np.zeros((LOW_RES, LOW_RES))}, r"expected shape \(1, 16, 16\).*got \(16, 16\)"),
        ({**CLICK, "logits": np.zeros((3, LOW_RES, LOW_RES))}, r"expected shape \(1, 16, 16\)"),
        ({**CLICK, "logits": np.full((1, LOW_RES, LOW_RES), np.nan)}, "finite numbers"),
        ({**CLICK, "logits": np.full((1, LOW_RES, LOW_RES), "a")}, "expected numbers"),
        ({"labels": [1], "logits": np.zeros((1, LOW_RES, LOW_RES))}, "as many as points"),
    ],
)
def test_bad_prompts_are_rejected(predictor: ImagePredictor, prompt: dict, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        predictor.predict(**prompt)


def test_a_mask_and_logits_contradict_each_other(predictor: ImagePredictor) -> None:
    prompt = make_prompt(mask=np.ones((HEIGHT, WIDTH), bool))
    with pytest.raises(PromptError, match="a mask stands alone"):
        predictor.predict_batch([prompt], np.zeros((1, LOW_RES, LOW_RES), np.float32))


def test_a_trackers_predictor_leaves_its_objects_alone() -> None:
    frames = noise_frames(3, HEIGHT, WIDTH)
    results = []
    for disturbed in (False, True):
        tracker = Tracker(tiny_model())
        tracker.add_prompt("a", **CLICK)
        tracker.step(frames[0])
        if disturbed:
            predictor = tracker.image_predictor()
            predictor.set_image(frames[2])
            predictor.predict(box=(10, 20, 40, 44))
        results.append(tracker.step(frames[1])["a"].low_res_logits)
    assert_same_logits(*results)
