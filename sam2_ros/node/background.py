"""What takes long, off the executor's thread: the model is loaded, files are read, and coroutines wait for both.

A wait has a limit, and the executor runs other callbacks meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import rclpy.task
from rclpy.node import Node

from sam2_ros.session.model_loading import describe_model, warm_up
from sam2_ros.session.objects import TrackerLike
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.concurrency import TaskThread

T = TypeVar("T")
FILE_TIMEOUT_S = 60.0  # reading or writing a session
MAX_FILE_ACCESSES = 4  # at once, including those that a disk never answers
BEGUN_TIMEOUT_S = 60.0  # for a command that has begun and can no longer be withdrawn
SIGNALS_SEEN_EVERY_S = 0.2
LOOK_AGAIN_S = 30.0


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
        await done_within(self._node, future, limit_s)
        if not future.done():
            if future.cancel():
                return None
            await done_within(self._node, future, BEGUN_TIMEOUT_S)
        if not future.done():
            raise NoAnswerError(f"begun and not finished within {BEGUN_TIMEOUT_S:g} s: whether it will be is not known")
        return future.result()

    async def until_freed(self, future: Future[T]) -> T:
        """The answer of a command that relieves the model: it is never withdrawn, however late it is."""
        limit_s = max(self._timeout_s(), BEGUN_TIMEOUT_S)
        await done_within(self._node, future, limit_s)
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
        await done_within(self._node, future, FILE_TIMEOUT_S)
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


@dataclass(frozen=True)
class LoadedModel:
    """A tracker that is ready for its first image, with the parameters that it was made from."""

    parameters: NodeParameters
    tracker: TrackerLike
    warm_up_s: float


class ModelLoader:
    """Loads one model at a time.

    Args:
        node: logs; the end of its context ends a wait.
        make: makes a tracker of parameters; whatever it raises is raised to who takes the model.
        thread: the model thread.
    """

    def __init__(self, node: Node, make: Callable[[NodeParameters], TrackerLike], thread: TaskThread) -> None:
        self._node = node
        self._make = make
        self.thread = thread
        self._loading: Future[LoadedModel] | None = None

    @property
    def is_loading(self) -> bool:
        return self._loading is not None and not self._loading.done()

    def begin(self, parameters: NodeParameters) -> Future[LoadedModel]:
        """Begin to load, unless that has been done; the future is for waiting, ``take`` for the model."""
        if self._loading is None:
            compiling = ", then compiling it, which takes minutes" if parameters.compile else ""
            wanted = describe_model(parameters)
            self._node.get_logger().info(f"loading {wanted} for device {parameters.device}{compiling} ...")
            self._loading = self.thread.submit(lambda: self._load(parameters))
        return self._loading

    async def load(self, parameters: NodeParameters) -> None:
        """``begin``, and return when the model is there or cannot be; the executor runs other callbacks meanwhile."""
        loading = self.begin(parameters)
        while not loading.done():
            await done_within(self._node, loading, LOOK_AGAIN_S)

    def _load(self, parameters: NodeParameters) -> LoadedModel:
        tracker = self._make(parameters)
        return LoadedModel(parameters, tracker, warm_up(tracker))

    def take(self, parameters: NodeParameters) -> LoadedModel:
        """The model, which is loaded now if ``begin`` was not called. Ctrl-C ends the wait: loading may hang.

        Raises:
            InterruptedError: the context has ended.
        """
        loading = self.begin(parameters)
        while not wait((loading,), SIGNALS_SEEN_EVERY_S).done:
            if not self._node.context.ok():
                raise InterruptedError("the process is to end")
        self._loading = None
        return loading.result()

    def leave_thread(self) -> None:
        """The thread hangs in the model: use another one from now on."""
        self.thread = TaskThread()
        self._loading = None


async def start(nodes: Sequence[Any]) -> None:
    """Configure all nodes that start by themselves, then activate them: none is subscribed while another one loads."""
    configured = [node for node in nodes if node.starts_by_itself and await node.configure()]
    for node in configured:
        if node.context.ok():
            node.trigger_activate()
