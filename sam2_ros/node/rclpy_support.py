"""What rclpy lacks: errors of transitions in the log, answers to invalid ones, the release of destroyed nodes, and the
records of Python's logging, which all code without ROS uses, in the node's log."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

PACKAGE_LOGGER = "sam2_ros"
MODEL_IS_LOADING = "not configured: the model is being loaded; ask again later"  # what services answer meanwhile

TransitionCallback = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def logs_exceptions(transition: TransitionCallback) -> TransitionCallback:
    """Log what a transition raises: rclpy catches the exception and enters the ERROR state without logging it."""

    @functools.wraps(transition)
    def logged(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.get_logger().error(f"{transition.__name__} failed, a bug:\n{traceback.format_exc()}")
            node.trouble = f"not configured: {transition.__name__} failed: {type(error).__name__}: {error}"
            return TransitionCallbackReturn.ERROR

    return logged


CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
SHUTDOWNS = {
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "unconfigured",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "inactive",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "active",
}
SLOW = {CONFIGURE: "unconfigured", CLEANUP: "inactive", **SHUTDOWNS}  # and the states that they begin in


class TransitionServer:
    """Answers ``~/change_state`` without holding the executor up, and invalid requests with ``success: false``.

    rclpy carries a transition out within the service's callback: no topic, service or other camera of the process is
    served while a model loads or hangs. Here ``prepare`` does the slow part beforehand, with the executor running.

    rclpy also raises out of the callback for a transition that the node's state does not have, and with it out of the
    executor: a lifecycle manager that asks to configure a node that has configured itself would end the process.

    Args:
        node: whose service it is.
        prepare: a coroutine that gets the number of one of the ``SLOW`` transitions.
    """

    def __init__(self, node: LifecycleNode, prepare: Callable[[int], Awaitable[None]]) -> None:
        self._node = node
        self._prepare = prepare
        self._pending = ""  # the transition that is being prepared
        service = node._service_change_state
        self._change_state = service.callback
        service.callback = self._answer
        # Else the coroutine would hold up all other callbacks of the node's default group.
        service.callback_group = ReentrantCallbackGroup()
        service.callback_group.add_entity(service)

    @property
    def is_pending(self) -> bool:
        """Whether a transition has been asked for and is not carried out yet: its slow part may be over already."""
        return bool(self._pending)

    async def _answer(self, request: Any, response: Any) -> Any:
        wanted = request.transition.label or f"number {request.transition.id}"
        try:
            number = self._number(request.transition)
            if self._pending and number not in SHUTDOWNS:
                return self._reject(response, f"{wanted} rejected: {self._pending} is not finished yet")
            if number in SLOW and SLOW[number] == self._state():
                self._pending = wanted
                try:
                    await self._prepare(number)
                finally:
                    self._pending = ""
            return self._change_state(request, response)
        except rclpy_implementation.RCLError:
            if not self._node.context.ok():
                raise  # the middleware has gone: no question of states
            return self._reject(response, f"{wanted} rejected: there is none from state {self._state()!r}")

    def _reject(self, response: Any, why: str) -> Any:
        self._node.get_logger().warning(f"transition {why}")
        response.success = False
        return response

    def _state(self) -> str:
        return str(self._node._state_machine.current_state[1])

    def _number(self, transition: Transition) -> int:
        """Its number, by its label where it has one. RCLError when the node's state has no such transition."""
        if transition.label:
            return int(self._node._state_machine.get_transition_by_label(transition.label))
        return int(transition.id)

    async def configure(self) -> TransitionCallbackReturn:
        """Configure the node as the service would."""
        self._pending = "configure"
        try:
            await self._prepare(CONFIGURE)
        finally:
            self._pending = ""
        return self._node.trigger_configure()


def break_reference_cycle(node: LifecycleNode) -> None:
    """Let a destroyed node go: rclpy's state machine references it, so that other nodes would see it until Python's
    garbage collection."""
    kept = [name for name in vars(node) if name == "_state_machine" or name.startswith("_service_")]
    node.__dict__.update(dict.fromkeys(kept))


class RosLogHandler(logging.Handler):
    """Forwards records to an rclpy logger. ``install`` and ``remove`` belong together.

    Of several nodes in a process the first one speaks for the core.
    """

    def __init__(self, ros_logger: Any) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(message)s"))  # the traceback, if any, follows the message
        self._ros_logger = ros_logger
        self._level_before = logging.NOTSET

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy wants one line of code per severity: it rejects a severity that changes at the same call site.
        if record.levelno >= logging.CRITICAL:
            self._ros_logger.fatal(text)
        elif record.levelno >= logging.ERROR:
            self._ros_logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(text)
        else:
            self._ros_logger.info(text)

    def install(self) -> None:
        package = logging.getLogger(PACKAGE_LOGGER)
        if any(isinstance(handler, RosLogHandler) for handler in package.handlers):
            return
        self._level_before = package.level
        package.setLevel(logging.INFO)
        package.addHandler(self)

    def remove(self) -> None:
        package = logging.getLogger(PACKAGE_LOGGER)
        if self not in package.handlers:
            return
        package.removeHandler(self)
        package.setLevel(self._level_before)
