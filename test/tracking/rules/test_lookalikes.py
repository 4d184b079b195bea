"""Look-alikes that meet or are out of sight together: kept, exchanged or in doubt, by how they moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sam2_ros.model.sam2 import ImageFeatures
from sam2_ros.tracking.prediction import looks_of
from sam2_ros.tracking.rules.lookalikes import Pair, Verdict, watch
from sam2_ros.tracking.rules.sightings import Place, Sighting

CUP, HAT = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
SIDE = 0.1  # of every thing, in widths of the image
GRID = 100  # cells


def sighting(middle: float | None, share: float = 1.0, prompted: bool = False, look: Any = CUP) -> Sighting:
    """A square of ``SIDE`` with its middle at x; of which ``share`` is seen."""
    mask = np.zeros((GRID, GRID), bool)
    if middle is None:
        return Sighting(mask, -1, 0.9, 1, prompted)
    x, half = round(middle * GRID), round(SIDE * GRID / 2)
    mask[40:50, max(0, x - half) : x + half] = True
    return Sighting(mask, -1, 0.9, 1, prompted, Place((middle, 0.45), share * SIDE**2, look))


def film(*frames: tuple[Any, Any], looks: Sequence[Any] = (CUP, CUP)) -> list[Verdict]:
    """Verdicts, frame by frame, on objects a and b, that are at these places (or None, or arguments of a sighting)."""
    verdicts, pairs = [], {}
    for index, places in enumerate(frames):
        seen = {}
        for name, place, look in zip("ab", places, looks, strict=True):
            arguments = place if isinstance(place, tuple) else (place,)
            seen[name] = sighting(*arguments, look=look)
        verdicts.append(watch(pairs, seen, index))
        pairs = verdicts[-1].pairs
    return verdicts


APPROACH = [(0.2, 0.8), (0.26, 0.74), (0.32, 0.68), (0.38, 0.62), (0.44, 0.56)]
BEHIND = [((0.5, 1.0), (0.5, 0.1)), ((0.5, 1.0), None)]  # b is behind a
PASSED = [(0.62, 0.38), (0.68, 0.32), (0.74, 0.26)]
BACK = [(0.38, 0.62), (0.32, 0.68), (0.26, 0.74)]
"""The network's word after a crossing in which it left each identity on its side."""


def exchanges(verdicts: list[Verdict]) -> list[int]:
    return [index for index, verdict in enumerate(verdicts) if verdict.exchanged]


def doubts(verdicts: list[Verdict]) -> list[int]:
    return [index for index, verdict in enumerate(verdicts) if verdict.doubted]


def test_two_that_cross_and_are_followed_are_left_alone() -> None:
    verdicts = film(*APPROACH, *BEHIND, *PASSED)
    assert (exchanges(verdicts), doubts(verdicts)) == ([], [])


def test_two_that_cross_and_stay_on_their_sides_are_exchanged_until_the_network_follows() -> None:
    verdicts = film(*APPROACH, *BEHIND, *BACK)
    assert (exchanges(verdicts), doubts(verdicts)) == ([7, 8, 9], [])
    assert verdicts[7].exchanged == [("a", "b")]
    # After an exchange the network's memory is that of the other one, so it goes on with PASSED.
    verdicts = film(*APPROACH, *BEHIND, BACK[0], *PASSED[1:])
    assert (exchanges(verdicts), doubts(verdicts)) == ([7], [])


def test_both_unseen_for_a_moment_where_one_covers_the_other_were_not_away() -> None:
    verdicts = film(*APPROACH, BEHIND[0], (None, None), *BACK)
    assert (exchanges(verdicts), doubts(verdicts)) == ([7, 8, 9], [])


