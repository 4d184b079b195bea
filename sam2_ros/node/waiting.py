"""How a service waits for the model or a disk: with a limit, and without blocking the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import rclpy.task
from rclpy.node import Node

T = TypeVar("T")
FILE_TIMEOUT_S = 60.0  # reading or writing a session
MAX_FILE_ACCESSES = 4  # at once, including those that a disk never answers
BEGUN_TIMEOUT_S = 60.0  # for a command that has begun and can no longer be withdrawn


class NoAnswerError(RuntimeError):
    """The request was not carried out; the message goes to the caller."""


class Waiting:
    """Coroutines that wait for futures of other threads; the node's executor runs other callbacks meanwhile.

    Args:
        node: in whose executor the coroutines run.
        timeout_s: ``service_timeout_s`` now.
    """

    def __init__(self, node: Node, timeout_s: Callable[[], float]) -> None:
        self._node = node
        self._timeout_s = timeout_s
        self._file_accesses: list[Future[Any]] = []  # still running

    async def until(self, future: Future[T], limit_s: float) -> T | None:
        """The future's result, or None when it did not come in time (it is cancelled then). Raises what it raises."""
        await self._done_within(future, limit_s)
        if not future.done():
            if future.cancel():
                return None
            await self._done_within(future, BEGUN_TIMEOUT_S)
        if not future.done():
            raise NoAnswerError(f"begun and not finished within {BEGUN_TIMEOUT_S:g} s: whether it will be is not known")
        return future.result()

    async def _done_within(self, future: Future[Any], limit_s: float) -> None:
        await done_within(self._node, future, limit_s)

    async def until_freed(self, future: Future[T]) -> T:
        """The answer of a command that relieves the model: it is never withdrawn, however late it is."""
        limit_s = max(self._timeout_s(), BEGUN_TIMEOUT_S)
        await self._done_within(future, limit_s)
        if not future.done():
            raise NoAnswerError(
                f"the model has been busy for {limit_s:g} s; it will be done as soon as the model is free"
            )
        return future.result()

    async def file_access(self, run: Callable[[], T], path: Path) -> T:
        """The result of ``run`` on another thread; NoAnswerError if the disk takes longer than ``FILE_TIMEOUT_S``."""
        self._file_accesses = [each for each in self._file_accesses if not each.done()]
        if len(self._file_accesses) >= MAX_FILE_ACCESSES:
            raise NoAnswerError(f"{path}: {len(self._file_accesses)} files are being read or written: ask again later")
        future = in_thread(run)
        self._file_accesses.append(future)
        await self._done_within(future, FILE_TIMEOUT_S)
        if not future.done():
            raise NoAnswerError(f"{path}: not done within {FILE_TIMEOUT_S:g} s; a file may still be written later")
        return future.result()


async def done_within(node: Node, future: Future[Any], limit_s: float) -> None:
    """Return when the future is done, or after the limit; the node's executor runs other callbacks meanwhile."""
    executor = node.executor
    woken = rclpy.task.Future(executor=executor)

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)
            executor.wake()  # an awaiting task is resumed only when the executor spins

    timer = threading.Timer(max(limit_s, 0.0), wake)
    timer.daemon = True
    timer.start()
    future.add_done_callback(wake)
    await woken
    timer.cancel()


def in_thread(run: Callable[[], T]) -> Future[T]:
    """Run something slow on a thread of its own, so that neither executor nor model waits for it."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            future.set_result(run())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, name="sam2_file", daemon=True).start()
    return future
