"""What the stamps of images say: jumps that are believed, clocks that disagree, ages that are known."""

from __future__ import annotations

import logging

import pytest

from sam2_ros.session.stamps import (
    LASTING_S,
    ClockWatch,
    GapCounter,
    SteadyTime,
    TimeJumpDetector,
    describe_other_clock,
)

SECOND = 1_000_000_000
CAMERA, OTHER = 1_800_000_000.0, 1_500_000_000.0


def jumps(stamps_s: list[float], period_s: float) -> list[float]:
    """How far time goes back with each of the images, which come every ``period_s``."""
    detector = TimeJumpDetector()
    return [
        round(detector.observe(round(stamp_s * SECOND), index * period_s).back_s, 3)
        for index, stamp_s in enumerate(stamps_s)
    ]


@pytest.mark.parametrize(
    ("stamps_s", "expected_s"),
    [
        ([1, 2, 3], [0, 0, 0]),
        ([1, 1, 1], [0, 0, 0]),  # duplicated
        ([0, 0, 5, 0, 6], [0, 0, 0, 0, 0]),  # without a stamp now and then
        ([5, 4.8, 5.1], [0, 0, 0]),  # out of order
        ([100, 5, 5.6, 6.2], [0, 0, 95, 0]),  # a bag that starts again, said once
        ([100, 5], [0, 0]),  # one image proves nothing
        ([100, 5, 101.2, 101.8, 102.4], [0, 0, 0, 0, 0]),
        ([100, 5, 70, 40], [0, 0, 0, 0]),  # nor do several that do not agree
        ([1, 1e6, 2.2, 2.8], [0, 0, 0, 0]),  # one image from the far future
        ([1, 1e6, 1e6 + 1, 1e6 + 2], [0, 0, 0, 0]),  # a bag that is played from further on
        ([1, 1e6, 1e6 + 0.6, 1e6 + 1.2, 1.1, 1.7], [0, 0, 0, 0, 0, 1e6 + 0.1]),  # and a restart after it
        ([100, 1e6, 5, 5.6], [0, 0, 0, 95]),  # a restart right after an image from the far future
        ([(5 if index % 2 else 100) + 0.6 * index for index in range(20)], [0] * 20),  # two clocks in turn
        ([(5 if index % 3 else 100) + 0.3 * index for index in range(30)], [0] * 30),  # one twice as fast
    ],
)
def test_jumps_back(stamps_s: list[float], expected_s: list[float]) -> None:
    assert jumps(stamps_s, period_s=0.6 if len(stamps_s) < 30 else 0.3) == pytest.approx(expected_s)


def test_a_jump_is_not_believed_before_the_old_time_was_silent_for_a_second() -> None:
    looped = [100 + index / 30 for index in range(30)] + [5 + index / 30 for index in range(60)]
    (at,) = [index for index, back_s in enumerate(jumps(looped, 1 / 30)) if back_s]
    assert 58 <= at <= 60, "a second after the last image of the old time"


def test_a_pause_is_no_jump_however_long() -> None:
    detector = TimeJumpDetector()
    assert detector.observe(CAMERA_NS := round(CAMERA * SECOND), 0.0).timeline == 0
    assert detector.observe(CAMERA_NS + 3600 * SECOND, 3600.0).timeline == 0


def test_runs_of_another_time_have_numbers_of_their_own() -> None:
    detector = TimeJumpDetector()
    stamps_s = [100, 5, 5.1, 100.2, 5.2, 100.3]
    assert [detector.observe(round(s * SECOND), 0.1 * i).timeline for i, s in enumerate(stamps_s)] == [0, 1, 1, 0, 2, 0]


def test_what_is_not_believed_is_said_and_two_clocks_only_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    detector = TimeJumpDetector()
    for index, stamp_s in enumerate((1, 101, 2)):
        detector.observe(stamp_s * SECOND, float(index))
    assert "1 image was stamped 100.0 s later than those around: not believed" in caplog.text
    caplog.clear()
    for index in range(400):
        detector.observe((2 if index % 2 else 50) * SECOND, 3 + index / 10)
    assert detector.two_clocks_s(43.0) == 48.0
    assert caplog.text.count("alternate between two times, 48.0 s apart") == 2, "in 40 s"
    assert caplog.text.count("not believed") <= 3
    assert detector.two_clocks_s(60.0) == 0.0, "it is over"