def test_what_changes_places_from_one_frame_to_the_next_is_exchanged_in_every_frame() -> None:
    still = [(0.3, 0.6)] * 4
    verdicts = film(*still, (0.6, 0.3))
    assert exchanges(verdicts) == [4]
    pairs = verdicts[-1].pairs
    assert watch(pairs, {"a": sighting(0.6), "b": sighting(0.3)}, 5).exchanged == [("a", "b")]
    assert not watch(pairs, {"a": sighting(0.3), "b": sighting(0.6)}, 5).exchanged


def test_a_camera_that_moves_with_them_changes_nothing() -> None:
    def shifted(frames: list[Any]) -> list[Any]:
        return [tuple(place + 0.02 * index for place in places) for index, places in enumerate(frames)]

    hidden = [(0.6, (0.6, 0.1))]
    assert exchanges(film(*shifted(APPROACH), *hidden, (0.58, 0.82))) == [6]
    assert exchanges(film(*shifted(APPROACH), *hidden, (0.82, 0.58))) == []


def test_two_that_only_touch_are_left_alone() -> None:
    beside = [(0.45, 0.555)] * 4
    verdicts = film(*APPROACH, *beside, (0.4, 0.6), (0.3, 0.7))
    assert (exchanges(verdicts), doubts(verdicts)) == ([], [])


@pytest.mark.parametrize(
    ("hidden", "after"),
    [
        pytest.param([((0.5, 1.0), None)] * 40, BACK[0], id="hidden much longer than crossing takes"),
        pytest.param([((0.5, 1.0), (0.5, 0.45))], BACK[0], id="never hidden so far that it could have passed unseen"),
        pytest.param([((0.5, 1.0), None)] + 3 * [(None, None)], PASSED[0], id="met and then both out of sight"),
    ],
)
def test_what_the_motion_does_not_say_is_doubted_until_a_prompt(hidden: list[Any], after: Any) -> None:
    verdicts = film(*APPROACH, *hidden, *[after] * 3)
    start = len(APPROACH) + len(hidden)
    assert exchanges(verdicts) == []
    assert doubts(verdicts)[-3:] == [start, start + 1, start + 2]
    assert verdicts[-1].doubted == {"a": "b", "b": "a"}
    a, b = after
    verdicts = film(*APPROACH, *hidden, *[after] * 3, ((a, 1.0, True), b), after)
    assert doubts(verdicts)[-1] == start + 2, "a prompt for one says which the other is"


def test_a_prompt_for_one_that_covers_the_other_decides_when_both_are_seen() -> None:
    verdicts = film(*APPROACH, *BEHIND, ((0.5, 1.0, True), None), *BACK)
    assert (exchanges(verdicts), doubts(verdicts)) == ([], [])


def test_both_away_and_back_side_by_side_are_taken_for_who_they_were() -> None:
    still = [(0.3, 0.6)] * 3
    gone = [(None, None)] * 30
    verdicts = film(*still, *gone, (None, 0.1), (0.2, 0.5), (0.3, 0.6))
    assert exchanges(verdicts) == []
    assert verdicts[33].doubted == {"b": "a"}, "the one that is seen alone may be either"
    assert doubts(verdicts) == [33]
    assert exchanges(film(*still, *gone, (0.5, 0.2), (0.3, 0.6))) == [33]
    # Time does not make them meet while they cannot be seen.
    slowly = [(0.3, 0.6), (0.301, 0.6), (0.302, 0.6)]
    assert doubts(film(*slowly, *gone, *gone * 9, (0.3, 0.6))) == []
    # Above one another: neither side says anything, for as long as it is so.
    verdicts = film(*still, *gone, *[(0.4, 0.4)] * 3, (0.3, 0.6))
    assert doubts(verdicts) == [33, 34, 35]


def test_one_that_goes_alone_and_comes_back_is_not_doubted() -> None:
    for back in (0.7, 0.1):
        verdicts = film(*[(0.3, 0.7)] * 3, *[(0.3, None)] * 5, *[(0.3, back)] * 2)
        assert (exchanges(verdicts), doubts(verdicts)) == ([], [])


