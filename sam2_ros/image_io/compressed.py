"""JPEG and PNG images in and out, as image_transport's ``compressed`` has them. A message is any object with the
fields of ``sensor_msgs/CompressedImage``."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.encodings import DECODERS, ImageError
from sam2_ros.image_io.integrity import JPEG_START, MAX_PIXELS, PNG_START, complaint_about

COMPRESSED_SUFFIX = "/compressed"  # of an image topic's name, as image_transport has it
_NAL_STARTS = (b"\0\0\0\1", b"\0\0\1")  # before each unit of an H.264 or H.265 stream
_H265_UNITS = (
    0x40,
    0x42,
    0x44,
    0x46,
    0x4E,
    0x26,
    0x28,
    0x2A,
    0x02,
    0x00,
)  # first byte of the usual ones
_VIDEO_FORMATS = {"h264": "H.264", "avc": "H.264", "h265": "H.265", "hevc": "H.265", "av1": "AV1", "vp9": "VP9"}
SUFFIXES = {"jpeg": ".jpg", "png": ".png"}
JPEG_QUALITY = 80  # image_transport's default


class CompressedMessage(Protocol):
    """The part of ``sensor_msgs/CompressedImage`` that is read."""

    format: str
    data: Any


def compressed_to_rgb(message: CompressedMessage, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB; ImageError when it is damaged, too large or neither JPEG nor PNG.

    Its size is read from the header: an image of more than ``max_pixels`` is not decoded.

    ``format`` is "jpeg" or "png", or as image_transport writes it: "<camera's encoding>; jpeg compressed <stored
    encoding>". It tells how to read pixels of one channel (a Bayer mosaic, 16-bit depth) and whether the colours were
    swapped. Whether the data are JPEG or PNG is read from the data themselves.
    """
    content = bytes(message.data)
    _check_content(content, message.format, max_pixels)
    try:
        # EXIF rotation is ignored: the camera's calibration is for the pixels as they are stored.
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"compressed image is damaged ({len(content)} bytes, {error})") from None
    if pixels is None:
        raise ImageError(
            f"compressed image is damaged: {len(content)} bytes with format {message.format!r} that cannot be decoded"
        )
    return DECODERS[_encoding_of(pixels, message.format)].to_rgb(pixels)


def _check_content(content: bytes, stated_format: str, max_pixels: int) -> None:
    if not content.startswith((JPEG_START, PNG_START)):
        raise ImageError(
            f"compressed image is neither JPEG nor PNG: {len(content)} bytes with format {stated_format!r} that begin "
            f"with {content[:4].hex(' ') or 'nothing'}{_what_else(content, stated_format)}"
        )
    if complaint := complaint_about(content, max_pixels):
        raise ImageError(f"compressed image {complaint} (format {stated_format!r})")


def _what_else(content: bytes, stated_format: str) -> str:
    """What it is, as far as this is known, and what to do."""
    if "compressedDepth" in stated_format:
        return ": compressedDepth is for depth, not for colour images"
    video = next((name for word, name in _VIDEO_FORMATS.items() if word in stated_format.lower()), "")
    if not video and content.startswith(_NAL_STARTS):
        unit = content.partition(b"\0\1")[2][:2]
        # An H.265 unit begins with two bytes, of which the second is nearly always 1.
        video = "H.265" if unit[:1] and unit[0] in _H265_UNITS and unit[1:] == b"\1" else "H.264"
    if not video:
        return ""
    return (
        f": {video} video, of which an image needs the ones before it. Let the camera send JPEG, or decode the video "
        "first, as image_transport's republish does"
    )


def _encoding_of(pixels: NDArray[Any], stated_format: str) -> str:
    """The name in ``DECODERS`` of the encoding of the decoded pixels."""
    bits = 8 * pixels.dtype.itemsize
    original, _, stored = stated_format.partition(";")
    if pixels.ndim == 2:
        decoder = DECODERS.get(original.strip())
        as_sent = decoder is not None and decoder.channels == 1 and decoder.dtype == pixels.dtype
        return original.strip() if as_sent and decoder and not decoder.chroma_below else f"mono{bits}"
    # Decoding keeps the order of colours that the sender encoded, which by image_transport's rules is BGR.
    order = "rgb" if "compressed rgb" in stored else "bgr"
    return f"{order}{'a' if pixels.shape[2] == 4 else ''}{bits}"


def encode_rgb(
    image_rgb: NDArray[np.uint8], codec: str = "jpeg", jpeg_quality: int = JPEG_QUALITY
) -> tuple[str, NDArray[np.uint8]]:
    """(H, W, 3) uint8 RGB as the ``format`` and ``data`` of ``CompressedImage``; ``codec``: "jpeg" or "png"."""
    if codec not in SUFFIXES:
        raise ValueError(f"unknown codec {codec!r}; expected one of {', '.join(SUFFIXES)}")
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if codec == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(SUFFIXES[codec], image_bgr, options)
    if not done:
        raise ValueError(f"OpenCV could not encode {image_rgb.shape} {image_rgb.dtype} as {codec}")
    return f"rgb8; {codec} compressed bgr8", np.asarray(encoded, dtype=np.uint8)
