"""Camera images as model input, and masks as boxes, centroids, label images and without small regions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tiny_model import noise_frames

from sam2_ros.tracking.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    centroid_xy,
    image_to_input,
    label_image,
    logits_to_image_size,
    mask_to_input,
    remove_small_regions,
    tight_box_xyxy,
)

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def test_each_channel_is_normalised_by_its_own_mean_and_deviation() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 255, 51, 0
    tensor = image_to_input(image, 32, CPU)
    assert tensor.shape == (1, 3, 32, 32)
    assert tensor.dtype == torch.float32
    expected = [
        (value - mean) / std for value, mean, std in zip((1.0, 0.2, 0.0), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    torch.testing.assert_close(tensor[0], torch.tensor(expected)[:, None, None].expand(3, 32, 32))


def test_image_is_stretched_to_the_square() -> None:
    image = np.zeros((16, 64, 3), np.uint8)
    image[:8, :32] = 255
    bright = image_to_input(image, 32, CPU)[0, 0] > 0
    assert bright[:15, :15].all()
    assert not bright[17:].any()
    assert not bright[:, 17:].any()


def test_image_of_the_models_size_is_not_resampled() -> None:
    image = noise_frames(1, 32, 32)[0]
    tensor = image_to_input(image, 32, CPU)[0]
    restored = tensor * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    assert (restored * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().tolist() == image.tolist()


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda image: np.pad(image, ((0, 0), (0, 7), (0, 0)))[:, :80], id="padded rows"),
        pytest.param(lambda image: image[::-1, ::-1].copy()[::-1, ::-1], id="flipped twice"),
        pytest.param(lambda image: image[..., ::-1].copy()[..., ::-1], id="channels reversed twice"),
        pytest.param(np.asfortranarray, id="columns first"),
    ],
)
def test_layout_in_memory_does_not_matter(view) -> None:  # type: ignore[no-untyped-def]
    image = noise_frames(1)[0]
    laid_out = view(image)
    assert not laid_out.flags.c_contiguous
    assert torch.equal(image_to_input(laid_out, 64, CPU), image_to_input(image, 64, CPU))


def test_read_only_image_is_taken_silently() -> None:
    """Images that share a message's buffer are read-only."""
    image, mask = noise_frames(1)[0], np.ones((48, 80), bool)
    image.flags.writeable = mask.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image_to_input(image, 64, CPU)
            mask_to_input(mask, 64, CPU)
    finally:
        torch.set_warn_always(False)


def test_mask_is_stretched_and_stays_a_mask() -> None:
    mask = np.zeros((48, 80), bool)
    mask[12:36, 20:60] = True
    resized = mask_to_input(mask, 64, CPU)
    assert resized.shape == (1, 1, 64, 64)
    assert resized.unique().tolist() == [0, 1]
    expected = torch.zeros(64, 64)
    expected[16:48, 16:48] = 1
    assert torch.equal(resized[0, 0], expected)


def test_logits_get_the_size_of_the_image() -> None:
    logits = torch.tensor([[[-4.0, 4.0], [-4.0, 4.0]]])
    large = logits_to_image_size(logits, 6, 8)
    assert large.shape == (1, 6, 8)
    assert (large[0, :, :4] < 0).all()
    assert (large[0, :, 4:] > 0).all()


