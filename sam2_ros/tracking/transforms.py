"""Camera pixels to model input and back, and masks as their users need them: boxes, centroids, a label image."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import ABSENT_LOGIT
from sam2_ros.tracking.zoom.window import Window

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


def image_to_input(image_rgb: NDArray[np.uint8], size_px: int, device: torch.device) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, size, size) float32: stretched to a square (bilinear, antialiased), normalised."""
    image = _to(device, torch.from_numpy(_torch_compatible(image_rgb))).permute(2, 0, 1)[None].float()
    if image.shape[2:] != (size_px, size_px):
        image = F.interpolate(image, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    mean, std = _mean_and_deviation(device)
    return (image / 255 - mean) / std  # in the official order, so that rounding agrees


def _to(device: torch.device, tensor: Tensor) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=8)
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """ImageNet's, each (1, 3, 1, 1). Cached, because uploading a small constant synchronises a GPU."""
    with torch.inference_mode(False):  # training may use them again
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def mask_to_input(mask: NDArray[np.bool_], size_px: int, device: torch.device) -> Tensor:
    """(H, W) bool -> (1, 1, size, size) float32 of 0 and 1, as the official predictor resizes mask prompts."""
    mask_11hw = torch.from_numpy(_torch_compatible(mask)).to(device)[None, None].float()
    if mask.shape == (size_px, size_px):
        return mask_11hw
    resized = F.interpolate(mask_11hw, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    # An object smaller than a model pixel would vanish: then keep the pixel that it covers most.
    return (resized >= resized.max().clamp(max=0.5)).float()


def _torch_compatible(array: NDArray) -> NDArray:
    """A copy if rows are padded or flipped (torch has no negative strides) or the array is read-only (torch warns)."""
    return np.require(array, requirements=["C", "W"])


def logits_to_image_size(logits_nhw: Tensor, height: int, width: int) -> Tensor:
    """(N, h, w) low-resolution mask logits -> (N, H, W) at the camera image's size."""
    return F.interpolate(logits_nhw[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def logits_in_image(logits_11hw: Tensor, window: Window | None, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Low-resolution mask logits at the camera image's size, (H, W); outside of the window the object is absent."""
    seen_hw = size_hw if window is None else (window.height, window.width)
    logits_hw: NDArray[np.float32] = logits_to_image_size(logits_11hw[:, 0], *seen_hw)[0].cpu().numpy()
    if window is None:
        return logits_hw
    pasted_hw = np.full(size_hw, ABSENT_LOGIT, np.float32)
    pasted_hw[window.slices] = logits_hw
    return pasted_hw


def tight_box_xyxy(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Smallest box around the True pixels, x1 and y1 exclusive; None for an empty mask."""
    x, y, width, height = cv2.boundingRect(_as_image(mask))
    return (x, y, x + width, y + height) if width else None


def centroid_xy(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Mean position of the True pixels in pixels; None for an empty mask."""
    moments = cv2.moments(_as_image(mask), binaryImage=True)  # sums of integers: exact
    area = moments["m00"]
    return (moments["m10"] / area, moments["m01"] / area) if area else None


def _as_image(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A view for OpenCV, which is several times faster on a mask than numpy's sums along an axis."""
    return np.ascontiguousarray(mask).view(np.uint8)


def label_image(
    logits_hw: Iterable[NDArray[np.float32]], labels: list[int], height: int, width: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) image of labels: the object with the highest logit wins a pixel; 0 where no logit is above 0.

    Args:
        logits_hw: one (H, W) map per object, consumed one by one, because full-size maps of many objects are large.
        labels: of the objects, in the same order.
        height, width: of the image, in pixels.

    Returns:
        uint8, or uint16 once a label exceeds 255.
    """
    winner_hw = np.zeros((height, width), np.uint16 if labels and max(labels) > 255 else np.uint8)
    highest_hw = np.zeros((height, width), np.float32)
    for label, logits in zip(labels, logits_hw, strict=True):
        wins = logits > highest_hw
        np.copyto(winner_hw, label, where=wins)
        np.maximum(highest_hw, logits, out=highest_hw)
    return winner_hw


_FILLED_LOGIT, _EMPTIED_LOGIT = 10.0, -10.0


def remove_small_regions(logits_nhw: Tensor, max_hole_area: float, max_sprinkle_area: float) -> Tensor:
    """Fill holes and remove specks of at most this many pixels of the low-resolution map; 0 keeps them.

    Regions are 8-connected. Holes and specks are both found in the original mask, so a speck inside a filled hole is
    removed again (``get_connected_components`` in the official ``SAM2Transforms``).
    """
    if max_hole_area <= 0 and max_sprinkle_area <= 0:
        return logits_nhw
    masks_nhw = (logits_nhw > 0).cpu().numpy()
    holes_nhw = np.zeros_like(masks_nhw)
    specks_nhw = np.zeros_like(masks_nhw)
    for mask_hw, holes_hw, specks_hw in zip(masks_nhw, holes_nhw, specks_nhw, strict=True):
        holes_hw[...] = _small_regions(~mask_hw, max_hole_area)
        specks_hw[...] = _small_regions(mask_hw, max_sprinkle_area)
    filled = logits_nhw.masked_fill(torch.from_numpy(holes_nhw).to(logits_nhw.device), _FILLED_LOGIT)
    return filled.masked_fill(torch.from_numpy(specks_nhw).to(logits_nhw.device), _EMPTIED_LOGIT)


def _small_regions(mask_hw: NDArray[np.bool_], max_area: float) -> NDArray[np.bool_]:
    """The pixels of the connected regions of at most ``max_area`` pixels."""
    _, regions_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    is_small = stats[:, cv2.CC_STAT_AREA] <= max_area
    is_small[0] = False  # region 0 is the background
    return np.asarray(is_small[regions_hw], dtype=np.bool_)
