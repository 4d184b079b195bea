"""Whether the stamps of images go on as time does: a bag that starts again, a camera whose clock is wrong. ROS-free."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

JUMP_BACK_S = 0.5  # stamps that go back by more than this are a restarted bag, not images out of order
JUMP_AHEAD_S = 10.0  # a stamp so far ahead is only believed when the next one agrees


class StampWatch:
    """Told every stamp in the order of arrival. Images without a stamp (zero) say nothing about time."""

    def __init__(self) -> None:
        self._latest_ns = 0
        self._doubtful_ns = 0  # a stamp far ahead that no other has confirmed yet

    def jump_back_s(self, stamp_ns: int) -> float:
        """How far time has gone back with this image [s]; 0 when it has not."""
        if stamp_ns == 0:
            return 0.0
        if self._latest_ns == 0:
            self._latest_ns = stamp_ns
            return 0.0
        if self._doubtful_ns:
            doubtful_ns, self._doubtful_ns = self._doubtful_ns, 0
            if _seconds(doubtful_ns - stamp_ns) <= JUMP_BACK_S:  # confirmed: there was a long pause
                self._latest_ns = stamp_ns
                return 0.0
            logger.warning(
                "an image was stamped %.1f s later than the one after it: its stamp is not believed, tracking goes on",
                _seconds(doubtful_ns - stamp_ns),
            )
        if _seconds(stamp_ns - self._latest_ns) > JUMP_AHEAD_S:
            self._doubtful_ns = stamp_ns
            return 0.0
        back_s = _seconds(self._latest_ns - stamp_ns)
        self._latest_ns = stamp_ns
        return back_s if back_s > JUMP_BACK_S else 0.0


def _seconds(span_ns: int) -> float:
    return span_ns / 1e9
