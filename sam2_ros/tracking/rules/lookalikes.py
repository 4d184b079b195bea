"""Look-alikes: two things that the network cannot tell apart, after they met or were out of sight together.

Of two equal cups only where each was and how it moved says which is which. While both are in plain view the network
follows them; where one passes behind the other it often leaves each identity on its side, so that both end on the
other's cup, as surely seen as before. This rule compares what the network says afterwards with how the pair moved, by
the offset from the middle of one to that of the other, in which the camera's own motion cancels out:

- The two *met*: one came close enough to cover the other. The offset went on as it had been changing. Where the
  network says so too, nothing changes; where it says the opposite, the two are exchanged; where the motion says
  little, both are in doubt.
- They were *away*: both out of sight at once, as when the camera looks elsewhere. The offset should be about what it
  was; until both are in plain view and it is, they are in doubt.

An object in doubt has no mask, and no memory of the frame: it is OCCLUDED, then LOST, until a prompt says which it is.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from sam2_ros.tracking.rules.sightings import Place, Sighting, overlap

ALIKE = 0.9  # cosine of two looks that makes two things look-alikes; of nano: equal mugs 0.93 or more, others to 0.91
_STILL_ALIKE = 0.8  # below this, in plain view, they are so no longer
_SPEED_GAIN = 0.3  # of the newest change of the offset; of the first ones their mean
_APART = 0.6  # mean sides: in plain view the middles are at least so far apart
_OVERLAP = 0.1  # and the masks overlap by less than this
_LEAST_AREA, _MOST_AREA = 0.5, 1.8  # and each has so much of the area that it had when last in plain view
_DEEP_AREA = 0.35  # of that area: where less was seen of one, it was behind the other and not only touched
_AGREES = 0.5  # cosine between the offset as it should be and as it is
_LONGER = 3.0  # times: an offset that is so much longer or shorter than it should be says nothing
_NEAR = 0.5  # mean sides: what is so near to where it should be is there
_CLOSE = 1.2  # mean sides: two that were to come closer than this have met

Xy = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two look-alikes, as of the last frame that showed both in plain view."""

    frame: int
    offset_xy: Xy  # from the first to the second, in widths of the image
    speed_xy: Xy  # change of the offset in a frame
    areas: tuple[float, float]
    frames: int = 1  # in a row, of plain view
    least_share: float = 1.0  # of these areas that was seen of one since then, while the other was in sight
    has_met: bool = False  # since then, before they were away
    was_away: bool = False  # both at once, since then
    is_in_doubt: bool = False  # until a prompt
    is_sure: bool = False  # a prompt has said since then who is who

    @property
    def side(self) -> float:
        """Mean side of the two, in widths of the image."""
        return (math.sqrt(self.areas[0]) + math.sqrt(self.areas[1])) / 2

    def offset_at(self, frame: int) -> Xy:
        """The offset if it goes on changing as it did."""
        gap = frame - self.frame
        return self.offset_xy[0] + gap * self.speed_xy[0], self.offset_xy[1] + gap * self.speed_xy[1]

    def was_to_meet(self, frame: int) -> bool:
        """Whether the two were to come so close until this frame that one may have covered the other."""
        (x, y), (vx, vy) = self.offset_xy, self.speed_xy
        speed = vx * vx + vy * vy
        nearest = min(max(-(x * vx + y * vy) / speed, 0.0), frame - self.frame) if speed else 0.0
        return math.hypot(x + nearest * vx, y + nearest * vy) < _CLOSE * self.side


class _Finding(enum.Enum):
    AS_SEEN = enum.auto()  # each is what the network says
    EXCHANGED = enum.auto()  # each is what the network says of the other
    DOUBTFUL = enum.auto()


@dataclass(frozen=True)
class Verdict:
    """What is known of the look-alikes after a frame."""

    sightings: dict[str, Sighting]  # after exchanges
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    doubted: dict[str, str] = field(default_factory=dict)  # objects without a mask in this frame, and who they may be
    unclear: set[str] = field(default_factory=set)  # objects one of which may cover the other: not to be remembered so
    exchanged: list[tuple[str, str]] = field(default_factory=list)  # each is what the network said of the other


