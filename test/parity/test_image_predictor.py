"""Our image predictor against the official one: the same random weights, image and prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from official_image import connected_components, import_official_image, set_feature_size, varied
from synthetic_frames import synthetic_frames

from sam2_ros import load_image_predictor
from sam2_ros.evaluation.official import build_official, randomise
from sam2_ros.tracking.image_predictor import ImagePredictor

pytestmark = pytest.mark.numeric
TOLERANCE_LOGITS = 1e-3
HEIGHT, WIDTH = 180, 240
CLICK = {"points": [(60.0, 90.0)], "labels": [1]}
CLICKS = {"points": [(60.0, 90.0), (200.5, 20.25), (70.0, 120.0)], "labels": [1, 0, 1]}
BOX = {"box": (30.0, 60.0, 100.5, 130.0)}
PROMPTS: dict[str, dict[str, Any]] = {
    "one click": CLICK,
    "negative and positive clicks": CLICKS,
    "box": BOX,
    "box and clicks": {**CLICKS, **BOX},
}


@dataclass(frozen=True)
class Pair:
    """Both predictors with the same weights, and what says which."""

    official: Any
    ours: ImagePredictor
    model: str
    image_size: int
    postprocess: bool


@lru_cache(maxsize=1)
def random_official(model: str, image_size: int, postprocess: bool) -> Any:
    network = build_official(model, image_size, postprocess)
    randomise(network, seed=7, object_score_bias=-20.0)  # absent throughout: an image predictor does not ask
    return network


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept_for_other_modules() -> Iterator[None]:
    yield
    random_official.cache_clear()


def make_pair(
    model: str,
    image_size: int,
    postprocess: bool,
    folder: Path,
    max_hole_area: float = 0.0,
    max_sprinkle_area: float = 0.0,
    change: Callable[[Any], Any] = lambda network: network,
) -> Pair:
    network = change(random_official(model, image_size, postprocess))
    checkpoint = folder / "random.pt"
    torch.save({"model": network.state_dict()}, checkpoint)
    predictor_class, _ = import_official_image()
    official = predictor_class(network, max_hole_area=max_hole_area, max_sprinkle_area=max_sprinkle_area)
    set_feature_size(official, image_size)
    ours = load_image_predictor(
        model, checkpoint=checkpoint, image_size=image_size, postprocess=postprocess, precision="float32"
    )
    if max_hole_area or max_sprinkle_area:
        ours = ImagePredictor(ours.model, max_hole_area=max_hole_area, max_sprinkle_area=max_sprinkle_area)
    return Pair(official, ours, model, image_size, postprocess)


@pytest.fixture(
    scope="module",
    params=[("sam2.1_hiera_tiny", True), ("sam2.1_hiera_tiny", False), ("sam2_hiera_tiny", True)],
    ids=["2.1", "2.1-benchmark", "2.0"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model, postprocess = request.param
    made = make_pair(model, 256, postprocess, tmp_path_factory.mktemp("weights"))
    set_images(made, synthetic_frames(1, HEIGHT, seed=3, width_px=WIDTH)[0])
    return made


def set_images(pair: Pair, image_rgb: NDArray[np.uint8]) -> None:
    pair.official.set_image(image_rgb)
    pair.ours.set_image(image_rgb)


def official_answer(pair: Pair, prompt: dict[str, Any], logits: NDArray | None, multimask: bool) -> tuple:
    """Logits at the image's size, scores, low-resolution logits."""
    points, labels, box = (prompt.get(name) for name in ("points", "labels", "box"))
    return pair.official.predict(
        point_coords=None if points is None else np.array(points, np.float32),
        point_labels=None if labels is None else np.array(labels, np.int32),
        box=None if box is None else np.array(box, np.float32),
        mask_input=logits,
        multimask_output=multimask,
        return_logits=True,
    )


def compare(
    pair: Pair, prompt: dict[str, Any], logits: NDArray | None, multimask: bool
) -> tuple[float, float, NDArray]:
    """Largest difference of the logits, smallest IoU of the masks, and the official low-resolution logits."""
    full, scores, low_res = official_answer(pair, prompt, logits, multimask)
    answer = pair.ours.predict(**prompt, logits=logits, multimask=multimask)
    assert answer.masks.shape == full.shape and answer.logits.shape == low_res.shape
    assert low_res.std() > 0.1 and any(0.02 < (each > 0).mean() < 0.98 for each in full), "the masks are trivial"
    worst = float(np.abs(answer.logits - low_res).max())
    assert worst < TOLERANCE_LOGITS, f"logits differ by {worst}"
    np.testing.assert_allclose(answer.scores, scores, atol=1e-4)
    sure = np.abs(full) > TOLERANCE_LOGITS
    assert (answer.masks == (full > 0))[sure].all()
    ious = [
        (mask & (each > 0)).sum() / max((mask | (each > 0)).sum(), 1)
        for mask, each in zip(answer.masks, full, strict=True)
        if (each > 0).any()
    ]
    return worst, float(min(ious)), low_res


