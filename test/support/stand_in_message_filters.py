"""A stand-in for message_filters, which has no wheel: the classes, signatures and habits that its Python part has.

Two habits matter to a caller: a full queue drops its lowest stamp, whatever came last, and the lock is not given back
when a callback raises.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from rclpy.time import Time


class SimpleFilter:
    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        self.callbacks[len(self.callbacks)] = (cb, args)
        return len(self.callbacks) - 1

    def signalMessage(self, *msg: Any) -> None:
        for callback, args in list(self.callbacks.values()):
            callback(*msg, *args)


class ApproximateTimeSynchronizer(SimpleFilter):
    def __init__(self, fs: list[SimpleFilter], queue_size: int, slop: float, allow_headerless: bool = False) -> None:
        super().__init__()
        self.queue_size, self.slop_ns = queue_size, slop * 1e9
        self.lock = threading.Lock()
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        for place, each in enumerate(fs):
            each.registerCallback(self.add, self.queues[place], place)

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int) -> None:
        assert self.lock.acquire(timeout=1.0), "an earlier callback raised: the lock is taken for ever"
        stamp_ns = Time.from_msg(msg.header.stamp).nanoseconds
        my_queue[stamp_ns] = msg
        if len(my_queue) > self.queue_size:
            del my_queue[min(my_queue)]
        near = [sorted(queue, key=lambda ns: abs(ns - stamp_ns)) for queue in self.queues]
        near[my_queue_index] = [stamp_ns] if stamp_ns in my_queue else []
        for stamps in itertools.product(*near):
            if max(stamps) - min(stamps) < self.slop_ns:
                self.signalMessage(*(queue[ns] for queue, ns in zip(self.queues, stamps, strict=True)))
                for queue, ns in zip(self.queues, stamps, strict=True):
                    del queue[ns]
                break
        self.lock.release()
