"""What the stamps of images tell about time: jumps, two clocks on one topic, and the age of an image."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

JUMP_BACK_S = 0.5  # stamps that go back by no more than this are images out of order
JUMP_AHEAD_S = 10.0  # stamps may run ahead of the arrivals by this much
QUIET_S = 1.0  # a jump that the next image agrees with is believed when none of the old time came for this long
RETURNS = 3  # so many single images of another time within ``ALTERNATING_S`` are a second clock
ALTERNATING_S = 10.0
REPEAT_WARNING_S = 30.0
EARLY_S = 1.0  # an image that arrives this long before its own stamp, or
LATE_S = 10.0  # this long after it, was stamped by another clock than the node's
TIMELINES_KEPT = 8  # the believed one comes again and again; each of the others ends with the next image of that
PERIODS_KEPT = 16  # times between two images, for the usual one
MOST_MISSED = 300  # a longer gap is another publisher, or a pause
UNKNOWN_SEQUENCE = 2**63  # rmw's "not supported" is 2**64 - 1
LASTING_S = 2.0  # after which this is reported


@dataclass(frozen=True)
class StampReading:
    """How one stamp fits the ones before it.

    ``timeline`` numbers the runs of images with a common time: images whose time is not the one believed so far get
    another number. ``back_s`` is set on the image that confirms a jump back: by how much [s] its time is before the
    old one.
    """

    timeline: int
    back_s: float = 0.0


@dataclass
class _Time:
    """A time that images agree about: its latest stamp, and when that image arrived."""

    timeline: int
    stamp_ns: int
    arrival_s: float
    first_ns: int
    images: int = 1

    def goes_on_with(self, stamp_ns: int, arrival_s: float) -> bool:
        passed_s = (stamp_ns - self.stamp_ns) / 1e9
        return -JUMP_BACK_S <= passed_s <= JUMP_AHEAD_S + max(arrival_s - self.arrival_s, 0.0)


class TimeJumpDetector:
    """Detects stamps that do not advance as time does. It is given every stamp, in the order of arrival.

    One image of another time proves nothing: drivers send single wrong stamps, and two cameras on one topic take
    turns. A jump is believed once the next image agrees with the first one of the new time and none of the old time
    came for a second. Images without a stamp (zero) say nothing about time. ``what``: the images' name in the log.
    """

    def __init__(self, what: str = "image") -> None:
        self._what = what
        self._believed: _Time | None = None
        self._doubted: _Time | None = None
        self._timelines = 0  # numbers given so far
        self._returns_s: deque[float] = deque(maxlen=RETURNS)  # arrivals that went back to the believed time
        self._apart_s = 0.0  # of the latest of them
        self._alternation_told_s = -REPEAT_WARNING_S

    def forget(self) -> None:
        """Take the next stamp for the first one."""
        self._believed = self._doubted = None
        self._returns_s.clear()

    def two_clocks_s(self, now_s: float) -> float:
        """How far apart [s] the two times are between which the images alternate; 0 when they do not."""
        full = len(self._returns_s) == RETURNS
        return self._apart_s if full and now_s - self._returns_s[0] <= ALTERNATING_S else 0.0

    def observe(self, stamp_ns: int, arrival_s: float) -> StampReading:
        """Record the next image. ``arrival_s``: by a steady clock."""
        believed = self._believed
        if stamp_ns == 0:
            return StampReading(self._timelines if believed is None else believed.timeline)
        if believed is None:
            self._believed = _Time(self._timelines, stamp_ns, arrival_s, stamp_ns)
            return StampReading(self._timelines)
        if believed.goes_on_with(stamp_ns, arrival_s):
            self._disbelieve(believed, arrival_s)
            believed.stamp_ns, believed.arrival_s = stamp_ns, arrival_s
            return StampReading(believed.timeline)
        return self._doubt(believed, stamp_ns, arrival_s)

    def _doubt(self, believed: _Time, stamp_ns: int, arrival_s: float) -> StampReading:
        doubted = self._doubted
        if doubted is None or not doubted.goes_on_with(stamp_ns, arrival_s):
            self._timelines += 1
            doubted = self._doubted = _Time(self._timelines, stamp_ns, arrival_s, stamp_ns)
            return StampReading(doubted.timeline)
        doubted.stamp_ns, doubted.arrival_s, doubted.images = stamp_ns, arrival_s, doubted.images + 1
        if arrival_s - believed.arrival_s < QUIET_S:
            return StampReading(doubted.timeline)
        self._believed, self._doubted = doubted, None
        self._returns_s.clear()
        return StampReading(doubted.timeline, back_s=max((believed.stamp_ns - doubted.first_ns) / 1e9, 0.0))

    def _disbelieve(self, believed: _Time, arrival_s: float) -> None:
        """Images of the believed time continue after some of another time: log it, only once while this repeats."""
        doubted, self._doubted = self._doubted, None
        if doubted is None:
            return
        ahead_s = (doubted.stamp_ns - believed.stamp_ns) / 1e9
        self._apart_s = abs(ahead_s)
        self._returns_s.append(arrival_s)
        if self.two_clocks_s(arrival_s):
            if arrival_s - self._alternation_told_s >= REPEAT_WARNING_S:
                self._alternation_told_s = arrival_s
                logger.warning("%s", describe_two_clocks(self._apart_s, self._what))
        elif arrival_s - self._alternation_told_s >= REPEAT_WARNING_S:
            logger.warning(
                "%d %s%s stamped %.1f s %s than those around: not believed, tracking goes on",
                doubted.images,
                self._what,
                " was" if doubted.images == 1 else "s were",
                self._apart_s,
                "later" if ahead_s > 0 else "earlier",
            )


class SteadyTime:
    """What time it is by the stamps of images, for rules that count seconds: it neither jumps nor goes back.

    Only two stamps of one timeline (see ``StampReading``) tell how much time has passed between their images. While
    all are of one timeline it is just the latest stamp.
    """

    def __init__(self) -> None:
        self._now_ns = 0
        self._latest_ns: dict[int, int] = {}  # stamp of the latest image of a timeline

    def at(self, timeline: int, stamp_ns: int) -> int:
        """The time [ns] of the next image; 0 without a stamp."""
        if not stamp_ns:
            return 0
        before_ns = self._latest_ns.pop(timeline, stamp_ns)
        self._latest_ns[timeline] = max(stamp_ns, before_ns)
        for old in list(self._latest_ns)[:-TIMELINES_KEPT]:
            del self._latest_ns[old]
        self._now_ns = self._now_ns + max(stamp_ns - before_ns, 0) if self._now_ns else stamp_ns
        return self._now_ns


def describe_two_clocks(apart_s: float, what: str = "image") -> str:
    return (
        f"{what} stamps alternate between two times, {apart_s:.1f} s apart: are there two publishers on the {what} "
        "topic, or two clocks? Objects are kept, and tracked through the images of both"
    )


class ClockWatch:
    """Whether the stamps of images and the node's clock agree about the time; logged when they lastingly do not."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trouble = ""
        self._since_s = 0.0
        self._told_s = -REPEAT_WARNING_S

    def is_age_known(self, stamp_ns: int, now_ns: int) -> bool:
        """Whether the age of an image that arrives now is known; ``now_ns``: by the node's clock."""
        now_s, trouble = self._clock(), describe_other_clock(stamp_ns, now_ns)
        if not self._trouble:
            self._since_s = now_s
        self._trouble = trouble
        if self.trouble and now_s - self._told_s >= REPEAT_WARNING_S:
            self._told_s = now_s
            logger.warning("%s", trouble)
        return not trouble

    @property
    def trouble(self) -> str:
        """Why ages are not known; empty when they are, and at the start, when /clock may still be missing."""
        lasts = self._trouble and self._clock() - self._since_s >= LASTING_S
        return self._trouble if lasts else ""


