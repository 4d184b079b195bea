"""Image messages made byte by byte, as a driver would."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import Image


def image_message(
    pixels: np.ndarray, encoding: str, *, padding: int = 0, cut: int = 0, big_endian: bool = False
) -> Image:
    """(H, W) or (H, W, C) values; ``padding`` bytes of 0xEE after each row; ``cut`` bytes missing at the end."""
    ordered = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(ordered.tobytes(), dtype=np.uint8).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xEE)
    data = array.array("B", padded.tobytes()[: padded.size - cut])
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=padded.shape[1])
    message.is_bigendian = int(big_endian)
    message.data = data
    return message
