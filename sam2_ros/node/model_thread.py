"""The one thread of a process that computes. ROS-free."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ModelThread:
    """Runs what is given to it one after the other, in the order of arrival, in a thread of its own.

    Workers that share a network take turns by it: one that asks again while others wait goes behind them, so no camera
    is passed over, however fast another one sends.

    It also keeps the model fast where there is one worker only. OpenMP keeps a team of threads for every thread that
    ever computed, loading a network included. As soon as all teams together have more members than there are cores, it
    stops waiting actively between the pieces of a computation, and a step took half as long again on two cores.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sam2_model")

    def run(self, task: Callable[[], T]) -> T:
        """Wait for its turn, run it, and return what it returns or raise what it raises. Not from within a task."""
        return self._executor.submit(task).result()
