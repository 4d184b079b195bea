"""What is logged again and what is not, and that nothing grows."""

from __future__ import annotations

import pytest

from sam2_ros.log_throttle import LogThrottle


@pytest.mark.parametrize("other", ["17 bytes of 30", "1.5 bytes of 3"])
def test_other_numbers_are_the_same_reason(other: str) -> None:
    throttle = LogThrottle()
    assert throttle.is_due("16 bytes of 30")
    assert not throttle.is_due(other)
    assert throttle.is_due("16 bits of 30")


def test_reasons_that_take_turns_are_each_logged_once_a_period() -> None:
    now_s = 0.0
    throttle = LogThrottle(5.0, clock=lambda: now_s)
    logged = []
    for step in range(120):
        now_s = step / 10
        logged += [text for text in ("one", "other") if throttle.is_due(text)]
    assert logged == ["one", "other"] * 3  # at 0, 5 and 10 s


def test_what_was_forgotten_is_due() -> None:
    throttle = LogThrottle()
    assert throttle.is_due("again") and not throttle.is_due("again")
    throttle.forget()
    assert throttle.is_due("again")


def test_it_is_bounded_and_the_oldest_reason_goes_first() -> None:
    throttle = LogThrottle(limit=3)
    for letter in "abcabcd":
        throttle.is_due(letter)
    assert len(throttle) == 3
    assert [letter for letter in "dcba" if throttle.is_due(letter)] == ["a"]
