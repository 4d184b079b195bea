"""Index images: the values that were stored come back, whatever kind of PNG holds them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.images import UnreadableImageError
from sam2_ros.data.files.masks import (
    compress_counts,
    decode_rle,
    decompress_counts,
    encode_rle,
    read_index_png,
    write_index_png,
)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values: np.ndarray, palette: bytes | None = None, bit_depth: int = 8) -> bytes:
    """A palette PNG, or a gray one, written by hand: OpenCV writes no palette and no gray of few bits."""
    height, width = values.shape
    bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bit_depth :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", width, height, bit_depth, 0 if palette is None else 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (b"" if palette is None else chunk(b"PLTE", palette) + chunk(b"tRNS", b"\0"))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([[0, 255], [255, 0]], np.uint8), ([[0, 1], [2, 254]], np.uint8), ([[0, 256], [65535, 7]], np.uint16)],
)
def test_written_values_are_read_back(tmp_path: Path, values: list[list[int]], dtype: type) -> None:
    path = tmp_path / "new" / "folder" / "00000.png"
    write_index_png(path, np.array(values, np.int64))
    read = read_index_png(path)
    assert read.dtype == dtype
    assert read.tolist() == values


def test_palette_image_gives_indices_and_not_colours(tmp_path: Path) -> None:
    values = np.arange(256).reshape(16, 16)
    every_colour_the_same = b"\x10\x20\x30" * 256
    path = tmp_path / "palette.png"
    path.write_bytes(png(values, every_colour_the_same))
    np.testing.assert_array_equal(read_index_png(path), values)


@pytest.mark.parametrize("has_palette", [True, False])
@pytest.mark.parametrize("bit_depth", [1, 2, 4])
def test_image_of_few_bits_is_not_stretched(tmp_path: Path, bit_depth: int, has_palette: bool) -> None:
    values = np.arange(2**bit_depth)[None].repeat(3, axis=0)
    path = tmp_path / "few_bits.png"
    path.write_bytes(png(values, bytes(range(3 * 2**bit_depth)) if has_palette else None, bit_depth))
    np.testing.assert_array_equal(read_index_png(path), values)


def test_gray_that_was_saved_as_colour_is_read(tmp_path: Path) -> None:
    values = np.array([[0, 255, 7]], np.uint8)
    path = tmp_path / "rgb.png"
    cv2.imwrite(str(path), values[..., None].repeat(3, axis=2))
    np.testing.assert_array_equal(read_index_png(path), values)


def test_colour_image_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.array([[[1, 2, 3]]], np.uint8))
    with pytest.raises(ValueError, match=r"photo\.png.*colour image"):
        read_index_png(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff not a png", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_file_that_is_no_png_is_rejected_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mask\.png"):
        read_index_png(path)


@pytest.mark.parametrize("palette", [None, bytes(range(60))], ids=["gray", "palette"])
def test_file_whose_end_is_missing_is_rejected(tmp_path: Path, palette: bytes | None) -> None:
    content = png(np.arange(400).reshape(20, 20) % 20, palette)
    path = tmp_path / "torn.png"
    for length in (40, len(content) // 2, len(content) - 12, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UnreadableImageError, match=r"torn\.png is cut off"):
            read_index_png(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_index_png(tmp_path / "nothing.png")


@pytest.mark.parametrize(
    "values", [np.array([[-1]]), np.array([[65536]]), np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2))]
)
def test_values_that_do_not_fit_are_rejected(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="object numbers"):
        write_index_png(tmp_path / "mask.png", values)
    assert not (tmp_path / "mask.png").exists()


def typed(rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows.split()])


@pytest.mark.parametrize(
    ("mask", "runs", "counts"),
    [
        # Column by column: 2 zeros, 2 ones.
        (typed(".#  .#"), [2, 2], "22"),
        # The first pixel is set: an empty run of zeros comes first.
        (typed("#.  .."), [0, 1, 3], "013"),
        # A row of six: .##.#. = 1 2 1 1 1; from the fourth run on the difference to two before: 1-2 = -1, 1-1 = 0.
        # -1 is the group 11111 = 31, and 48 + 31 is 'O'.
        (typed(".##.#."), [1, 2, 1, 1, 1], "121O0"),
        # 40 = 8 + 1 * 32: the first group has the bit that says more follow, 48 + 32 + 8 = 88 'X', then '1'.
        (np.zeros((8, 5), bool), [40], "X1"),
        # 16 alone would look negative (bit 5 is the sign): a second group of zero follows. 48 + 32 + 16 = 96 '`'.
        (np.zeros((4, 4), bool), [16], "`0"),
        (np.ones((2, 2), bool), [0, 4], "04"),
    ],
)
def test_hand_worked_codes(mask: np.ndarray, runs: list[int], counts: str) -> None:
    assert compress_counts(runs) == counts
    assert decompress_counts(counts) == runs
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}
    np.testing.assert_array_equal(decode_rle({"size": list(mask.shape), "counts": counts}), mask)


def test_absent_object_as_sav_stores_it() -> None:
    # 848 * 480 = 407040 = 0 + 16 * 32 + 13 * 32**2 + 12 * 32**3.
    assert encode_rle(np.zeros((848, 480), bool))["counts"] == "P`]<"
    assert not decode_rle({"size": [848, 480], "counts": "P`]<"}).any()


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_random_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    mask = rng.random((height, width)) < rng.random()
    decoded = decode_rle(encode_rle(mask))
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("runs", [[0, 5, 100000, 3, 1, 70000, 2], [31, 32, 33, 1, 1023, 1024, 1], [1, 1000000, 1, 1]])
def test_round_trip_of_runs_that_grow_and_shrink(runs: list[int]) -> None:
    assert decompress_counts(compress_counts(runs)) == runs


def test_plain_list_of_runs_is_decoded_too() -> None:
    np.testing.assert_array_equal(decode_rle({"size": [2, 2], "counts": [1, 2, 1]}), typed(".#  #."))  # type: ignore[typeddict-item]


def test_runs_that_do_not_fill_the_mask_are_rejected_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"add up to 4.*3 x 3 has 9"):
        decode_rle({"size": [3, 3], "counts": "22"})


@pytest.mark.parametrize(("text", "why"), [("2X", "middle of a number"), ("2 2", "does not occur")])
def test_damaged_text_is_rejected(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decompress_counts(text)


def test_mask_that_is_not_bool_is_rejected() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_rle(np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]


def test_counts_may_be_bytes() -> None:
    """As pycocotools and what dumps its objects have them."""
    mask = np.random.default_rng(3).random((7, 9)) > 0.5
    rle = encode_rle(mask)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(decode_rle({**rle, "counts": rle["counts"].encode()}), mask)
    with pytest.raises(ValueError, match="ascii"):
        decode_rle({**rle, "counts": b"\xff"})
