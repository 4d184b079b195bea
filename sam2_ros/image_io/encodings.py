"""Raw image messages of every common encoding to RGB: one table, ``DECODERS``. A message is any object with the fields
of ``sensor_msgs/Image``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray


class ImageError(ValueError):
    """An image message that cannot be read; the message says what was expected, what came and what to do."""


class ImageMessage(Protocol):
    """The part of ``sensor_msgs/Image`` that is read."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


# (H, W, 3) uint8 RGB of a message, or the reason why that was not possible.
ReadOther = Callable[[Any], "NDArray[np.uint8] | str"]


@dataclass(frozen=True)
class Decoder:
    """The memory layout of one encoding's pixels, and the conversion to RGB."""

    to_rgb: Callable[[NDArray[Any]], NDArray[np.uint8]]  # (H, W, channels), (H, W) for one -> (H, W, 3)
    channels: int = 1
    dtype: type[np.uint8] | type[np.uint16] = np.uint8
    even_width: bool = False  # two pixels share their colour
    chroma_below: bool = False  # H / 2 rows of colour follow the H rows of brightness; H must be even


def _with_opencv(code: int) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), dtype=np.uint8)


def _high_byte_first(
    to_rgb: Callable[[NDArray[Any]], NDArray[np.uint8]],
) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """The high byte as brightness, since 65535 is white. The scale must not follow the content of a frame: that would
    change how an object looks while it is tracked."""
    return lambda pixels: to_rgb((pixels >> 8).astype(np.uint8))


def _gray_to_rgb(pixels_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels_hw, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _stretched(values_hw: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Black to white over the 1st to 99th percentile of the values that are not 0, because 16UC1 has no defined range
    (depth in mm, thermal counts). With the high byte alone, a room in mm would be 16 shades of black."""
    every = max(1, min(values_hw.shape) // 240)  # percentiles of a sample: sorting all pixels takes too long
    sample = values_hw[::every, ::every]
    measured = sample[sample > 0]
    if not measured.size:
        return _gray_to_rgb(np.zeros(values_hw.shape, dtype=np.uint8))
    low, high = np.percentile(measured, (1, 99))
    scale = 255.0 / max(high - low, 1.0)
    gray = np.clip((values_hw.astype(np.float32) - np.float32(low)) * np.float32(scale), 0, 255)
    return _gray_to_rgb(gray.astype(np.uint8))


# OpenCV names a mosaic by the second row's second and third pixel, ROS by the first row's first two and the second's.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_UYVY = Decoder(_with_opencv(cv2.COLOR_YUV2RGB_UYVY), channels=2, even_width=True)
_YUYV = Decoder(_with_opencv(cv2.COLOR_YUV2RGB_YUY2), channels=2, even_width=True)
_COLOURS: dict[str, tuple[int, Callable[[NDArray[Any]], NDArray[np.uint8]]]] = {
    "rgb": (3, lambda pixels: pixels),
    "bgr": (3, _with_opencv(cv2.COLOR_BGR2RGB)),
    "rgba": (4, _with_opencv(cv2.COLOR_RGBA2RGB)),
    "bgra": (4, _with_opencv(cv2.COLOR_BGRA2RGB)),
    "mono": (1, _gray_to_rgb),
}

DECODERS: dict[str, Decoder] = {
    **{f"{name}8": Decoder(to_rgb, channels) for name, (channels, to_rgb) in _COLOURS.items()},
    **{
        f"{name}16": Decoder(_high_byte_first(to_rgb), channels, np.uint16)
        for name, (channels, to_rgb) in _COLOURS.items()
    },
    "8UC1": Decoder(_gray_to_rgb),
    "8UC3": Decoder(_with_opencv(cv2.COLOR_BGR2RGB), channels=3),  # no colours by name: OpenCV's own order
    "8UC4": Decoder(_with_opencv(cv2.COLOR_BGRA2RGB), channels=4),
    "16UC1": Decoder(_stretched, dtype=np.uint16),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": Decoder(_with_opencv(cv2.COLOR_YUV2RGB_NV12), even_width=True, chroma_below=True),
    "nv21": Decoder(_with_opencv(cv2.COLOR_YUV2RGB_NV21), even_width=True, chroma_below=True),
    **{f"bayer_{name}8": Decoder(_with_opencv(code)) for name, code in _BAYER.items()},
    **{
        f"bayer_{name}16": Decoder(_high_byte_first(_with_opencv(code)), dtype=np.uint16)
        for name, code in _BAYER.items()
    },
}


def image_to_rgb(message: ImageMessage, read_other: ReadOther | None = None) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB. A view of the message's data for rgb8, a new array otherwise.

    ``read_other`` is asked for the encodings that are not in ``DECODERS`` (``node`` hands in cv_bridge).
    """
    decoder = DECODERS.get(message.encoding)
    if decoder is None:
        check_size(message)
        converted = read_other(message) if read_other else "Convert it before, e.g. with image_proc"
        if isinstance(converted, str):
            raise ImageError(
                f"image encoding {message.encoding!r} is not supported; expected one of {', '.join(DECODERS)}. "
                f"{converted}"
            )
        return converted
    if decoder.even_width and message.width % 2:
        raise ImageError(f"image width {message.width} is odd: two pixels of {message.encoding} share their colour")
    if decoder.chroma_below and message.height % 2:
        raise ImageError(f"image height {message.height} is odd: two rows of {message.encoding} share their colour")
    rows = message.height * 3 // 2 if decoder.chroma_below else message.height
    return decoder.to_rgb(read_pixels(message, decoder.channels, decoder.dtype, rows))


def check_size(message: ImageMessage) -> None:
    """ImageError when the image has no pixel."""
    if message.width == 0 or message.height == 0:
        raise ImageError(f"image of size zero: width {message.width}, height {message.height}, expected at least 1 x 1")


def check_pixels(message: ImageMessage, max_pixels: int) -> None:
    """ImageError when the image has more pixels than this."""
    if message.width * message.height > max_pixels:
        raise ImageError(
            f"image is too large: {message.width} x {message.height} px, expected at most {max_pixels} pixels"
        )


def read_pixels(
    message: ImageMessage, channels: int, dtype: type[np.generic] = np.uint8, rows: int | None = None
) -> NDArray[Any]:
    """(rows, W, channels), or (rows, W) for one channel, without the padding at the end of the rows.

    A view of the message's data where the memory allows it: one byte a value, or no padding and this machine's order.
    ``rows``: the message's height if not given.
    """
    check_size(message)
    width, step = message.width, message.step
    rows = message.height if rows is None else rows
    item_bytes = np.dtype(dtype).itemsize
    row_bytes = width * channels * item_bytes
    if step < row_bytes:
        raise ImageError(
            f"image step {step} is too small: {width} pixels of {message.encoding} need {row_bytes} bytes a row"
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    needed = step * (rows - 1) + row_bytes  # the last row's padding may be missing
    if data.size < needed:
        raise ImageError(
            f"image data too short: {data.size} bytes, expected {step * rows} "
            f"(step {step} x {rows} rows, encoding {message.encoding})"
        )
    values = np.lib.stride_tricks.as_strided(data, (rows, row_bytes), (step, 1))
    if item_bytes > 1:
        values = np.ascontiguousarray(values).view(dtype)
        if bool(message.is_bigendian) != (sys.byteorder == "big"):
            values = values.byteswap()
    return values if channels == 1 else values.reshape(rows, width, channels)
