"""A running session without ROS, and somebody who shows it images and prompts it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from sam2_ros.session.events import Event
from sam2_ros.session.objects import PromptRequest, TrackingView
from sam2_ros.session.parameters import parse
from sam2_ros.session.session import Session
from sam2_ros.tracking.concurrency import TaskThread

DEADLINE_S = 20.0
SECOND = 1_000_000_000


def click(object_id: str = "", x: float = 4, y: float = 3, **fields: Any) -> PromptRequest:
    return PromptRequest(
        object_id=object_id,
        points_xy=np.array([[x, y]], dtype=np.float32),
        point_labels=np.array([1], dtype=np.int32),
        **fields,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:.0f} s"
        time.sleep(0.001)


class SessionRig:
    """A running session whose published views can be waited for."""

    def __init__(self, tracker: Any, model_thread: TaskThread | None = None, **values: object) -> None:
        """``values``: of parameters. ``publish_gate`` holds the publishing thread until it is set."""
        self.tracker = tracker
        self.now_ns = 0  # the node's clock; 0: it shows the stamp of the latest image
        self._latest_ns = 0
        self.passed_s = 0.0  # beside what really passes
        self.events: list[Event] = []
        self.published: list[TrackingView] = []
        self.publish_error: BaseException | None = None
        self.publish_gate = threading.Event()
        self.publish_gate.set()
        self.publishing = threading.Event()
        self.rejected = threading.Event()  # an image could not be read
        self._changed = threading.Condition()
        parameters = parse(values)
        self.session = Session(
            tracker,
            decode=self._decode,
            publish=self._publish,
            notify=self.events.append,
            parameters=lambda: parameters,
            model_thread=model_thread,
            now_ns=lambda: self.now_ns or self._latest_ns,
            clock=lambda: time.monotonic() + self.passed_s,
        )
        self.session.start()

    def _decode(self, message: Any) -> np.ndarray:
        if message.pixels is None:
            self.rejected.set()
            raise ValueError("encoding 'yuv' is not supported")
        return message.pixels

    def _publish(self, view: TrackingView) -> None:
        self.publishing.set()
        assert self.publish_gate.wait(DEADLINE_S), "the test never opened the gate"
        if self.publish_error is not None:
            error, self.publish_error = self.publish_error, None
            raise error
        with self._changed:
            self.published.append(view)
            self._changed.notify_all()

    def offer(self, value: int = 0, *, stamp_s: float = 1.0, readable: bool = True) -> None:
        """An image all of this value, 8 x 10 px."""
        pixels = np.full((8, 10, 3), value, dtype=np.uint8) if readable else None
        self.offer_pixels(pixels, f"header {value}", stamp_s)

    def offer_pixels(self, pixels: np.ndarray | None, header: str = "", stamp_s: float = 1.0) -> None:
        self._latest_ns = round(stamp_s * SECOND)
        self.session.offer(SimpleNamespace(header=header, pixels=pixels), self._latest_ns)

    def show(self, pixels: np.ndarray, stamp_s: float) -> TrackingView:
        """Offer an image and wait for its result."""
        self.offer_pixels(pixels, stamp_s=stamp_s)
        return self.wait_for(len(self.published) + 1)

    def wait_for(self, count: int) -> TrackingView:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.published) >= count, DEADLINE_S), "no result was published"
            return self.published[count - 1]

    def settle(self) -> None:
        """Wait until the session is done with the image that was offered last, its result published."""
        for _ in range(2):  # the first may be carried out together with the image, and before it
            self.session.set_enabled(True).result(DEADLINE_S)
        wait_until(lambda: not self.session.waiting_ns)

    def prompt(self, *requests: PromptRequest) -> Any:
        return self.session.prompt(requests).outcomes.result(DEADLINE_S)

    def close(self) -> None:
        assert self.session.stop(DEADLINE_S)
