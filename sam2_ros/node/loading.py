"""The node's model: loaded and warmed up on the model thread, which nobody waits for unless asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from sam2_ros.node.waiting import done_within
from sam2_ros.session.model_loading import describe_model, warm_up
from sam2_ros.session.objects import TrackerLike
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.concurrency import TaskThread

SIGNALS_SEEN_EVERY_S = 0.2
LOOK_AGAIN_S = 30.0


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
