"""A thread that computes what others ask it to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class TaskThread:
    """Runs what is given to it one after the other, in the order of arrival, in a thread of its own.

    Those who share a network take turns by it: one that asks again while others wait goes behind them, so no camera is
    passed over, however fast another one sends.

    It also keeps the model fast where only one asks. OpenMP keeps a team of threads for every thread that ever
    computed, loading a network included. As soon as all teams together have more members than there are cores, it stops
    waiting actively between the pieces of a computation, and a step took half as long again on two cores.

    A daemon thread, unlike those of an executor: a device that hangs does not keep the process from ending.
    """

    def __init__(self, name: str = "sam2_model") -> None:
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Let it be run when its turn comes; cancelling the future in time withdraws it."""
        answer: Future[T] = Future()
        self._tasks.put((task, answer))
        return answer

    def run(self, task: Callable[[], T]) -> T:
        """Wait for its turn, run it, and return what it returns or raise what it raises. Not from within a task."""
        return self.submit(task).result()

    def close(self) -> None:
        """End the thread after what it was given so far. Nothing may be given to it any more."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (given := self._tasks.get()) is not None:
            task, answer = given
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(task())
                except BaseException as error:  # whoever waits is told
                    answer.set_exception(error)
            del given, task, answer  # or their images and networks would live until the next one
