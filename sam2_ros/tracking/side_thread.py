"""A second thread that computes beside the caller's, each with its share of PyTorch's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class SideThread:
    """Lets two computations run side by side that are too small to keep all cores busy one after the other.

    What is small waits more for its own threads than it computes: of nano's step on two cores a third is lost to that.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "sam2_side")  # which starts its thread with the first task

    @contextmanager
    def running(self, task: Callable[[], T]) -> Iterator[Future[T]]:
        """Run ``task`` while the caller goes on, and wait for it at the end; what it raises is in the future.

        The caller has the other half of the threads that PyTorch had, at least one, and all of them again afterwards.
        """
        threads = torch.get_num_threads()
        share = max(threads // 2, 1)
        future = self._executor.submit(_with_threads, share, task)
        torch.set_num_threads(max(threads - share, 1))
        try:
            yield future
        finally:
            wait([future])
            torch.set_num_threads(threads)

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(wait=False)


def _with_threads(count: int, task: Callable[[], T]) -> T:
    torch.set_num_threads(count)
    return task()