@pytest.mark.parametrize(
    ("stamp_s", "now_s", "expected"),
    [
        (CAMERA, CAMERA + 0.05, ""),
        (CAMERA, CAMERA - 0.2, ""),
        (0.0, CAMERA, ""),
        (CAMERA, 0.0, "no /clock has come"),
        (OTHER, CAMERA, "300000000.0 s behind this node's clock"),
        (CAMERA, 12.0, "1799999988.0 s ahead of this node's clock"),
        (CAMERA + 5, CAMERA, "5.0 s ahead of this node's clock"),
    ],
)
def test_an_age_is_known_where_stamp_and_clock_agree(stamp_s: float, now_s: float, expected: str) -> None:
    said = describe_other_clock(round(stamp_s * SECOND), round(now_s * SECOND))
    assert expected in said and bool(said) == bool(expected)


def test_a_clock_that_comes_a_little_later_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    watch = ClockWatch(lambda: now_s)
    stamp_ns = round(CAMERA * SECOND)
    with caplog.at_level(logging.WARNING):
        assert not watch.is_age_known(stamp_ns, 0)
        assert watch.is_age_known(stamp_ns, stamp_ns)
        now_s = 2 * LASTING_S
        assert not watch.is_age_known(stamp_ns, 0) and not watch.trouble and not caplog.text
        now_s += LASTING_S
        for _ in range(3):
            assert not watch.is_age_known(stamp_ns, 0)
        assert "ros2 bag play needs --clock" in watch.trouble
    assert caplog.text.count("no /clock has come") == 1


@pytest.mark.parametrize(
    ("timelines", "stamps_s", "expected_s"),
    [
        ([0, 0, 0], [5, 6, 8], [5, 6, 8]),
        ([0, 0, 0], [5, 4.8, 5.5], [5, 5, 5.5]),  # out of order
        ([0, 1, 0, 0], [5, 3600, 6, 7], [5, 5, 6, 7]),
        ([0, 1, 1, 1], [500, 5, 6, 8], [500, 500, 501, 503]),  # a bag that starts again
        ([0, 1, 0, 2, 0, 3], [5, 90, 6, 91, 7, 92], [5, 5, 6, 6, 7, 7]),  # two clocks in turn
        ([0, 0, 0], [5, 0, 6], [5, 0, 6]),
    ],
)
def test_steady_time_neither_jumps_nor_goes_back(
    timelines: list[int], stamps_s: list[float], expected_s: list[float]
) -> None:
    time = SteadyTime()
    found = [time.at(timeline, round(s * SECOND)) / SECOND for timeline, s in zip(timelines, stamps_s, strict=True)]
    assert found == pytest.approx(expected_s)


@pytest.mark.parametrize("unknown", [None, 2**64 - 1])
def test_missing_images_are_counted_by_stamps_where_there_are_no_numbers(unknown: int | None) -> None:
    gaps = GapCounter()
    lost = {20, 21, 40, 77}
    for index in range(100):
        if index not in lost:
            jitter_ns = 4_000_000 if index % 2 else 0
            gaps.observe(unknown, round((CAMERA + index / 30) * SECOND) + jitter_ns)
    assert gaps.missed == len(lost)
    gaps.observe(unknown, round((CAMERA + 5000) * SECOND))
    gaps.observe(unknown, 0)
    assert gaps.missed == len(lost), "a pause is no loss"


def test_missing_images_are_counted_by_the_publishers_numbers() -> None:
    gaps = GapCounter()
    for sequence in (7, 8, 11, 12, 1, 2, 4, 100_000, 100_001):  # another publisher twice
        gaps.observe(sequence, 0)
    assert gaps.missed == 2 + 1
