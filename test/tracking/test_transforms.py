"""Camera pixels as the model sees them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tiny_model import noise_frames

from sam2_ros.tracking.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    image_to_input,
    logits_to_image_size,
    mask_to_input,
)

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
