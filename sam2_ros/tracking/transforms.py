"""Camera pixels to model input and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_image(image_rgb: NDArray[np.uint8]) -> None:
    """Raises ValueError for anything but a (H, W, 3) uint8 array with pixels in it."""
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8:
        kind = getattr(image_rgb, "dtype", type(image_rgb).__name__)
        raise ValueError(f"image: expected a uint8 array of shape (H, W, 3), RGB, got {kind}")
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or 0 in image_rgb.shape:
        raise ValueError(f"image: expected shape (H, W, 3), RGB, got {image_rgb.shape}")


def image_to_input(image_rgb: NDArray[np.uint8], size_px: int, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, size, size) float32: stretched to a square (bilinear, antialiased), normalised."""
    image = _to(device, torch.from_numpy(_as_torch_takes_it(image_rgb))).permute(2, 0, 1)[None].float()
    if image.shape[2:] != (size_px, size_px):
        image = F.interpolate(image, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    mean, std = _mean_and_deviation(device)
    return (image / 255 - mean) / std  # in the official order, so that rounding agrees


def _to(device: torch.device, tensor: Tensor) -> Tensor:
    """On the device; a GPU fetches it by itself, from pages that stay where they are, while this goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=8)
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's, each (1, 3, 1, 1). Kept: a GPU waits for everything before it takes a small constant."""
    with torch.inference_mode(False):  # they may be met again in training
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def mask_to_input(mask: NDArray[np.bool_], size_px: int, device: torch.device) -> Tensor:
    """(H, W) bool -> (1, 1, size, size) float32 of 0 and 1, as the official predictor resizes mask prompts."""
    mask_11hw = torch.from_numpy(_as_torch_takes_it(mask)).to(device)[None, None].float()
    if mask.shape == (size_px, size_px):
        return mask_11hw
    resized = F.interpolate(mask_11hw, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    # A thing smaller than a model pixel would vanish, and with it the object: then the pixel with most of it is kept.
    return (resized >= resized.max().clamp(max=0.5)).float()


def _as_torch_takes_it(array: NDArray) -> NDArray:
    """Copied where rows are padded or flipped (torch has no negative strides) or the array is read-only (it warns)."""
    return np.require(array, requirements=["C", "W"])


def logits_to_image_size(logits_nhw: Tensor, height: int, width: int) -> Tensor:
    """(N, h, w) low-resolution mask logits -> (N, H, W) at the camera image's size."""
    return F.interpolate(logits_nhw[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
