"""Depth images to metres on the grid of the colour image. ROS-free: a message is any object with ``Image``'s fields."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.encodings import ImageError, ImageMessage, read_pixels
from sam2_ros.perception.camera import check_aspect

MILLIMETRE = 0.001  # REP-118: 16UC1 is in mm, 32FC1 in m
# mono16 is what some drivers call the same bytes.
DEPTH_TYPES: dict[str, type[np.generic]] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


def read_depth(message: ImageMessage, scale_m: float = MILLIMETRE) -> NDArray[np.float32]:
    """The depth image as (H, W) float32 metres, NaN where nothing was measured.

    Args:
        message: 16UC1 (or mono16) in units of ``scale_m``, or 32FC1 in metres.
        scale_m: metres of one unit of 16UC1; what REP-118 says unless a driver departs from it.

    Raises:
        ImageError: another encoding, size zero, step too small or data missing.
    """
    dtype = DEPTH_TYPES.get(message.encoding)
    if dtype is None:
        raise ImageError(
            f"depth encoding {message.encoding!r} is not supported; expected one of {', '.join(DEPTH_TYPES)}: is this "
            "the topic of the depth image?"
        )
    values = read_pixels(message, 1, dtype)
    return depth_to_metres(values, 1.0 if dtype is np.float32 else scale_m)


def depth_to_metres(values: NDArray[Any], scale_m: float) -> NDArray[np.float32]:
    """Depth in units of ``scale_m`` as metres. NaN for what means "not measured": 0, negative, NaN, infinite."""
    with np.errstate(invalid="ignore"):
        metres = values.astype(np.float32) * np.float32(scale_m)
        metres[~((metres > 0) & np.isfinite(metres))] = np.nan
    return metres


def on_image_grid(depth_m: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Depth for every pixel of a colour image of another resolution that shows the same (aligned depth).

    Each pixel takes the depth pixel that its centre falls into. Never a mean: between an object and what is behind it
    a mean is a point in the air.

    Raises:
        GeometryError: another aspect ratio, so it cannot show the same.
    """
    depth_height, depth_width = depth_m.shape
    if (depth_height, depth_width) == (height, width):
        return depth_m
    check_aspect("the depth image", depth_width, depth_height, width, height)
    rows = (2 * np.arange(height) + 1) * depth_height // (2 * height)
    columns = (2 * np.arange(width) + 1) * depth_width // (2 * width)
    return depth_m[rows[:, None], columns]
