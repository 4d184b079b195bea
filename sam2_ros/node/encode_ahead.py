"""While the model is at work on one image, the next one is encoded. ROS-free."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.node.mailbox import Arrival, Mailbox
from sam2_ros.node.object_book import TrackerLike

if TYPE_CHECKING:
    from sam2_ros.tracking.heads import AheadImage
    from sam2_ros.tracking.side_thread import SideThread


class EncodeAhead:
    """One image ahead at most. Called by the model's thread only.

    Not while the model keeps up with the camera: then the next image is not there yet, and this one would have to do
    with half of the threads for nothing.
    """

    def __init__(
        self,
        tracker: TrackerLike,
        decode: Callable[[Any], NDArray[np.uint8]],
        mailbox: Mailbox,
        now_s: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._decode = decode
        self._mailbox = mailbox
        self._now_s = now_s
        self._thread: SideThread | None = None
        self._ended_s = -float("inf")  # when the work on the image before was done
        self._made: Future[tuple[Arrival, AheadImage] | None] | None = None

    @contextmanager
    def beside(self, image: Arrival, *, wanted: bool) -> Iterator[None]:
        """Around the work on an image. Has no effect unless it had to wait for the model, and something is tracked."""
        try:
            if not wanted or image.arrival_s > self._ended_s or not self._tracker.object_ids:
                yield
                return
            over = threading.Event()
            with self._side_thread().running(lambda: self._encode_next(over)) as self._made:
                try:
                    yield
                finally:
                    over.set()
                    self._mailbox.wake()
        finally:
            self._ended_s = self._now_s()

    def _side_thread(self) -> SideThread:
        if self._thread is None:
            from sam2_ros.tracking.side_thread import SideThread

            self._thread = SideThread()
        return self._thread

    def _encode_next(self, over: threading.Event) -> tuple[Arrival, AheadImage] | None:
        arrival = self._mailbox.claim(over)
        return None if arrival is None else (arrival, self._tracker.encode_ahead(self._decode(arrival.message)))

    def take(self, image: Arrival) -> AheadImage | None:
        """What was made of this image; None if nothing was, and where it failed: its own turn will tell why."""
        made, self._made = self._made, None
        if made is None or made.exception() is not None:
            return None
        arrival, ahead = made.result() or (None, None)
        return ahead if arrival is image else None

    def close(self) -> None:
        self._made = None
        if self._thread is not None:
            self._thread.close()
