"""Where "segment everything" points: a grid of points, in the whole image and in overlapping crops of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """A part of the image, in pixels; x1 and y1 exclusive."""

    layer: int  # 0 = the whole image; layer n has 4 ** n crops
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area_px(self) -> int:
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def cut(self, image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of an image; a view."""
        return image_rgb[self.y0 : self.y1, self.x0 : self.x1]


def make_crops(height: int, width: int, layers: int, overlap_ratio: float) -> tuple[Crop, ...]:
    """The whole image, then the crops of every layer, column by column.

    ``overlap_ratio``: by how much the crops of layer 1 overlap, as a part of the image's shorter side; half of it in
    every further layer.
    """
    crops = [Crop(0, 0, 0, width, height)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        for column in range(per_side):
            for row in range(per_side):
                x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
                if x0 >= width or y0 >= height:  # an image of a few pixels
                    continue
                crops.append(Crop(layer, x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)))
    return tuple(crops)


def make_grid(per_side: int, height: int, width: int) -> NDArray[np.float32]:
    """(per_side ** 2, 2) points x, y in pixels, row by row, half a step from the edges.

    >>> make_grid(2, 4, 8).tolist()
    [[2.0, 1.0], [6.0, 1.0], [2.0, 3.0], [6.0, 3.0]]
    """
    places = np.linspace(1 / (2 * per_side), 1 - 1 / (2 * per_side), per_side)
    x, y = np.meshgrid(places * width, places * height)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