def describe_other_clock(stamp_ns: int, now_ns: int) -> str:
    """Why the age of an image that arrives now is not known; empty when it is, and without a stamp."""
    if not stamp_ns:
        return ""
    if not now_ns:
        return "use_sim_time is true and no /clock has come: ages are not known; ros2 bag play needs --clock"
    age_s = (now_ns - stamp_ns) / 1e9
    if -EARLY_S <= age_s <= LATE_S:
        return ""
    side = "behind" if age_s > 0 else "ahead of"
    return (
        f"image stamps are {abs(age_s):.1f} s {side} this node's clock, so ages are not known: a bag or a simulation "
        "needs use_sim_time: true and /clock (ros2 bag play --clock); cameras of other machines need synchronised "
        "clocks"
    )


class GapCounter:
    """Counts the images that are missing between those that arrive.

    By the numbers that the publisher gives its messages, where the middleware tells them; else by stamps, in units of
    the usual time between two images.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._sequence: int | None = None
        self._stamp_ns = 0
        self._periods_ns: deque[int] = deque(maxlen=PERIODS_KEPT)

    def observe(self, sequence: int | None, stamp_ns: int) -> None:
        """``sequence``: None, or what middleware writes that has none: a number beyond all counting."""
        if sequence is not None and 0 < sequence < UNKNOWN_SEQUENCE:
            gap = 0 if self._sequence is None else sequence - self._sequence - 1
            self._sequence = sequence
            self.missed += gap if 0 < gap <= MOST_MISSED else 0  # else another publisher
            return
        passed_ns, self._stamp_ns = stamp_ns - self._stamp_ns, stamp_ns
        if not 0 < passed_ns < MOST_MISSED * 1_000_000_000 or passed_ns == stamp_ns:
            return
        self._periods_ns.append(passed_ns)
        usual_ns = sorted(self._periods_ns)[len(self._periods_ns) // 4]  # gaps make the longer ones longer
        gap = round(passed_ns / usual_ns) - 1
        if len(self._periods_ns) >= PERIODS_KEPT // 2 and 0 < gap <= MOST_MISSED:
            self.missed += gap
