"""A second thread that computes beside the caller's, each with its share of PyTorch's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from sam2_ros.tracking.concurrency import TaskThread

T = TypeVar("T")


class SideThread:
    """Lets two computations run side by side that are too small to keep all cores busy one after the other.

    What is small waits more for its own threads than it computes: of nano's step on two cores a third is lost to that.
    """

    def __init__(self) -> None:
        self._thread: TaskThread | None = None

    @contextmanager
    def running(self, task: Callable[[], T]) -> Iterator[Future[T]]:
        """Run ``task`` while the caller goes on, and wait for it at the end; what it raises is in the future.

        The caller has the other half of the threads that PyTorch had, at least one, and all of them again afterwards.
        """
        if self._thread is None:
            self._thread = TaskThread("sam2_side")
        threads = torch.get_num_threads()
        share = max(threads // 2, 1)
        future = self._thread.submit(lambda: _with_threads(share, task))
        torch.set_num_threads(max(threads - share, 1))
        try:
            yield future
        finally:
            wait([future])
            torch.set_num_threads(threads)

    def rest(self) -> None:
        """End the thread until the next task: as long as it is there, so is its team, see ``TaskThread``."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None


def _with_threads(count: int, task: Callable[[], T]) -> T:
    torch.set_num_threads(count)
    return task()
