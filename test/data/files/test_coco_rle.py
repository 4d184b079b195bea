"""COCO run-length code, against strings worked out by hand and by round trips."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.data.files.masks import compress_counts, decode_rle, decompress_counts, encode_rle


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


def test_runs_that_do_not_fill_the_mask_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"add up to 4.*3 x 3 has 9"):
        decode_rle({"size": [3, 3], "counts": "22"})


@pytest.mark.parametrize(("text", "why"), [("2X", "middle of a number"), ("2 2", "does not occur")])
def test_damaged_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decompress_counts(text)


def test_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_rle(np.zeros((2, 2), np.uint8))  # type: ignore[arg-type]
