"""Which depth image belongs to which colour image."""

from __future__ import annotations

import pytest

from sam2_ros.perception.stamped_buffer import StampedBuffer


def filled(*stamps_ns: int, capacity: int = 4) -> StampedBuffer[str]:
    buffer: StampedBuffer[str] = StampedBuffer(capacity)
    for stamp_ns in stamps_ns:
        buffer.put(stamp_ns, f"at {stamp_ns}")
    return buffer


@pytest.mark.parametrize(
    ("wanted", "slop", "expected"),
    [
        (200, 0, "at 200"),
        (204, 5, "at 200"),
        (296, 5, "at 300"),
        (205, 5, "at 200"),
        (206, 5, None),
        (94, 5, None),
        (251, 50, "at 300"),
    ],
)
def test_nearest_within_the_slop(wanted: int, slop: int, expected: str | None) -> None:
    assert filled(100, 200, 300).nearest(wanted, slop) == expected


def test_stamps_out_of_order() -> None:
    assert filled(300, 100, 200).nearest(101, 10) == "at 100"


def test_no_depth_at_all() -> None:
    buffer = filled()
    assert buffer.nearest(100, 10**9) is None and buffer.offset_ns(100) is None


def test_how_far_off_the_nearest_is() -> None:
    assert filled(100, 200).offset_ns(260) == -60
    assert filled(100, 200).offset_ns(90) == 10


def test_it_is_bounded_by_what_came_first() -> None:
    buffer = filled(100, 200, 300, 400, 500)
    assert len(buffer) == 4
    assert buffer.nearest(100, 0) is None and buffer.nearest(200, 0) == "at 200"


def test_what_is_nearest_to_a_wanted_stamp_stays_as_long_as_it_is_wanted() -> None:
    buffer = filled(100, 200)
    for stamp_ns in range(300, 1000, 100):
        buffer.put(stamp_ns, f"at {stamp_ns}", wanted_ns=(110, 190, 290, 2000))
        assert len(buffer) <= 4 + 4
    assert [buffer.nearest(wanted, 10) for wanted in (110, 190, 290)] == ["at 100", "at 200", "at 300"]
    assert buffer.nearest(500, 0) is None, "neither wanted nor one of the last"
    buffer.put(109, "nearer", wanted_ns=(110, 290))
    assert buffer.nearest(110, 10) == "nearer" and buffer.nearest(100, 0) is None
    buffer.put(1000, "at 1000")
    assert len(buffer) == 4 and buffer.nearest(300, 0) is None


def test_a_bag_that_starts_again_pushes_its_end_out() -> None:
    buffer = filled(900, 1000, 100, 200, 300, 400)
    assert buffer.offset_ns(1000) == -600 and buffer.nearest(100, 0) == "at 100"


def test_of_equal_stamps_the_newer_arrival() -> None:
    buffer = filled(100)
    buffer.put(100, "again")
    assert buffer.nearest(100, 0) == "again"


def test_clear() -> None:
    buffer = filled(100)
    buffer.clear()
    assert len(buffer) == 0 and buffer.nearest(100, 0) is None


def test_it_must_hold_something() -> None:
    with pytest.raises(ValueError, match="at least one item, got capacity 0"):
        StampedBuffer(0)
