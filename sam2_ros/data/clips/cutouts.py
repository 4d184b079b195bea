"""Cut-outs to paste: objects of photographs and procedural shapes, as RGBA with a soft edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.photos import Instance, Photo

_PAD_PX = 3
_BORDER_PX = 2


@dataclass(frozen=True)
class Cutout:
    """An object without its surroundings."""

    rgba_hwc: NDArray[np.uint8]  # (h, w, 4) RGB and alpha; colours continue beyond the outline

    @property
    def area_px(self) -> float:
        """Area of the object in its own pixels."""
        return float(np.count_nonzero(self.rgba_hwc[..., 3] >= 128))


def pick_instance(photo: Photo, rng: np.random.Generator) -> Instance:
    """Draw an object of the photograph: large ones and ones not cut by the edge more often."""
    weights = np.array([item.area_px * (0.3 if item.touches_edge else 1.0) for item in photo.instances])
    return photo.instances[int(rng.choice(len(weights), p=weights / weights.sum()))]


def cut_out(photo: Photo, instance: Instance) -> Cutout:
    """Cut one instance out of its photograph.

    The soft edge lies inside the outline, because pixels on it mix object and background.
    """
    height, width = photo.index_hw.shape
    x0, y0, x1, y1 = instance.box_xyxy
    rows = slice(max(0, y0 - _PAD_PX), min(height, y1 + _PAD_PX))
    columns = slice(max(0, x0 - _PAD_PX), min(width, x1 + _PAD_PX))
    mask_hw = (photo.index_hw[rows, columns] == instance.label).astype(np.float32)
    soft_hw = cv2.GaussianBlur(mask_hw, (5, 5), 0.9)
    alpha_hw = np.clip((soft_hw - 0.45) / 0.45, 0.0, 1.0) * mask_hw
    rgba = np.dstack([photo.image_hwc[rows, columns], np.round(alpha_hw * 255).astype(np.uint8)])
    # Where the photograph ends at the object, the colours still have to continue beyond the outline.
    rgba = cv2.copyMakeBorder(rgba, _BORDER_PX, _BORDER_PX, _BORDER_PX, _BORDER_PX, cv2.BORDER_REPLICATE)
    for edge in (np.s_[:_BORDER_PX], np.s_[-_BORDER_PX:], np.s_[:, :_BORDER_PX], np.s_[:, -_BORDER_PX:]):
        rgba[edge][..., 3] = 0
    return Cutout(rgba)


def corner_of(instance: Instance) -> tuple[int, int]:
    """Where the first pixel of the instance's cut-out lies in the photograph, (x, y) px."""
    x0, y0 = instance.box_xyxy[:2]
    return max(0, x0 - _PAD_PX) - _BORDER_PX, max(0, y0 - _PAD_PX) - _BORDER_PX


def procedural_cutout(rng: np.random.Generator, texture_hwc: NDArray[np.uint8], size_px: int = 160) -> Cutout:
    """A random shape filled with a random texture, so that an object need not be of any category.

    Args:
        texture_hwc: (H, W, 3) uint8, a photograph that sometimes lends a patch as texture.
    """
    kind = rng.integers(4)
    middle = size_px / 2
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    if kind == 0:
        radius = np.ones_like(angle)
    elif kind == 1:
        radius = np.ones_like(angle)
        for harmonic in range(2, 6):
            radius += rng.normal(0, 0.35 / harmonic) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    else:
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        radius = rng.uniform(0.45 if kind == 2 else 0.85, 1.0, len(angle))
    points_n2 = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.maximum(radius, 0.15)[:, None]
    points_n2[:, int(rng.integers(2))] *= rng.uniform(0.35, 1.0)
    points_n2 *= (middle - 6) / np.abs(points_n2).max()
    mask_hw = np.zeros((size_px, size_px), np.uint8)
    cv2.fillPoly(mask_hw, [np.round((points_n2 + middle) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    if rng.random() < 0.15:
        hole_px = int(size_px * rng.uniform(0.08, 0.18))
        cv2.circle(mask_hw, (int(middle), int(middle)), hole_px, 0, -1, cv2.LINE_AA)
    return Cutout(np.dstack([random_texture(rng, texture_hwc, size_px), mask_hw]))


def random_texture(rng: np.random.Generator, photo_hwc: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """(size_px, size_px, 3) uint8: a photograph's patch, stripes or checks, or a gradient, with soft noise."""
    kind = rng.choice(3, p=[0.5, 0.25, 0.25])
    if kind == 0:
        height, width = photo_hwc.shape[:2]
        side = max(8, int(min(height, width) * rng.uniform(0.2, 0.8)))
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        return cv2.resize(photo_hwc[y : y + side, x : x + side], (size_px, size_px), interpolation=cv2.INTER_AREA)
    low_rgb, high_rgb = _some_colour(rng, photo_hwc), _some_colour(rng, photo_hwc)
    ys, xs = np.mgrid[0:size_px, 0:size_px].astype(np.float32) / size_px
    turn = rng.uniform(0, 2 * np.pi)
    across = xs * np.cos(turn) + ys * np.sin(turn)
    if kind == 1:
        along = -xs * np.sin(turn) + ys * np.cos(turn)
        cycles = rng.uniform(2, 9)
        wave = np.sin(2 * np.pi * cycles * across)
        if rng.random() < 0.5:
            wave = wave * np.sin(2 * np.pi * cycles * along)
        mix_hw = np.clip(0.5 + rng.uniform(0.7, 4) * wave, 0, 1)
    else:
        mix_hw = (across - across.min()) / max(1e-6, float(across.max() - across.min()))
    cells = int(rng.integers(3, 24))
    spread = rng.uniform(3, 40)
    # Mostly light and dark: few surfaces change their hue from spot to spot.
    noise = rng.normal(0, spread, (cells, cells, 1)) + rng.normal(0, 0.25 * spread, (cells, cells, 3))
    noise = noise.astype(np.float32)
    noise = cv2.resize(noise, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    texture = low_rgb + mix_hw[..., None] * (high_rgb - low_rgb) + noise
    return np.clip(texture, 0, 255).astype(np.uint8)


def _some_colour(rng: np.random.Generator, photo_hwc: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3,) RGB: mostly of the photograph, since few things are as loud as colours drawn at random."""
    if rng.random() < 0.25:
        return rng.uniform(0, 255, 3)
    y, x = int(rng.integers(photo_hwc.shape[0])), int(rng.integers(photo_hwc.shape[1]))
    return photo_hwc[y, x].astype(np.float64)


def jitter(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """Flip and recolour a cut-out at random."""
    rgba = cutout.rgba_hwc
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    if rng.random() < 0.1:
        rgba = rgba[::-1]
    return recoloured(replace(cutout, rgba_hwc=np.ascontiguousarray(rgba)), rng)


def recoloured(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """Brighter or darker, and a little of another colour, at random."""
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.06, 3))
    mix = np.zeros((4, 5))
    mix[:3, :3], mix[:3, 4], mix[3, 3] = np.diag(gain), rng.normal(0, 12), 1.0
    return replace(cutout, rgba_hwc=cv2.transform(cutout.rgba_hwc, mix))


def shrink(cutout: Cutout, scale: float) -> Cutout:
    """Resize to the largest scale a clip shows it at, so that sampling it later neither aliases nor wastes time."""
    if scale >= 0.9:
        return cutout
    height, width = cutout.rgba_hwc.shape[:2]
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    return Cutout(cv2.resize(cutout.rgba_hwc, size, interpolation=cv2.INTER_AREA))
