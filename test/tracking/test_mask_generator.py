"""Segment everything with a tiny random network: each setting, crops, the grid of points and the suppression of
duplicates. ``test/parity`` compares with the official code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from official_image import nms
from tiny_model import noise_frames, tiny_model

from sam2_ros.tracking.mask_generator import (
    AutomaticMaskGenerator,
    Crop,
    GeneratedMask,
    GeneratorSettings,
    Progress,
    keep_best_boxes,
    make_crops,
    make_grid,
    settings_for,
)

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 96, 160
# A random network is not sure of anything.
LOOSE = GeneratorSettings(
    points_per_side=3, points_per_batch=4, pred_iou_thresh=0.0, stability_score_thresh=0.05, box_nms_thresh=1.0
)


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return tiny_model()


@pytest.fixture(scope="module")
def image_rgb() -> np.ndarray:
    return noise_frames(1, HEIGHT, WIDTH)[0]


def generate(model, image_rgb: np.ndarray, **changes: object) -> tuple[GeneratedMask, ...]:  # type: ignore[no-untyped-def]
    return AutomaticMaskGenerator(model, replace(LOOSE, **changes)).generate(image_rgb)  # type: ignore[arg-type]


def test_fields_agree_with_the_mask_and_the_best_comes_first(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    found = generate(model, image_rgb)
    assert len(found) > 5
    assert [f.predicted_iou for f in found] == sorted((f.predicted_iou for f in found), reverse=True)
    for each in found:
        rows, columns = np.nonzero(each.mask)
        assert each.mask.shape == (HEIGHT, WIDTH) and each.area_px == len(rows) > 0
        assert each.box_xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert 0 <= each.predicted_iou <= 1 and 0.05 <= each.stability_score <= 1
        assert 0 < each.point_xy[0] < WIDTH and 0 < each.point_xy[1] < HEIGHT
        assert each.crop_xyxy == (0, 0, WIDTH, HEIGHT)


def test_progress_and_batches(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    seen: list[Progress] = []
    whole = AutomaticMaskGenerator(model, LOOSE).generate(image_rgb, seen.append)
    assert [(p.done, p.total) for p in seen] == [(0, 9), (4, 9), (8, 9), (9, 9)]
    one_by_one = generate(model, image_rgb, points_per_batch=1)
    assert [f.box_xyxy for f in one_by_one] == [f.box_xyxy for f in whole]


def test_thresholds_take_some_and_leave_some(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    every = generate(model, image_rgb)
    for field, threshold in (("predicted_iou", "pred_iou_thresh"), ("stability_score", "stability_score_thresh")):
        middle = float(np.median([getattr(f, field) for f in every]))
        some = generate(model, image_rgb, **{threshold: middle})
        assert 0 < len(some) < len(every) and all(getattr(f, field) >= middle for f in some)
    assert 0 < len(generate(model, image_rgb, box_nms_thresh=0.5)) < len(every)
    higher = generate(model, image_rgb, mask_threshold=1.0)
    assert 0 < np.mean([f.area_px for f in higher]) < np.mean([f.area_px for f in every])
    narrow = generate(model, image_rgb, stability_score_offset=0.1)
    assert np.mean([f.stability_score for f in narrow]) > np.mean([f.stability_score for f in every])


def test_one_mask_a_point_and_a_second_look(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    assert len(generate(model, image_rgb, multimask_output=False, stability_score_thresh=0.0)) <= 9
    first, second = generate(model, image_rgb), generate(model, image_rgb, use_m2m=True)
    assert [f.predicted_iou for f in first] != [f.predicted_iou for f in second]


def test_small_regions_go(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    import cv2

    def regions(found: tuple[GeneratedMask, ...]) -> float:
        return float(np.mean([cv2.connectedComponents(f.mask.astype(np.uint8))[0] - 1 for f in found]))

    assert regions(generate(model, image_rgb, min_mask_region_area=30)) < regions(generate(model, image_rgb))


def test_crops_find_more_but_nothing_at_their_own_edges(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    settings = {
        "points_per_side": 4,
        "crop_n_points_downscale_factor": 2,
        "crop_n_layers": 1,
        "crop_nms_thresh": 1.0,
        "mask_threshold": 20.0,
        "stability_score_thresh": 0.0,
    }
    seen: list[Progress] = []
    found = AutomaticMaskGenerator(model, replace(LOOSE, **settings)).generate(image_rgb, seen.append)  # type: ignore[arg-type]
    assert seen[-1].total == 16 + 4 * 4
    cropped = [f for f in found if f.crop_xyxy != (0, 0, WIDTH, HEIGHT)]
    assert cropped
    for each in cropped:
        x0, y0, x1, y1 = each.crop_xyxy
        assert x0 <= each.box_xyxy[0] and y0 <= each.box_xyxy[1] and each.box_xyxy[2] <= x1 and each.box_xyxy[3] <= y1
        assert x0 <= each.point_xy[0] < x1 and y0 <= each.point_xy[1] < y1
        for end, crop_edge, image_edge in zip(
            (*each.box_xyxy[:2], each.box_xyxy[2] - 1, each.box_xyxy[3] - 1),
            each.crop_xyxy,
            (0, 0, WIDTH, HEIGHT),
            strict=True,
        ):
            assert abs(end - crop_edge) > 20 or abs(end - image_edge) <= 20, "cut off by its crop"
    areas = [(f.crop_xyxy[2] - f.crop_xyxy[0]) * (f.crop_xyxy[3] - f.crop_xyxy[1]) for f in found]
    assert areas == sorted(areas)
    fewer = generate(model, image_rgb, **{**settings, "crop_nms_thresh": 0.3})
    assert 0 < len(fewer) < len(found)
    apart = generate(model, image_rgb, **{**settings, "crop_overlap_ratio": 0.0})
    assert {f.crop_xyxy for f in apart} <= {(0, 0, WIDTH, HEIGHT)} | {
        (x, y, x + WIDTH // 2, y + HEIGHT // 2) for x in (0, WIDTH // 2) for y in (0, HEIGHT // 2)
    }


def test_no_empty_mask_and_no_error_where_nothing_is_found(model, image_rgb) -> None:  # type: ignore[no-untyped-def]
    assert generate(model, image_rgb, pred_iou_thresh=1.0) == ()
    assert generate(model, image_rgb, mask_threshold=1e6, stability_score_thresh=0.0) == ()


def test_a_model_without_official_weights_has_its_own_settings() -> None:
    assert settings_for("sam2.1_hiera_tiny") == GeneratorSettings()
    assert settings_for("nano").pred_iou_thresh < GeneratorSettings().pred_iou_thresh
    assert AutomaticMaskGenerator(tiny_model()).settings == GeneratorSettings()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"points_per_side": 0}, "points_per_side: expected 1 or more, got 0"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"crop_n_layers": -1}, "crop_n_layers: expected 0 or more"),
        ({"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}, "no point is left"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        GeneratorSettings(**settings)


def test_no_image(model) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="uint8"):
        AutomaticMaskGenerator(model, LOOSE).generate(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def test_without_layers_there_is_the_whole_image() -> None:
    (crop,) = make_crops(30, 50, layers=0, overlap_ratio=0.3)
    assert (crop.layer, crop.x0, crop.y0, crop.x1, crop.y1, crop.area_px) == (0, 0, 0, 50, 30, 1500)


def test_crops_of_a_layer_overlap_and_cover_the_image() -> None:
    crops = make_crops(40, 60, layers=2, overlap_ratio=0.25)
    assert [sum(crop.layer == layer for crop in crops) for layer in range(3)] == [1, 4, 16]
    boxes = [(c.x0, c.y0, c.x1, c.y1) for c in crops if c.layer == 1]
    assert boxes == [(0, 0, 35, 25), (0, 15, 35, 40), (25, 0, 60, 25), (25, 15, 60, 40)]  # 10 px in common
    for layer in range(3):
        covered = np.zeros((40, 60), np.uint8)
        for crop in crops:
            if crop.layer == layer:
                crop.cut(covered)[...] += 1  # type: ignore[misc]
        assert covered.min() >= 1


def test_the_grid_is_even_and_inside() -> None:
    grid = make_grid(4, height=20, width=80)
    assert grid.shape == (16, 2) and grid.dtype == np.float32
    assert grid[:5].tolist() == [[10, 2.5], [30, 2.5], [50, 2.5], [70, 2.5], [10, 7.5]]


def test_an_image_of_one_pixel_has_no_empty_crops() -> None:
    crops = make_crops(1, 1, 2, 512 / 1500)
    assert crops[0] == Crop(0, 0, 0, 1, 1) and all(crop.area_px == 1 for crop in crops)


BOX, NEARLY, HALF, APART = (0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 5), (20, 0, 30, 10)  # IoU with BOX: 0.9, 0.5, 0

CASES = {
    "nothing": ([], [], 0.7, []),
    "one": ([BOX], [0.1], 0.7, [0]),
    "best first": ([BOX, APART], [0.1, 0.9], 0.7, [1, 0]),
    "the worse of two goes": ([BOX, NEARLY], [0.8, 0.9], 0.7, [1]),
    "above the threshold only": ([BOX, HALF], [0.9, 0.8], 0.5, [0, 1]),
    "a threshold below it": ([BOX, HALF], [0.9, 0.8], 0.49, [0]),
    "equal scores: the earlier": ([BOX, NEARLY, APART], [0.5, 0.5, 0.5], 0.7, [0, 2]),
    "one that is gone takes none with it": ([BOX, (0, 0, 10, 7), HALF], [0.9, 0.8, 0.7], 0.6, [0, 2]),
    "no area": ([(5, 5, 5, 9), (5, 5, 5, 9)], [0.9, 0.8], 0.7, [0, 1]),
}


@pytest.mark.parametrize(("boxes", "scores", "threshold", "kept"), CASES.values(), ids=CASES)
def test_by_hand(boxes: list, scores: list, threshold: float, kept: list) -> None:
    boxes_n4 = np.array(boxes, np.float32).reshape(-1, 4)
    scores_n = np.array(scores, np.float32)
    assert keep_best_boxes(boxes_n4, scores_n, threshold).tolist() == kept
    # What the official code is given in the parity tests is held to the same.
    assert nms(torch.from_numpy(boxes_n4), torch.from_numpy(scores_n), threshold).tolist() == kept


def test_many_random_boxes() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 40, (80, 2))
    boxes = np.concatenate([corners, corners + rng.integers(5, 30, (80, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 20, 80).astype(np.float32)  # many are equal
    kept = keep_best_boxes(boxes, scores, 0.5)
    assert 5 < len(kept) < 75
    assert kept.tolist() == nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5).tolist()
