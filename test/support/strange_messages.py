"""Hypothesis strategies for ROS messages that a driver, a network or a user may send, from right to hopeless."""

from __future__ import annotations

import array
import math
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from sam2_ros.image_io.encodings import DECODERS
from sam2_ros.msg import Prompt
from sam2_ros.perception.depth import DEPTH_TYPES

UINT32_MAX = (1 << 32) - 1
# Of a middleware's strings: whole characters, and none that ends a string in C.
strange_texts = st.one_of(
    st.sampled_from(
        ["", "mug", "object_1", "object_", "object_-1", "ignore", "x" * 5000, "/", "a b\n", "\u202e", "🫖"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12),
)
strange_numbers = st.one_of(
    st.floats(0, 80, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 79.0, 80.0, 48.0, 1e-45, -1.0, 1e9, -1e30, 1e300, math.nan, math.inf, -math.inf]),
)
strange_float32 = strange_numbers.map(lambda value: float(np.float32(np.clip(value, -3e38, 3e38))))
fitting_numbers = st.floats(0, 47, width=32)


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]) -> Any:
    """A message has many fields: if each were often wrong, next to none would be right as a whole."""
    return draw(usual) if draw(st.integers(0, 5)) < 5 else draw(rare)


STRANGE_STAMPS = (
    Time(sec=2**31 - 1, nanosec=UINT32_MAX),
    Time(sec=-(2**31)),
    Time(sec=-1, nanosec=UINT32_MAX),
    Time(nanosec=UINT32_MAX),
    Time(nanosec=1),
)


def stamps(*usual: Time) -> st.SearchStrategy[Time]:
    """``usual``: those of images that came."""
    drawn = st.builds(Time, sec=st.integers(-1, 30), nanosec=st.integers(0, 999_999_999))
    return st.one_of(st.sampled_from([Time(), *usual]), drawn, st.sampled_from(STRANGE_STAMPS))


