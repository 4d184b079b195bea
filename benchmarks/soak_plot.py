"""A picture of a soak: memory and speed over the images, drawn with OpenCV, which is there anyway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from soak_stats import Sample

WIDTH_PX, PANEL_HEIGHT_PX = 1000, 320
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 90, 20, 40, 35
WHITE, BLACK, GREY, BLUE, ORANGE = (255, 255, 255), (0, 0, 0), (215, 215, 215), (180, 90, 20), (30, 120, 230)


def write_plot(path: Path, samples: Sequence[Sample], warmup_frames: int) -> None:
    """Resident memory, private memory below it, and the time per image in a second panel; the warm-up is shaded."""
    if not samples:
        return
    frames = np.array([sample.frame for sample in samples], float)
    memory = {
        "resident memory [MiB]": np.array([sample.rss_kib for sample in samples]) / 1024,
        "of it private": np.array([sample.private_kib for sample in samples]) / 1024,
    }
    speed = {
        "image to mask, median [ms]": np.array([sample.latency_ms_p50 for sample in samples]),
        "of it the model": np.array([sample.inference_ms_p50 for sample in samples]),
    }
    panels = [_draw_panel(frames, lines, warmup_frames) for lines in (memory, speed)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.vstack(panels)):
        raise OSError(f"{path} cannot be written; expected a name such as soak.png")


def _draw_panel(
    frames: NDArray[np.float64], lines: dict[str, NDArray[np.float64]], warmup_frames: int
) -> NDArray[np.uint8]:
    """(H, W, 3) BGR; the vertical axis starts at zero, as a small drift should look small."""
    image = np.full((PANEL_HEIGHT_PX, WIDTH_PX, 3), WHITE, np.uint8)
    right, bottom = WIDTH_PX - RIGHT_PX, PANEL_HEIGHT_PX - BOTTOM_PX
    top_value = 1.1 * max(max(float(values.max()) for values in lines.values()), 1e-6)
    x_px = LEFT_PX + frames / frames[-1] * (right - LEFT_PX)
    warm_px = LEFT_PX + min(warmup_frames / frames[-1], 1.0) * (right - LEFT_PX)
    cv2.rectangle(image, (LEFT_PX, TOP_PX), (round(warm_px), bottom), (240, 240, 240), -1)
    for share in np.linspace(0, 1, 5):
        y = round(bottom - share * (bottom - TOP_PX))
        cv2.line(image, (LEFT_PX, y), (right, y), GREY, 1)
        _write(image, f"{share * top_value:.4g}", (10, y + 5), BLACK)
        _write(
            image, f"{share * frames[-1]:.0f}", (round(LEFT_PX + share * (right - LEFT_PX)) - 25, bottom + 22), BLACK
        )
    for number, ((name, values), colour) in enumerate(zip(lines.items(), (BLUE, ORANGE), strict=True)):
        y_px = bottom - values / top_value * (bottom - TOP_PX)
        points = np.stack([x_px, y_px], axis=1).round().astype(np.int32)
        cv2.polylines(image, [points], False, colour, 2, cv2.LINE_AA)
        _write(image, name, (LEFT_PX + 320 * number, TOP_PX - 15), colour)
    return image


def _write(image: NDArray[np.uint8], text: str, at_xy: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at_xy, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