def test_things_that_look_different_are_no_pair() -> None:
    verdicts = film(*APPROACH, *BEHIND, *BACK, looks=(CUP, HAT))
    assert not any(verdict.pairs or verdict.exchanged or verdict.doubted for verdict in verdicts)


def test_an_object_that_is_gone_leaves_no_pair() -> None:
    pairs = film(*APPROACH)[-1].pairs
    assert watch(pairs, {"a": sighting(0.4)}, 5).pairs == {}


def test_a_look_is_what_lies_under_the_mask() -> None:
    top = torch.zeros(1, 2, 4, 4)
    top[0, 0, :, :2], top[0, 1, :, 2:] = 1.0, 1.0
    features = ImageFeatures(top, top, top)
    logits = torch.full((1, 1, 16, 16), -1.0)
    logits[..., :4] = 1.0
    left, right = looks_of(features, torch.cat((logits, logits.flip(-1))))
    assert left == pytest.approx(np.array([0.5, -0.5]) * np.sqrt(2))
    assert right == pytest.approx(-left)


def test_a_pair_that_passes_at_a_distance_does_not_meet() -> None:
    beside = Pair(0, (0.3, 0.2), (-0.1, 0.0), (0.01, 0.01))
    assert not beside.was_to_meet(6)
    assert Pair(0, (0.3, 0.05), (-0.1, 0.0), (0.01, 0.01)).was_to_meet(6)
    assert not Pair(0, (0.3, 0.05), (-0.1, 0.0), (0.01, 0.01)).was_to_meet(1), "not yet"


def test_what_looks_different_in_plain_view_is_a_pair_no_longer() -> None:
    pairs = film(*APPROACH)[-1].pairs
    turned = np.array([0.7, 0.71], np.float32)
    assert not watch(pairs, {"a": sighting(0.4), "b": sighting(0.6, look=turned)}, 5).pairs
    covered = {"a": sighting(0.5), "b": sighting(0.5, 0.1, look=turned)}
    assert watch(pairs, covered, 5).pairs, "half covered it looks like anything"


def test_in_windows_of_their_own_two_are_doubted_and_not_exchanged() -> None:
    pairs = film(*APPROACH, *BEHIND)[-1].pairs
    seen = {"a": sighting(0.38), "b": replace(sighting(0.62), view=1)}
    verdict = watch(pairs, seen, 7)
    assert not verdict.exchanged and verdict.doubted == {"a": "b", "b": "a"}


def test_of_three_the_pairs_with_the_third_see_the_exchange_too() -> None:
    pairs: dict[tuple[str, str], Pair] = {}
    for index, places in enumerate([(0.3, 0.5, 0.9)] * 4 + [(0.5, 0.3, 0.9)] * 2):
        verdict = watch(pairs, {name: sighting(x) for name, x in zip("abc", places, strict=True)}, index)
        pairs = verdict.pairs
        assert verdict.exchanged == ([("a", "b")] if index > 3 else [])
    assert pairs["a", "c"].offset_xy == pytest.approx((0.6, 0.0))
    assert pairs["b", "c"].offset_xy == pytest.approx((0.4, 0.0))
    assert not verdict.doubted


@pytest.mark.parametrize(("places", "is_doubted"), [((0.42, 0.58), True), ((0.58, 0.42), False)])
def test_while_they_come_apart_they_show_only_where_the_motion_agrees(
    places: tuple[float, float], is_doubted: bool
) -> None:
    half_seen = (places[0], (places[1], 0.45))
    assert bool(film(*APPROACH, *BEHIND, half_seen)[-1].doubted) == is_doubted


def test_what_moved_before_it_was_away_is_not_expected_to_go_on() -> None:
    parting = [(0.3, 0.5), (0.3, 0.55), (0.3, 0.6)]
    pair = film(*parting, *[(None, None)] * 30, (0.3, 0.6))[-1].pairs["a", "b"]
    assert (pair.speed_xy, pair.frames) == ((0.0, 0.0), 1)
