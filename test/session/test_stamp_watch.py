"""Which stamps mean that time has gone back."""

from __future__ import annotations

import pytest

from sam2_ros.session.stamp_watch import StampWatch


@pytest.mark.parametrize(
    ("stamps_s", "expected_s"),
    [
        ([1, 2, 3], [0, 0, 0]),
        ([1, 1, 1], [0, 0, 0]),  # duplicated
        ([0, 0, 5, 0, 6], [0, 0, 0, 0, 0]),  # without a stamp now and then
        ([5, 4.8, 5.1], [0, 0, 0]),  # out of order
        ([100, 5, 5.1], [0, 95, 0]),  # a bag that starts again, said once
        ([1, 1e6, 1.1, 1.2], [0, 0, 0, 0]),  # one image from the far future
        ([1, 1e6, 1e6 + 1, 1e6 + 2], [0, 0, 0, 0]),  # a long pause
        ([1, 1e6, 1e6 + 1, 1.1], [0, 0, 0, 1e6 - 0.1]),  # and a restart after it
        ([100, 1e6, 5, 5.1], [0, 0, 95, 0]),  # a restart right after an image from the far future
    ],
)
def test_jumps_back(stamps_s: list[float], expected_s: list[float]) -> None:
    watch = StampWatch()
    assert [watch.jump_back_s(round(stamp_s * 1e9)) for stamp_s in stamps_s] == pytest.approx(expected_s)


def test_a_stamp_that_is_not_believed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    watch = StampWatch()
    for stamp_s in (1, 101, 2):
        watch.jump_back_s(stamp_s * 1_000_000_000)
    assert "an image was stamped 99.0 s later than the one after it" in caplog.text
