"""Threads for the model: one that serves requests in turn, and one that prefetches images beside the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam2_ros.tracking.state import PrefetchedImage
    from sam2_ros.tracking.tracker import Tracker

T = TypeVar("T")


class TaskThread:
    """Runs tasks one after the other, in order of arrival, in a thread of its own.

    Cameras that share a network take turns through it: a new task queues behind the waiting ones, so no camera starves,
    however fast another one sends.

    It also keeps the model fast for a single camera. OpenMP keeps a team of threads for every thread that ever
    computed, loading a network included. Once all teams together have more members than there are cores, OpenMP stops
    waiting actively between the parts of a computation, and a step took half as long again on two cores.

    A daemon thread, unlike those of an executor: a device that hangs does not keep the process from ending.
    """

    def __init__(self, name: str = "sam2_model") -> None:
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Queue a task; cancelling the future before the task runs withdraws it."""
        answer: Future[T] = Future()
        self._tasks.put((task, answer))
        return answer

    def close(self) -> None:
        """End the thread after the tasks queued so far. No task may be queued afterwards."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (given := self._tasks.get()) is not None:
            task, answer = given
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(task())
                except BaseException as error:  # belongs to the caller that waits
                    answer.set_exception(error)
            del given, task, answer  # else their images and networks would live until the next task


class SideThread:
    """A second thread that computes beside the caller's, each with half of PyTorch's threads.

    For two computations that are too small to keep all cores busy one after the other: a small one waits more for its
    own threads than it computes, which costs a third of nano's step on two cores.
    """

    def __init__(self) -> None:
        self._thread: TaskThread | None = None

    @contextmanager
    def running(self, task: Callable[[], T]) -> Iterator[Future[T]]:
        """Run ``task`` beside the body of the ``with`` statement and wait for it at the end.

        The caller keeps the other half of PyTorch's threads, at least one, and gets all of them back afterwards.

        Yields:
            The future of the task, which holds its result or its exception.
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
        """End the thread until the next task, and with it its OpenMP team, see ``TaskThread``."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None


def _with_threads(count: int, task: Callable[[], T]) -> T:
    torch.set_num_threads(count)
    return task()


def prefetch_images(tracker: Tracker, images: Iterable[NDArray[np.uint8]]) -> Iterator[PrefetchedImage]:
    """Images for ``tracker.step``, each read and encoded while the caller works on the one before it.

    Args:
        tracker: whose network encodes.
        images: (H, W, 3) uint8, RGB; read from another thread, one ahead. An exception is raised at its image's turn.
    """
    source, side = iter(images), SideThread()

    def read_next() -> PrefetchedImage | None:
        image_rgb = next(source, None)
        return None if image_rgb is None else tracker.prefetch(image_rgb)

    try:
        image = read_next()
        while image is not None:
            tracker.follow_load()
            with side.running(read_next) as following:
                yield image
            image = following.result()
    finally:
        side.rest()
