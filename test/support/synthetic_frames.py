"""What tests show to both sides."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def synthetic_frames(count: int, size_px: int, seed: int, width_px: int | None = None) -> list[NDArray[np.uint8]]:
    """(size, width or size, 3) uint8 frames: a bright disc that crosses a smooth random background."""
    width_px = width_px or size_px
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(40, 200, (1, 3, 8, 8)))
    background = torch.nn.functional.interpolate(coarse, (size_px, width_px), mode="bicubic")[0].permute(1, 2, 0)
    y, x = np.mgrid[:size_px, :width_px]
    frames = []
    for t in range(count):
        centre_x, centre_y = width_px * (0.25 + 0.5 * t / count), size_px * (0.5 + 0.1 * np.sin(t / 3))
        frame = background.numpy().clip(0, 255).astype(np.uint8).copy()
        frame[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (size_px / 7) ** 2] = (250, 200 - 3 * t, 60)
        frames.append(frame)
    return frames
