"""What rclpy lacks: errors of transitions in the log, answers to invalid ones, the release of destroyed nodes, and the
records of Python's logging, which all code without ROS uses, in the node's log."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

PACKAGE_LOGGER = "sam2_ros"

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def logs_exceptions(transition: Transition) -> Transition:
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


def reject_invalid_transitions(node: LifecycleNode) -> None:
    """Answer a transition that the node's state does not have with ``success: false``.

    rclpy raises out of the service's callback instead, and with it out of the executor: a lifecycle manager that asks
    to configure a node that has configured itself would end the process, and all cameras in it.
    """
    service = node._service_change_state
    change_state = service.callback

    def answer(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError:
            if not node.context.ok():
                raise  # the middleware has gone: no question of states
            wanted = request.transition.label or f"number {request.transition.id}"
            state = node._state_machine.current_state[1]
            node.get_logger().warning(f"transition {wanted} rejected: there is none from state {state!r}")
            response.success = False
            return response

    service.callback = answer


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