def test_a_mask_smaller_than_a_model_pixel_does_not_vanish() -> None:
    mask = np.zeros((1080, 1920), bool)
    mask[500:503, 700:705] = True
    kept = mask_to_input(mask, 320, torch.device("cpu"))
    assert 1 <= int(kept.sum()) <= 4
    y, x = torch.nonzero(kept[0, 0])[0].tolist()
    assert (x, y) == (702 * 320 // 1920, 501 * 320 // 1080)


EMPTY = ["....", "....", "...."]
CORNERS = ["#...", "....", "...#"]
INNER = ["....", ".##.", "...."]
ALL = ["####", "####", "####"]
L_SHAPE = ["#...", "#...", "##.."]


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@pytest.mark.parametrize(
    ("rows", "box", "centroid"),
    [
        (EMPTY, None, None),
        (CORNERS, (0, 0, 4, 3), (1.5, 1.0)),
        (INNER, (1, 1, 3, 2), (1.5, 1.0)),
        (ALL, (0, 0, 4, 3), (1.5, 1.0)),
        (L_SHAPE, (0, 0, 2, 3), (0.25, 1.25)),
    ],
)
def test_box_and_centroid(rows: list[str], box: tuple | None, centroid: tuple | None) -> None:
    assert tight_box_xyxy(mask_of(rows)) == box
    assert centroid_xy(mask_of(rows)) == centroid


def test_values_are_plain_numbers() -> None:
    """numpy's own would not fit into messages and JSON."""
    assert {type(v) for v in tight_box_xyxy(mask_of(INNER)) or ()} == {int}
    assert {type(v) for v in centroid_xy(mask_of(INNER)) or ()} == {float}


def test_the_highest_logit_wins_a_pixel_and_nothing_below_zero_does() -> None:
    logits = np.array([[[2.0, 1.0, -1.0]], [[1.0, 3.0, -2.0]]], np.float32)
    assert label_image(logits, [4, 9], 1, 3).tolist() == [[4, 9, 0]]


def test_zero_is_not_above_zero() -> None:
    assert label_image(np.zeros((1, 1, 1), np.float32), [4], 1, 1).tolist() == [[0]]


def test_no_objects_are_an_empty_image() -> None:
    image = label_image(np.zeros((0, 2, 3), np.float32), [], 2, 3)
    assert image.shape == (2, 3)
    assert image.dtype == np.uint8
    assert not image.any()


@pytest.mark.parametrize(("label", "dtype"), [(255, np.uint8), (256, np.uint16), (60000, np.uint16)])
def test_labels_above_255_need_16_bits(label: int, dtype: type) -> None:
    image = label_image(np.ones((1, 1, 2), np.float32), [label], 1, 2)
    assert image.dtype == dtype
    assert image.tolist() == [[label, label]]


MASK = """
#########...
#.#######...
#####..##..#
#####..##...
#########...
.........#..
............
"""


def logits_of(text: str) -> torch.Tensor:
    rows = text.strip().splitlines()
    return torch.tensor([[[3.0 if letter == "#" else -3.0 for letter in row] for row in rows]])


def text_of(logits_1hw: torch.Tensor) -> str:
    return "\n".join("".join("#" if value > 0 else "." for value in row) for row in logits_1hw[0].tolist())


@pytest.mark.parametrize(
    ("hole", "speck", "expected"),
    [
        (0, 0, MASK),
        (1, 0, MASK.replace("#.#######", "#########")),
        (4, 0, MASK.replace("#.#######", "#########").replace("#####..##", "#########")),
        (0, 1, MASK.replace("..#\n", "...\n")),  # the one below right touches the large region at its corner
    ],
    ids=["nothing asked for", "the small hole", "both holes", "the speck"],
)
def test_small_regions_go(hole: int, speck: int, expected: str) -> None:
    logits = logits_of(MASK)
    assert text_of(remove_small_regions(logits, hole, speck)) == expected.strip()
    assert text_of(logits) == MASK.strip()  # a new map


def test_what_is_changed_is_sure_and_the_rest_is_untouched() -> None:
    logits = logits_of(MASK)
    cleaned = remove_small_regions(logits, 1, 1)
    changed = cleaned != logits
    assert np.argwhere(changed[0].numpy()).tolist() == [[1, 1], [2, 11]]
    assert cleaned[changed].tolist() == [10.0, -10.0]


def test_a_mask_that_is_all_small_vanishes_and_a_full_one_stays() -> None:
    logits = torch.stack([logits_of("#.\n..")[0], logits_of("##\n##")[0]])
    cleaned = remove_small_regions(logits, 2, 2)
    assert (cleaned > 0).sum((1, 2)).tolist() == [0, 4]