def watch(pairs: Mapping[tuple[str, str], Pair], sightings: Mapping[str, Sighting], frame: int) -> Verdict:
    """Judge the pairs of look-alikes in a frame.

    Args:
        pairs: after the frame before.
        sightings: of all objects that the network was asked for, in the order of their labels; with places.
        frame: its index.
    """
    keys = _candidates(pairs, sightings)
    seen, exchanged = dict(sightings), list[tuple[str, str]]()
    for key in keys:
        if _judge(pairs.get(key), seen[key[0]], seen[key[1]], frame)[1] is _Finding.EXCHANGED:
            exchanged.append(key)
            seen |= _exchanged(*key, seen)
    verdict = Verdict(seen, exchanged=exchanged)
    for key in keys:  # as they are after all exchanges
        pair, finding = _judge(pairs.get(key), seen[key[0]], seen[key[1]], frame)
        if pair is None:
            continue
        if finding is _Finding.EXCHANGED:  # with three of them an exchange of two may contradict the third
            pair, finding = replace(pair, is_in_doubt=True), _Finding.DOUBTFUL
        verdict.pairs[key] = pair
        if pair.frame != frame and pair.has_met:
            verdict.unclear.update(key)
        if finding is _Finding.DOUBTFUL:
            for each, may_be in (key, key[::-1]):
                is_seen = pair.is_in_doubt or seen[each].place is not None
                if is_seen and not seen[each].is_prompted:
                    verdict.doubted[each] = may_be
    return verdict


def _exchanged(one: str, other: str, seen: Mapping[str, Sighting]) -> dict[str, Sighting]:
    """Each object with what the network said of the other."""

    def as_if(mine: Sighting, theirs: Sighting) -> Sighting:
        return replace(mine, mask_hw=theirs.mask_hw, quality=theirs.quality, place=theirs.place)

    return {one: as_if(seen[one], seen[other]), other: as_if(seen[other], seen[one])}


def _candidates(pairs: Mapping[tuple[str, str], Pair], sightings: Mapping[str, Sighting]) -> list[tuple[str, str]]:
    """Known pairs whose objects are still there, then those that look alike now."""
    known = [key for key in pairs if key[0] in sightings and key[1] in sightings]
    looks = {i: sighting.place.look_c for i, sighting in sightings.items() if sighting.place is not None}
    if len(looks) < 2:
        return known
    looks_nc = np.stack(list(looks.values()))
    alike_nn = looks_nc @ looks_nc.T >= ALIKE
    numbered = itertools.combinations(enumerate(looks), 2)
    new = [(one, other) for (a, one), (b, other) in numbered if alike_nn[a, b]]
    return known + [key for key in new if key not in pairs]


def _judge(pair: Pair | None, one: Sighting, other: Sighting, frame: int) -> tuple[Pair | None, _Finding]:
    """The pair after a frame, and what it is in this frame; None if the two are not known as look-alikes."""
    here, there = one.place, other.place
    if pair is not None and (one.is_prompted or other.is_prompted):
        pair = replace(pair, is_sure=True, is_in_doubt=False, was_away=False, least_share=1.0)
    if here is None or there is None or not _is_plain(pair, one, other):
        return (None, _Finding.AS_SEEN) if pair is None else _out_of_plain_view(pair, frame, here, there)
    offset_xy = _offset(here, there)
    areas = (here.area, there.area)
    if pair is None or (one.is_prompted and other.is_prompted):
        return Pair(frame, offset_xy, (0.0, 0.0), areas), _Finding.AS_SEEN
    if pair.frame == frame - 1 and float(here.look_c @ there.look_c) < _STILL_ALIKE:
        return None, _Finding.AS_SEEN
    if pair.is_in_doubt:
        return pair, _Finding.DOUBTFUL
    says = 1 if pair.is_sure else _what_motion_says(pair, frame, offset_xy)
    if says == 0 or (says < 0 and one.view != other.view):  # of different windows, masks cannot be exchanged
        return replace(pair, is_in_doubt=not pair.was_away), _Finding.DOUBTFUL
    if says < 0:
        return pair, _Finding.EXCHANGED
    return _followed(pair, frame, offset_xy, areas), _Finding.AS_SEEN


