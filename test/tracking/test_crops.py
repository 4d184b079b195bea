"""Where "segment everything" looks."""

from __future__ import annotations

import numpy as np

from sam2_ros.tracking.crops import Crop, make_crops, make_grid


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
