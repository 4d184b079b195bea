"""Log the same reason once, or once in a while: a stream of images repeats its errors, perhaps with other numbers.

Without torch and without ROS, for all code that logs errors of external data.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable

_NUMBER = re.compile(r"\d+(\.\d+)?")


class LogThrottle:
    """Decides whether to log a text. Texts that differ in their numbers alone are the same reason. Thread-safe.

    Args:
        period_s: a reason is due again after this time; infinite: never, until ``forget``.
        limit: reasons remembered at most; the one that was logged longest ago goes first.
        clock: seconds.
    """

    def __init__(
        self, period_s: float = math.inf, limit: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._period_s = period_s
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_s: dict[str, float] = {}  # by reason, in the order of logging

    def __len__(self) -> int:
        return len(self._logged_s)

    def is_due(self, text: str) -> bool:
        """Whether to log the text; if so, its reason counts as logged now."""
        reason, now_s = _NUMBER.sub("0", text), self._clock()
        with self._lock:
            if now_s - self._logged_s.get(reason, -math.inf) < self._period_s:
                return False
            self._logged_s.pop(reason, None)
            self._logged_s[reason] = now_s
            while len(self._logged_s) > self._limit:
                del self._logged_s[next(iter(self._logged_s))]
            return True

    def forget(self) -> None:
        """Every reason is due again."""
        with self._lock:
            self._logged_s.clear()
