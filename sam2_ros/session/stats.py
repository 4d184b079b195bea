"""What the session counts: images, failures, latencies. Thread-safe."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

REPEAT_ERROR_S = 5.0  # the same error is logged at most this often
TOO_OLD_S = 5.0  # images that are too old for longer than this are more than a short delay
LATENCIES_KEPT = 300


@dataclass(frozen=True)
class SessionStats:
    """Counts since the start of the session; ``dropped`` starts again with a reset."""

    received: int
    processed: int
    dropped: int  # replaced by a newer image before the model was free
    skipped: int  # left out on purpose: sooner than ``max_rate_hz`` or older than ``max_image_age_s``
    too_old_s: float  # age of the newest image, where it and all since the last processed one were too old; else 0
    too_old_for_s: float  # for how long that has been so
    failed: int  # could not be read, processed or published
    last_error: str  # of the latest failed image; "" when none failed
    latency_ms: NDArray[np.float64]  # (N,) of the latest images: from arrival until everything was published
    inference_ms: NDArray[np.float64]  # (N,) of the latest images
    waiting_ms: NDArray[np.float64]  # (N,) from arrival until the model began
    publishing_ms: NDArray[np.float64]  # (N,) from the model's end until everything was published
    age_ms: NDArray[np.float64]  # (N,) from the image's stamp until then; of images with a stamp


def describe_too_old(age_s: float, limit_s: float) -> str:
    return (
        f"every image is too old: the newest is {age_s:.2f} s old, max_image_age_s is {limit_s:g}; do the camera's "
        "clock and this one agree, and is use_sim_time set for a bag?"
    )


class StatsCollector:
    """Thread-safe counters behind ``SessionStats``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = self._processed = self._dropped = self._skipped = self._failed = 0
        self._too_old_s = 0.0
        self._too_old_since_s = 0.0
        self._too_old_told_s = 0.0
        self._last_error = ""
        self._errors_logged = LogThrottle(REPEAT_ERROR_S, clock=clock)
        self._latency_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._inference_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._waiting_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._publishing_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._age_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)

    @property
    def dropped(self) -> int:
        with self._lock:
            return self._dropped

    def note_received(self) -> None:
        with self._lock:
            self._received += 1

    def note_dropped(self) -> None:
        with self._lock:
            self._dropped += 1

    def note_skipped(self) -> None:
        with self._lock:
            self._skipped += 1

    def note_too_old(self, age_s: float, limit_s: float) -> None:
        """Count an image skipped for its age. Logged if all images are: then clocks disagree, not only a slow model."""
        now_s = self._clock()
        with self._lock:
            self._skipped += 1
            if not self._too_old_s:
                self._too_old_since_s = self._too_old_told_s = now_s  # it may be a short delay
            self._too_old_s = age_s
            is_due = now_s - self._too_old_told_s >= TOO_OLD_S
            if is_due:
                self._too_old_told_s = now_s
        if is_due:
            logger.warning("%s", describe_too_old(age_s, limit_s))

    def restart_dropped(self) -> None:
        with self._lock:
            self._dropped = 0

    def now_s(self) -> float:
        """Now, by the clock of the arrival times."""
        return self._clock()

    def note_processed(self, arrival_s: float, inferred_s: float, inference_ms: float, age_ms: float | None) -> None:
        """An image was published. ``inferred_s``: when the model finished; ``age_ms``: None without a stamp."""
        published_s = self._clock()
        with self._lock:
            self._processed += 1
            self._too_old_s = 0.0
            self._latency_ms.append((published_s - arrival_s) * 1e3)
            self._inference_ms.append(inference_ms)
            self._waiting_ms.append(max((inferred_s - arrival_s) * 1e3 - inference_ms, 0.0))
            self._publishing_ms.append((published_s - inferred_s) * 1e3)
            if age_ms is not None:
                self._age_ms.append(age_ms)

    def note_failure(self, text: str, *, with_traceback: bool = True) -> None:
        """Count a failure; log it unless the same was logged a moment ago, because a stream repeats its errors."""
        with self._lock:
            self._failed += 1
            self._last_error = text
        if self._errors_logged.is_due(text):
            logger.error("%s", text, exc_info=with_traceback)

    def snapshot(self) -> SessionStats:
        with self._lock:
            return SessionStats(
                received=self._received,
                processed=self._processed,
                dropped=self._dropped,
                skipped=self._skipped,
                too_old_s=self._too_old_s,
                too_old_for_s=self._clock() - self._too_old_since_s if self._too_old_s else 0.0,
                failed=self._failed,
                last_error=self._last_error,
                latency_ms=np.array(self._latency_ms),
                inference_ms=np.array(self._inference_ms),
                waiting_ms=np.array(self._waiting_ms),
                publishing_ms=np.array(self._publishing_ms),
                age_ms=np.array(self._age_ms),
            )