@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_and_its_logits_fed_back(
    pair: Pair, prompt: dict[str, Any], multimask: bool, request: pytest.FixtureRequest, add_row: Callable[..., None]
) -> None:
    worst, iou, logits = compare(pair, prompt, None, multimask)
    best = int(official_answer(pair, prompt, None, multimask)[1].argmax())
    fed_back = compare(pair, prompt, logits[best : best + 1], multimask=False)
    case = f"image: {request.node.callspec.id.split('-')[-1]}, {request.node.callspec.id.split('-')[-2]}, and fed back"
    add_row(case, pair.model, pair.image_size, pair.postprocess, max(worst, fed_back[0]), min(iou, fed_back[1]))


def test_logits_alone(pair: Pair, add_row: Callable[..., None]) -> None:
    logits = official_answer(pair, CLICK, None, True)[2][:1]
    worst, iou, _ = compare(pair, {}, logits, multimask=True)
    add_row("image: logits alone", pair.model, pair.image_size, pair.postprocess, worst, iou)


def test_many_boxes_at_once(pair: Pair, add_row: Callable[..., None]) -> None:
    from sam2_ros.tracking.prompts import make_prompt

    boxes = np.array([(30, 60, 100, 130), (5, 5, 60, 170), (120, 20, 239, 120)], np.float32)
    masks, scores, low_res = pair.official.predict(box=boxes, multimask_output=False)
    answers = pair.ours.predict_batch([make_prompt(box=box) for box in boxes], multimask=False)
    assert low_res.shape == (3, 1, 64, 64)
    worst = max(float(np.abs(a.logits - each).max()) for a, each in zip(answers, low_res, strict=True))
    assert worst < TOLERANCE_LOGITS
    np.testing.assert_allclose([a.scores for a in answers], scores, atol=1e-4)
    assert np.mean([a.masks for a in answers] != masks.astype(bool)) < 1e-4
    add_row("image: three boxes at once", pair.model, pair.image_size, pair.postprocess, worst)


def test_the_stability_fallback_is_at_work_and_only_where_it_should() -> None:
    """Else both settings would agree for the wrong reason."""
    from sam2_ros.model.mask_decoder import StabilityFallback

    for postprocess in (True, False):
        network = build_official("sam2.1_hiera_tiny", 256, postprocess)
        assert network.sam_mask_decoder.dynamic_multimask_via_stability == postprocess
        ours = load_image_predictor("sam2.1_hiera_tiny", weights="random", image_size=256, postprocess=postprocess)
        assert (ours.model.sam_mask_decoder.fallback == StabilityFallback()) == postprocess


@pytest.mark.parametrize(("holes", "sprinkles"), [(60, 60), (60, 0), (0, 60)])
def test_small_regions(
    holes: int, sprinkles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_row: Callable[..., None]
) -> None:
    monkeypatch.setattr("sam2.utils.misc.get_connected_components", connected_components)
    pair = make_pair("sam2.1_hiera_tiny", 256, True, tmp_path, holes, sprinkles)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    set_images(pair, noise)
    plain = ImagePredictor(pair.ours.model)
    plain.set_image(noise)
    worst, iou, _ = compare(pair, CLICK, None, multimask=True)
    before, after = plain.predict(**CLICK).masks, pair.ours.predict(**CLICK).masks
    filled, taken = (after & ~before).any(), (before & ~after).any()
    assert (filled, taken) == (holes > 0, sprinkles > 0), "of each kind there was something to clean"
    add_row("image: small regions", pair.model, pair.image_size, True, worst, iou)


def test_logits_beyond_the_limit(tmp_path: Path, add_row: Callable[..., None]) -> None:
    """Those that are handed out, to be fed back, are kept within +-32; the masks are made of the whole ones."""
    pair = make_pair("sam2.1_hiera_tiny", 256, True, tmp_path, change=lambda network: varied(deepcopy(network)))
    set_images(pair, synthetic_frames(1, HEIGHT, seed=3, width_px=WIDTH)[0])
    worst, iou, logits = compare(pair, CLICK, None, multimask=True)
    assert np.abs(logits).max() == 32
    add_row("image: logits beyond 32", pair.model, pair.image_size, True, worst, iou)


@pytest.mark.long
@pytest.mark.parametrize("model", ["sam2.1_hiera_tiny", "sam2_hiera_tiny"])
def test_full_size(model: str, tmp_path: Path, add_row: Callable[..., None]) -> None:
    pair = make_pair(model, 1024, True, tmp_path)
    set_images(pair, synthetic_frames(1, 480, seed=3, width_px=640)[0])
    prompt = {"points": [(160.0, 240.0), (600.5, 20.0)], "labels": [1, 0], "box": (80.0, 160.0, 270.0, 350.0)}
    worst, iou, logits = compare(pair, prompt, None, multimask=True)
    fed_back = compare(pair, prompt, logits[:1], multimask=False)
    add_row("image: box and clicks, and fed back", model, 1024, True, max(worst, fed_back[0]), min(iou, fed_back[1]))