def _offset(here: Place, there: Place) -> Xy:
    return there.xy[0] - here.xy[0], there.xy[1] - here.xy[1]


def _is_plain(pair: Pair | None, one: Sighting, other: Sighting) -> bool:
    """Whether both are in plain view: apart, and about as large as when they last were."""
    here, there = one.place, other.place
    assert here is not None and there is not None
    side = (math.sqrt(here.area) + math.sqrt(there.area)) / 2
    if math.dist(here.xy, there.xy) < _APART * side or overlap(one.mask_hw, other.mask_hw) >= _OVERLAP:
        return False
    usual = (here.area, there.area) if pair is None else pair.areas
    return all(
        _LEAST_AREA <= now / then <= _MOST_AREA for now, then in zip((here.area, there.area), usual, strict=True)
    )


def _out_of_plain_view(pair: Pair, frame: int, here: Place | None, there: Place | None) -> tuple[Pair, _Finding]:
    """The pair after a frame that does not show both in plain view, and what it is in it.

    Of two that come apart after one hid the other, each is only shown where the motion says what the network does.
    """
    if here is None and there is None and math.hypot(*pair.offset_at(frame)) >= _CLOSE * pair.side:
        return replace(pair, was_away=True), _Finding.DOUBTFUL  # not only lost sight of where one covers the other
    places = zip((here, there), pair.areas, strict=True)
    share = min(0.0 if place is None else place.area / usual for place, usual in places)
    has_met = pair.has_met or (not pair.was_away and pair.was_to_meet(frame))
    after = replace(pair, least_share=min(pair.least_share, share), has_met=has_met)
    is_doubtful = pair.is_in_doubt or pair.was_away
    if here is not None and there is not None and pair.least_share < min(_DEEP_AREA, share):
        is_doubtful |= _what_motion_says(after, frame, _offset(here, there)) != 1
    return after, _Finding.DOUBTFUL if is_doubtful else _Finding.AS_SEEN


def _followed(pair: Pair, frame: int, offset_xy: Xy, areas: tuple[float, float]) -> Pair:
    """The pair after a frame in plain view, with what is known of its motion."""
    if frame - pair.frame > 1:
        return Pair(frame, offset_xy, (0.0, 0.0) if pair.was_away else pair.speed_xy, areas, 1 if pair.was_away else 2)
    (x, y), (vx, vy), g = pair.offset_xy, pair.speed_xy, max(_SPEED_GAIN, 1 / pair.frames)
    speed_xy = (vx + g * (offset_xy[0] - x - vx), vy + g * (offset_xy[1] - y - vy))
    return Pair(frame, offset_xy, speed_xy, areas, pair.frames + 1)


def _what_motion_says(pair: Pair, frame: int, offset_xy: Xy) -> int:
    """1: as the network says; -1: the two are exchanged; 0: neither, or too little is known."""
    is_next = frame - pair.frame == 1
    if not (pair.has_met or pair.was_away or is_next):
        return 1  # one went away alone, and the other was in sight all the time
    if pair.has_met and pair.was_away:
        return 0
    expected_xy = pair.offset_xy if pair.was_away else pair.offset_at(frame)
    expected, found = math.hypot(*expected_xy), math.hypot(*offset_xy)
    if is_next:  # both cannot have moved to the other's place at once
        has_jumped = math.dist((-expected_xy[0], -expected_xy[1]), offset_xy) < _NEAR * pair.side <= expected
        return -1 if has_jumped else 1
    if not found / _LONGER <= expected <= found * _LONGER or found == 0:
        return 0
    cosine = (expected_xy[0] * offset_xy[0] + expected_xy[1] * offset_xy[1]) / (expected * found)
    if cosine >= _AGREES:
        return 1
    is_sure = pair.was_away or pair.least_share < _DEEP_AREA
    return -1 if cosine <= -_AGREES and is_sure else 0
