"""Compressed images: what image_transport and drivers send, damaged ones, and our own."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from sam2_ros.image_io.compressed import compressed_to_rgb
from sam2_ros.image_io.encodings import ImageError
from sam2_ros.image_io.integrity import complaint_about
from sam2_ros.node.conversions import rgb_to_compressed

ORANGE_RGB = (250, 130, 10)
ORANGE = np.tile(np.array(ORANGE_RGB, dtype=np.uint8), (16, 24, 1))


def message(content: bytes, stated_format: str) -> CompressedImage:
    made = CompressedImage(format=stated_format)
    made.data = array.array("B", content)
    return made


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """OpenCV takes three channels for BGR."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


JPEG = encoded(ORANGE[..., ::-1], ".jpg")
PNG = encoded(ORANGE[..., ::-1])


@pytest.mark.parametrize(
    ("content", "stated_format"),
    [
        (JPEG, "jpeg"),
        (JPEG, "jpg"),
        (JPEG, ""),
        (JPEG, "png"),  # the data decide
        (JPEG + bytes(100), "jpeg"),  # a driver's whole buffer
        (JPEG, "rgb8; jpeg compressed bgr8"),
        (JPEG, "bgr8; jpeg compressed bgr8"),
        (JPEG, "yuv422; jpeg compressed bgr8"),
        (encoded(ORANGE, ".jpg"), "rgb8; jpeg compressed rgb8"),  # red and blue swapped, as it says
        (PNG, "png"),
        (PNG, "bgr8; png compressed bgr8"),
        (
            encoded(np.dstack([ORANGE[..., ::-1], np.full((16, 24), 255, dtype=np.uint8)])),
            "rgba8; png compressed bgra8",
        ),
        (encoded(ORANGE[..., ::-1].astype(np.uint16) * 257), "rgb16; png compressed bgr16"),
    ],
)
def test_colour_images(content: bytes, stated_format: str) -> None:
    rgb = compressed_to_rgb(message(content, stated_format))
    assert rgb.shape == (16, 24, 3) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - ORANGE_RGB).max() <= 4  # JPEG rounds


@pytest.mark.parametrize("stated_format", ["jpeg", "mono8; jpeg compressed ", "rgb8; jpeg compressed bgr8"])
def test_gray_images(stated_format: str) -> None:
    rgb = compressed_to_rgb(message(encoded(np.full((8, 8), 77, dtype=np.uint8), ".jpg"), stated_format))
    np.testing.assert_array_equal(rgb, np.full((8, 8, 3), 77))


def test_a_mosaic_that_was_compressed_as_gray_gets_its_colours() -> None:
    mosaic = np.tile(np.array([[250, 130], [130, 10]], dtype=np.uint8), (8, 12))
    rgb = compressed_to_rgb(message(encoded(mosaic), "bayer_rggb8; png compressed bayer_rggb8"))
    np.testing.assert_array_equal(rgb, ORANGE)


def test_16_bits_of_one_channel_are_read_as_the_format_says() -> None:
    ramp = np.linspace(1000, 2000, 101, dtype=np.uint16)[None].repeat(4, axis=0)
    assert compressed_to_rgb(message(encoded(ramp), "mono16; png compressed "))[0, -1, 0] == 2000 >> 8
    assert compressed_to_rgb(message(encoded(ramp), "16UC1; png compressed "))[0, -1, 0] == 255


