"""While the model is at work on one image, the next one is encoded. ROS-free."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.objects import TrackerLike
from sam2_ros.session.work_queue import Arrival, Mailbox

if TYPE_CHECKING:
    from sam2_ros.tracking.heads import AheadImage
    from sam2_ros.tracking.side_thread import SideThread


class EncodeAhead:
    """One image ahead at most. Used where the model runs.

    Not while the model keeps up with the camera: then the next image is not there yet, and this one would have to do
    with half of the threads for nothing. Where several cameras share the model, it is the other cameras' images that
    fill the time, and hardly any is encoded ahead.
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
        self._side: SideThread | None = None
        self._ended_s = -float("inf")  # when the work on the image before was done
        self._made: Future[tuple[Arrival, AheadImage] | None] | None = None

    def take(self, image: Arrival | None) -> AheadImage | None:
        """What was made of the image whose turn it is; None if nothing was, or it failed: its turn will tell why."""
        made, self._made = self._made, None
        if made is None or made.exception() is not None:
            return None
        arrival, ahead = made.result() or (None, None)
        return ahead if arrival is image else None

    @contextmanager
    def beside(self, image: Arrival, ahead: AheadImage | None, *, wanted: bool) -> Iterator[None]:
        """Around the work on an image, of which ``ahead`` was made. Without effect unless the model is behind."""
        try:
            # That an image which was claimed had to wait says nothing: that another one waits behind it does.
            is_behind = image.arrival_s <= self._ended_s if ahead is None else self._mailbox.has_image
            if wanted and is_behind and self._tracker.object_ids:
                with self._encoding_next():
                    yield
            else:
                self._rest()
                yield
        finally:
            self._ended_s = self._now_s()

    @contextmanager
    def _encoding_next(self) -> Iterator[None]:
        if self._side is None:
            from sam2_ros.tracking.side_thread import SideThread

            self._side = SideThread()
        over = threading.Event()
        with self._side.running(lambda: self._encode(self._mailbox.claim(over))) as self._made:
            try:
                yield
            finally:
                over.set()
                self._mailbox.wake()

    def _encode(self, arrival: Arrival | None) -> tuple[Arrival, AheadImage] | None:
        return None if arrival is None else (arrival, self._tracker.encode_ahead(self._decode(arrival.message)))

    def _rest(self) -> None:
        if self._side is not None:
            self._side.rest()

    def close(self) -> None:
        """For good. When the worker has ended."""
        self._made = None
        self._rest()
