"""Every encoding of raw images, against values worked out by hand; and what is said of images that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from image_messages import image_message

from sam2_ros.image_io.encodings import DECODERS, ImageError, image_to_rgb

RGB = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], dtype=np.uint8)  # 2 x 2 pixels
GRAY = np.array([[10, 20], [30, 40]], dtype=np.uint8)
ALPHA = np.full((2, 2, 1), 255, dtype=np.uint8)
RGBA = np.concatenate([RGB, ALPHA], axis=2)
BGRA = np.concatenate([RGB[..., ::-1], ALPHA], axis=2)
GRAY_RGB = np.repeat(GRAY[..., None], 3, axis=2)

# The full colour bars of ITU-R BT.601 as (Y, U, V), from its tables.
BARS_YUV = {
    "white": (235, 128, 128),
    "yellow": (210, 16, 146),
    "cyan": (170, 166, 16),
    "green": (145, 54, 34),
    "magenta": (106, 202, 222),
    "red": (81, 90, 240),
    "blue": (41, 240, 110),
    "black": (16, 128, 128),
}
BARS_RGB = {
    "white": (255, 255, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "magenta": (255, 0, 255),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
}
WIDE = 16  # 8 bars of 2 px


def wide(values: np.ndarray) -> np.ndarray:
    """8-bit values as 16-bit ones with something in the low byte, which must not matter."""
    return (values.astype(np.uint16) << 8) | 0x7B


def packed_yuv(order: str) -> np.ndarray:
    """Two rows of the colour bars, (2, WIDE, 2): ``order`` is "UYVY" or "YUYV"."""
    row = []
    for y, u, v in BARS_YUV.values():
        row += [{"Y": y, "U": u, "V": v}[letter] for letter in order]
    return np.array([row, row], dtype=np.uint8).reshape(2, WIDE, 2)


def planar_yuv(order: str) -> np.ndarray:
    """The same as two rows of Y and one of colour, (3, WIDE): ``order`` is "UV" or "VU"."""
    y = [value for bar in BARS_YUV.values() for value in (bar[0], bar[0])]
    u_v = [(bar[1], bar[2]) if order == "UV" else (bar[2], bar[1]) for bar in BARS_YUV.values()]
    return np.array([y, y, [value for pair in u_v for value in pair]], dtype=np.uint8)


def mosaic(pattern: str) -> np.ndarray:
    """4 x 6 px of one colour, R 200, G 100, B 50, as a sensor with this pattern sees it."""
    tile = np.array([{"r": 200, "g": 100, "b": 50}[letter] for letter in pattern], dtype=np.uint8).reshape(2, 2)
    return np.tile(tile, (2, 3))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", RGBA, RGB),
        ("bgra8", BGRA, RGB),
        ("8UC4", BGRA, RGB),
        ("mono8", GRAY, GRAY_RGB),
        ("8UC1", GRAY, GRAY_RGB),
    ],
)
def test_8_bits(encoding: str, sent: np.ndarray, expected: np.ndarray, padding: int) -> None:
    rgb = image_to_rgb(image_message(sent, encoding, padding=padding))
    assert rgb.dtype == np.uint8 and rgb.shape == (2, 2, 3)
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("rgb16", RGB, RGB),
        ("bgr16", RGB[..., ::-1], RGB),
        ("rgba16", RGBA, RGB),
        ("bgra16", BGRA, RGB),
        ("mono16", GRAY, GRAY_RGB),
    ],
)
def test_16_bits_keep_the_high_byte(
    encoding: str, sent: np.ndarray, expected: np.ndarray, padding: int, big_endian: bool
) -> None:
    rgb = image_to_rgb(image_message(wide(sent), encoding, padding=padding, big_endian=big_endian))
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("big_endian", [False, True])
def test_16uc1_is_stretched_over_what_was_measured(big_endian: bool) -> None:
    depth_mm = np.linspace(1000, 2000, 101, dtype=np.uint16)[None].repeat(3, axis=0)
    depth_mm[0] = 0  # not measured: black, and no part of the range
    rgb = image_to_rgb(image_message(depth_mm, "16UC1", big_endian=big_endian))
    # The 1st and 99th percentile are 1010 and 1990: (1500 - 1010) / 980 * 255 = 127.5 in the middle.
    assert rgb[1, [0, 1, 50, 99, 100]].tolist() == [[0] * 3, [0] * 3, [127] * 3, [255] * 3, [255] * 3]
    assert not rgb[0].any()


@pytest.mark.parametrize("value", [0, 700])
def test_16uc1_without_contrast_is_black(value: int) -> None:
    assert not image_to_rgb(image_message(np.full((3, 4), value, dtype=np.uint16), "16UC1")).any()


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("yuv422", packed_yuv("UYVY")),
        ("uyvy", packed_yuv("UYVY")),
        ("yuv422_yuy2", packed_yuv("YUYV")),
        ("yuyv", packed_yuv("YUYV")),
        ("nv12", planar_yuv("UV")),
        ("nv21", planar_yuv("VU")),
    ],
)
def test_colour_bars(encoding: str, sent: np.ndarray, padding: int) -> None:
    message = image_message(sent, encoding, padding=padding)
    message.height = 2
    rgb = image_to_rgb(message)
    assert rgb.shape == (2, WIDE, 3)
    expected = np.repeat(np.array([list(BARS_RGB.values())] * 2, dtype=np.int32), 2, axis=1)
    assert np.abs(rgb - expected).max() <= 2  # the tables are rounded to whole numbers


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern: str, padding: int) -> None:
    for encoding, sent, big_endian in [
        (f"bayer_{pattern}8", mosaic(pattern), False),
        (f"bayer_{pattern}16", wide(mosaic(pattern)), False),
        (f"bayer_{pattern}16", wide(mosaic(pattern)), True),
    ]:
        rgb = image_to_rgb(image_message(sent, encoding, padding=padding, big_endian=big_endian))
        np.testing.assert_array_equal(rgb, np.tile(np.array([200, 100, 50], dtype=np.uint8), (4, 6, 1)))


@pytest.mark.parametrize("padding", [0, 5])
def test_rgb8_is_not_copied(padding: int) -> None:
    message = image_message(RGB, "rgb8", padding=padding)
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, dtype=np.uint8))


def test_padding_of_the_last_row_may_be_missing() -> None:
    np.testing.assert_array_equal(image_to_rgb(image_message(RGB, "rgb8", padding=5, cut=5)), RGB)


@pytest.mark.parametrize("encoding", sorted(DECODERS))
def test_every_encoding_refuses_what_cannot_be_read(encoding: str) -> None:
    message = image_message(np.zeros((3, 4), dtype=np.uint8), encoding)  # 12 bytes
    message.height, message.step = 200, 4 * 8
    with pytest.raises(ImageError, match=f"data too short: 12 bytes, expected .*encoding {encoding}"):
        image_to_rgb(message)
    message.step = 3
    with pytest.raises(ImageError, match=rf"step 3 is too small: 4 pixels of {encoding} need \d+ bytes a row"):
        image_to_rgb(message)
    message.width = 0
    with pytest.raises(ImageError, match="size zero: width 0, height 200"):
        image_to_rgb(message)


def test_whatever_the_fields_say_it_is_refused_or_an_image() -> None:
    rng = np.random.default_rng(0)
    sizes = [0, 1, 2, 3, 8, 2**31, 2**32 - 1]
    outcomes = set()
    for encoding in DECODERS:
        for _ in range(100):
            message = image_message(np.zeros((4, 16), dtype=np.uint8), encoding, big_endian=bool(rng.integers(2)))
            message.height, message.width, message.step = (int(size) for size in rng.choice(sizes, 3))
            try:
                assert image_to_rgb(message).shape == (message.height, message.width, 3)
                outcomes.add("image")
            except ImageError:
                outcomes.add("refused")
    assert outcomes == {"image", "refused"}


@pytest.mark.parametrize(
    ("encoding", "fields", "reason"),
    [
        ("rgb8", {"height": 0}, "size zero: width 2, height 0"),
        ("rgb8", {"height": 3}, r"too short: 12 bytes, expected 18 \(step 6 x 3 rows, encoding rgb8"),
        ("rgb8", {"step": 5}, r"step 5 is too small: 2 pixels of rgb8 need 6 bytes"),
        ("yuyv", {"width": 3}, "width 3 is odd: two pixels of yuyv"),
        ("nv12", {"height": 3}, "height 3 is odd: two rows of nv12"),
        ("nv12", {"height": 4}, r"too short: 12 bytes, expected 36 \(step 6 x 6 rows"),
        ("of_mars", {"width": 0}, "size zero"),
    ],
)
def test_images_that_cannot_be_read(encoding: str, fields: dict[str, object], reason: str) -> None:
    message = image_message(RGB, encoding)
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=reason):
        image_to_rgb(message)


def test_other_encodings_are_refused_by_name() -> None:
    with pytest.raises(ImageError, match=r"'32FC1' is not supported; expected one of rgb8, .*bayer_grbg16. no cv_"):
        image_to_rgb(image_message(GRAY, "32FC1"), lambda message: "no cv_bridge here")
    with pytest.raises(ImageError, match=r"not supported; .* Convert it before"):
        image_to_rgb(image_message(GRAY, "32FC1"))


def test_other_encodings_go_through_what_is_handed_in() -> None:
    np.testing.assert_array_equal(image_to_rgb(image_message(GRAY, "nv24"), lambda message: RGB), RGB)