def test_the_pixels_are_not_turned_by_a_note_in_the_file() -> None:
    orientation_6 = (
        b"Exif\0\0MM\0\x2a\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    )  # one entry of a big-endian directory: "turn by 90 degrees"
    segment = b"\xff\xe1" + (len(orientation_6) + 2).to_bytes(2, "big") + orientation_6
    turned = JPEG[:2] + segment + JPEG[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (24, 16, 3), "the note is wrong"
    assert compressed_to_rgb(message(turned, "jpeg")).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("content", "stated_format", "reason"),
    [
        (b"", "jpeg", r"neither JPEG nor PNG: 0 bytes with format 'jpeg' that begin with nothing"),
        (b"abcdefgh", "jpeg", r"8 bytes .* begin with 61 62 63 64"),
        (bytes(12) + PNG, "16UC1; compressedDepth png", "compressedDepth is for depth"),
        (JPEG[: len(JPEG) * 2 // 3], "jpeg", "is cut off"),
        (JPEG[:-2], "jpeg", "is cut off"),
        (JPEG[:4], "jpeg", "is cut off"),
        (PNG[: len(PNG) * 2 // 3], "png", "is cut off"),
        (PNG[:40] + b"\xa5" * (len(PNG) - 60) + PNG[-20:], "png", "is damaged"),
        (JPEG[:20] + b"\xff\xda\xff\xd9", "jpeg", "is cut off"),
        (JPEG[:20] + b"\xff\xda\0\x02\xff\xd9", "jpeg", "is damaged"),
        (JPEG[:-2] + b"\xff\xda\0\x02" * 100 + JPEG[-2:], "jpeg", "101 scans, expected at most 100"),
        (b"\0\0\0\1\x67\x42\0\x1e", "jpeg", r"begin with 00 00 00 01: H\.264 video, of which an image needs"),
        (b"\0\0\1\x09\xf0", "", r"H\.264 video"),
        (b"\0\0\0\1\x40\1\x0c", "jpeg", r"H\.265 video"),
        (b"\0\0\1\x26\1\xaf", "", r"H\.265 video"),
        (b"\x12\0\x0a\x0a", "av1", r"AV1 video"),
        (b"\xab\xcd", "bgr8; HEVC", r"H\.265 video"),
        (b"\0\0\0\0", "", r"begin with 00 00 00 00$"),
        (b"", "", r"begin with nothing$"),
        (JPEG.replace(b"\x08\0\x10\0\x18", b"\x08\x60\0\x60\0"), "jpeg", "header says 24576 x 24576 px"),
        (PNG.replace(b"\0\0\0\x18\0\0\0\x10", b"\0\1\0\0\0\1\0\0"), "png", "header says 65536 x 65536 px"),
    ],
)
def test_what_cannot_be_read(content: bytes, stated_format: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        compressed_to_rgb(message(content, stated_format))


@pytest.mark.parametrize("content", [JPEG, PNG], ids=["jpeg", "png"])
def test_what_is_too_large_is_not_decoded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compressed_to_rgb(message(content, "jpeg"), max_pixels=24 * 16).shape == (16, 24, 3)

    def decode(*_: object) -> None:
        raise AssertionError("memory was taken for an image that nobody wants")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(ImageError, match="its header says 24 x 16 px, expected at most 383 pixels"):
        compressed_to_rgb(message(content, "jpeg"), max_pixels=24 * 16 - 1)


@pytest.mark.parametrize("quality", [10, 95])
@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart", [0, 3], ids=["plain", "restart markers"])
def test_a_jpeg_is_whole_at_its_end_and_nowhere_before(quality: int, progressive: int, restart: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive),
        *(cv2.IMWRITE_JPEG_RST_INTERVAL, restart),
    ]
    content = cv2.imencode(".jpg", noise, options)[1].tobytes()
    assert complaint_about(content, 48 * 64) == ""
    assert complaint_about(content + b"\0" * 50 + b"\xff\xd8\xff\xda", 48 * 64) == "", "an appended video"
    for length in (*range(4, len(content), 37), len(content) - 1):
        assert "is cut off" in complaint_about(content[:length])


@pytest.mark.parametrize("content", [JPEG, PNG], ids=["jpeg", "png"])
def test_flipped_bytes_are_refused_or_give_an_image(content: bytes) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(0, 256)
        try:
            rgb = compressed_to_rgb(message(bytes(damaged), "bgr8; jpeg compressed bgr8"))
            outcomes.add("image")
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
        except ImageError:
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize(("codec", "start", "error"), [("jpeg", b"\xff\xd8", 4), ("png", b"\x89PNG", 0)])
def test_our_own(codec: str, start: bytes, error: int) -> None:
    made = rgb_to_compressed(ORANGE, Header(frame_id="camera"), codec)
    assert (made.header.frame_id, made.format) == ("camera", f"rgb8; {codec} compressed bgr8")
    assert bytes(made.data).startswith(start)
    assert np.abs(compressed_to_rgb(made).astype(int) - ORANGE_RGB).max() <= error


def test_quality_changes_the_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    small, large = (rgb_to_compressed(noise, Header(), jpeg_quality=quality) for quality in (10, 95))
    assert len(small.data) < len(large.data) / 2


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown codec 'webp'; expected one of jpeg, png"):
        rgb_to_compressed(ORANGE, Header(), "webp")
