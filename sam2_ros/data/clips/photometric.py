"""What a camera does to colours: exposure, white balance, noise, blur and compression, drifting over a clip."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.motion import smooth_curve


@dataclass(frozen=True)
class Look:
    """The appearance of one clip."""

    mix_t33: NDArray[np.float32]  # (T, 3, 3) RGB -> RGB: saturation, hue, white balance
    tone_t256: NDArray[np.uint8]  # (T, 256) exposure, contrast, gamma
    blur_sigma_t: NDArray[np.float64]  # (T,) px, 0 = sharp
    streak_t2: NDArray[np.float64]  # (T, 2) px, motion blur of the whole frame
    noise_hwc: NDArray[np.int16] | None  # rolled to a new place in every frame
    jpeg_quality: int | None


def random_look(rng: np.random.Generator, num_frames: int, size_px: int) -> Look:
    """Draw the appearance of a clip of num_frames frames of size_px x size_px."""
    strength = rng.uniform(0.0, 1.0) ** 1.5  # most cameras are good, few are not

    def drifting(spread: float, drift: float) -> NDArray[np.float64]:
        return rng.normal(0, spread * strength) + smooth_curve(rng, num_frames, drift * strength)

    exposure, contrast, gamma = drifting(0.18, 0.12), drifting(0.18, 0.08), drifting(0.2, 0.06)
    saturation, hue = np.exp(drifting(0.35, 0.08)), drifting(0.12, 0.03)
    balance_t3 = np.stack([np.exp(drifting(0.07, 0.03)) for _ in range(3)], axis=1)
    level = np.linspace(0.0, 1.0, 256)
    tone = np.clip(level[None], 1e-4, 1) ** np.exp(gamma)[:, None] * np.exp(exposure)[:, None]
    tone = (tone - 0.5) * np.exp(contrast)[:, None] + 0.5
    mix = np.stack([_colour_mix(s, h, b) for s, h, b in zip(saturation, hue, balance_t3, strict=True)])
    sigma = np.zeros(num_frames)
    if rng.random() < 0.3:
        sigma += rng.uniform(0.3, 1.3) * size_px / 256
        sigma += np.abs(smooth_curve(rng, num_frames, 0.6 * size_px / 256))
    streak = np.zeros((num_frames, 2))
    if rng.random() < 0.15:
        streak = np.stack([smooth_curve(rng, num_frames, 7 * size_px / 256) for _ in range(2)], axis=1)
    noise = None
    if rng.random() < 0.4:
        noise = _noise(rng, size_px, rng.uniform(1.0, 10.0))
    quality = int(rng.integers(25, 90)) if rng.random() < 0.2 else None
    tone_u8 = np.clip(np.round(tone * 255), 0, 255).astype(np.uint8)
    return Look(mix.astype(np.float32), tone_u8, sigma, streak, noise, quality)


def apply_look(look: Look, t: int, image_hwc: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return frame t (H, W, 3) uint8 RGB as this camera would have recorded it."""
    image = cv2.transform(image_hwc, look.mix_t33[t])
    if look.blur_sigma_t[t] > 0.25:
        image = cv2.GaussianBlur(image, (0, 0), look.blur_sigma_t[t])
    length = float(np.abs(look.streak_t2[t]).max())
    if length > 1.0:
        image = cv2.filter2D(image, -1, _streak_kernel(look.streak_t2[t]), borderType=cv2.BORDER_REFLECT_101)
    image = cv2.LUT(image, look.tone_t256[t])
    if look.noise_hwc is not None:
        shift = rng.integers(0, image.shape[0], 2)
        moved = np.roll(look.noise_hwc, (int(shift[0]), int(shift[1])), axis=(0, 1))
        image = cv2.add(image, moved, dtype=cv2.CV_8U)
    if look.jpeg_quality is not None:
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality])
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return image


def _colour_mix(saturation: float, hue_rad: float, balance_3: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) matrix: turn about the grey axis by hue_rad, stretch away from it, then scale the channels."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(hue_rad) * cross + (1 - np.cos(hue_rad)) * cross @ cross
    luma = np.tile([0.299, 0.587, 0.114], (3, 1))
    stretch = luma + saturation * (np.eye(3) - luma)
    return np.diag(balance_3) @ stretch @ turn


def _noise(rng: np.random.Generator, size_px: int, sigma: float) -> NDArray[np.int16]:
    grain = rng.standard_normal((size_px, size_px, 1), np.float32) * np.float32(sigma)
    grain = grain + rng.standard_normal((size_px, size_px, 3), np.float32) * np.float32(0.6 * sigma)
    return np.rint(grain).astype(np.int16)


def _streak_kernel(streak_xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """(K, K) kernel that smears along the vector streak_xy, px."""
    reach = int(np.ceil(np.abs(streak_xy).max() / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    half = np.round(np.array(streak_xy) / 2).astype(int)
    start, end = (reach - half[0], reach - half[1]), (reach + half[0], reach + half[1])
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 1.0, 1)
    return kernel / kernel.sum()