@st.composite
def images(
    draw: st.DrawFn,
    encodings: st.SearchStrategy[str] | None = None,
    size: tuple[int, int] | None = None,
    stamps: st.SearchStrategy[Time] = st.builds(Time),  # noqa: B008  a strategy is a value
) -> Image:
    """Mostly nearly right: each field is what the others ask for, or something else. ``size``: usual (H, W)."""
    known = st.sampled_from([*DECODERS]) if encodings is None else encodings
    unknown = st.sampled_from(["", "RGB8", "yuv", "64FC1", "32FC1", "compressed"])
    encoding = draw(mostly(known, st.one_of(unknown, strange_texts)))
    sides = mostly(st.one_of(st.integers(1, 9), st.integers(1, 80)), st.sampled_from([0, UINT32_MAX, 1 << 16]))
    usual_sizes = st.tuples(sides, sides) if size is None else st.just(size)
    height, width = draw(mostly(usual_sizes, st.tuples(sides, sides)))
    row_bytes = width * _bytes_per_pixel(encoding)
    padded = st.sampled_from([row_bytes, row_bytes + 3])
    step = min(draw(mostly(padded, st.one_of(st.integers(0, 400), st.integers(0, UINT32_MAX)))), UINT32_MAX)
    needed = step * (height * 3 // 2 if encoding in ("nv12", "nv21") else height)
    length = draw(mostly(st.just(needed), st.one_of(st.integers(needed - 9, needed + 9), st.just(0))))
    length = min(max(length, 0), 200_000)
    message = Image(
        header=Header(stamp=draw(stamps), frame_id=draw(strange_texts)),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=draw(st.sampled_from([0, 1, 255])),
        step=step,
    )
    message.data = array.array("B", _noise(length, draw(st.integers(0, 3))))
    return message


@st.composite
def compressed_images(draw: st.DrawFn) -> CompressedImage:
    """JPEG and PNG, whole or damaged, and what is neither."""
    suffix = draw(st.sampled_from([".jpg", ".png"]))
    shape = draw(st.sampled_from([(5, 7, 3), (8, 8), (1, 1, 3), (40, 33, 3), (6, 6, 4)]))
    kind = draw(st.sampled_from([np.uint8, np.uint16])) if suffix == ".png" else np.uint8
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    content = bytes(cv2.imencode(suffix, pixels if suffix == ".png" else pixels[..., :3])[1])
    content = draw(st.one_of(st.just(content), damaged(content), st.binary(max_size=40), starts_like_an_image))
    formats = [
        "jpeg",
        "png",
        "rgb8; jpeg compressed bgr8",
        "bayer_rggb8; png compressed ",
        "nv12; jpeg compressed rgb8",
    ]
    stated = draw(
        st.one_of(st.sampled_from([*formats, *(f"{name}; png compressed" for name in DECODERS)]), strange_texts)
    )
    message = CompressedImage(format=stated)
    message.data = array.array("B", content)
    return message


starts_like_an_image = st.builds(
    lambda start, rest: start + rest,
    st.sampled_from([b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff\xda\xff\xd9"]),
    st.binary(max_size=60),
)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The same with some bytes changed, or without the end."""
    places = st.integers(0, max(len(content) - 1, 0))
    flips = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)
    return st.one_of(
        flips.map(lambda changes: _with_bytes(content, changes)),
        places.map(lambda end: content[:end]),
        st.tuples(places, st.binary(min_size=1, max_size=8)).map(
            lambda at: content[: at[0]] + at[1] + content[at[0] :]
        ),
    )


depth_images = images(st.sampled_from([*DEPTH_TYPES]), size=(48, 80))

camera_infos = st.builds(
    lambda width, height, k, roi: CameraInfo(width=width, height=height, k=k, roi=roi),
    st.sampled_from([80, 160, 0, 1, 33, UINT32_MAX]),
    st.sampled_from([48, 96, 0, 1, 33, UINT32_MAX]),
    st.one_of(
        st.just([60.0, 0.0, 40.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0]),
        st.lists(st.one_of(strange_numbers, st.floats()), min_size=9, max_size=9),
    ),
    st.builds(
        RegionOfInterest,
        width=st.sampled_from([0, 80, UINT32_MAX]),
        height=st.sampled_from([0, 48, UINT32_MAX]),
        x_offset=st.sampled_from([0, 3, UINT32_MAX]),
        y_offset=st.sampled_from([0, 3, UINT32_MAX]),
    ),
)


@st.composite
def prompts(draw: st.DrawFn, usual_stamps: tuple[Time, ...] = ()) -> Prompt:
    """``usual_stamps``: of images that came; those are 80 x 48 px."""
    fits = draw(st.booleans())
    number = fitting_numbers if fits else strange_numbers
    points = draw(st.lists(st.builds(Point, x=number, y=number, z=st.sampled_from([0.0, math.nan])), max_size=4))
    many = len(points)
    usual_labels = st.lists(st.sampled_from([1, 1, 0]), min_size=many, max_size=many)
    odd_labels = st.lists(st.sampled_from([0, 1, 2, -1, 2**31 - 1]), max_size=5)
    box = draw(st.one_of(st.just([]), st.just([]), st.lists(strange_float32, max_size=4), boxes))
    masks = images(st.sampled_from(["mono8", "8UC1"]), size=(48, 80))
    return Prompt(
        header=Header(stamp=draw(stamps(*usual_stamps)), frame_id=draw(strange_texts)),
        object_id=draw(st.one_of(st.sampled_from(["mug", "", "other"]), strange_texts)),
        class_id=draw(strange_texts),
        action=draw(st.one_of(st.integers(0, 3), st.integers(0, 3), st.integers(0, 255))),
        points=points,
        point_labels=draw(st.one_of(usual_labels, usual_labels, odd_labels)),
        box_xyxy=box,
        mask=draw(st.one_of(st.just(Image()), st.just(Image()), masks)),
        normalized=draw(st.sampled_from([False, False, True])),
    )


boxes = st.one_of(
    st.lists(fitting_numbers, min_size=4, max_size=4).map(lambda v: [*map(min, v[:2], v[2:]), *map(max, v[:2], v[2:])]),
    st.lists(fitting_numbers, min_size=4, max_size=4),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    st.sampled_from([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 80.0, 48.0], [9.0, 9.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]]),
)


def _bytes_per_pixel(encoding: str) -> int:
    decoder = DECODERS.get(encoding)
    if decoder is None:
        return np.dtype(DEPTH_TYPES[encoding]).itemsize if encoding in DEPTH_TYPES else 1
    return decoder.channels * np.dtype(decoder.dtype).itemsize


def _noise(length: int, seed: int) -> bytes:
    """Seed 0: only zeros, as of a camera that is dark, or an empty mask."""
    return bytes(length) if seed == 0 else np.random.default_rng(seed).bytes(length)


def _with_bytes(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, value in changes:
        if changed:
            changed[place] = value
    return bytes(changed)


def check_serialises(message: Any) -> None:
    """It can be sent: every value is within its field's range."""
    from rclpy.serialization import serialize_message

    assert serialize_message(message)
