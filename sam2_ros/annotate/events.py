"""What happens in a project, as one ordered stream to every open page."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_MAX_WAITING = 2000  # messages of a page that does not read; then it is cut off, and loads everything again
_KEEP_ALIVE_S = 15.0


@dataclass(frozen=True)
class _Subscriber:
    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[str | None]  # None: the stream ends

    def put(self, message: str | None) -> None:
        if self.queue.qsize() >= _MAX_WAITING:
            message = None
        self.queue.put_nowait(message)


class EventStream:
    """Server-sent events. ``publish`` may be called from any thread; the order is the same for every page."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._subscribers: list[_Subscriber] = []
        self._revision = 0
        self._is_closed = False

    @property
    def revision(self) -> int:
        """Number of messages so far."""
        return self._revision

    def publish(self, topic: str, values: dict[str, Any]) -> None:
        """Send values to all, with ``revision``: the number of this message."""
        with self._mutex:
            self._revision += 1
            text = json.dumps({**values, "revision": self._revision}, separators=(",", ":"))
            message = f"event: {topic}\ndata: {text}\n\n"
            for subscriber in self._subscribers:
                subscriber.loop.call_soon_threadsafe(subscriber.put, message)

    def close(self) -> None:
        """End all streams: a server that shuts down waits for them."""
        with self._mutex:
            self._is_closed = True
            for subscriber in self._subscribers:
                subscriber.loop.call_soon_threadsafe(subscriber.put, None)

    async def listen(self) -> AsyncIterator[str]:
        """The messages from now on, as the text of an event stream, with a comment now and then that keeps it open."""
        subscriber = _Subscriber(asyncio.get_running_loop(), asyncio.Queue())
        with self._mutex:
            if self._is_closed:
                return
            self._subscribers.append(subscriber)
        try:
            yield ": hello\n\n"
            while True:
                try:
                    message = await asyncio.wait_for(subscriber.queue.get(), _KEEP_ALIVE_S)
                except asyncio.TimeoutError:
                    message = ": still here\n\n"
                if message is None:
                    return
                yield message
        finally:
            with self._mutex:
                self._subscribers.remove(subscriber)
