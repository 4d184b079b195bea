"""``~/change_state`` as a service that always answers."""

from __future__ import annotations

from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode


def refuse_impossible_transitions(node: LifecycleNode) -> None:
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
            node.get_logger().warning(f"transition {wanted} refused: there is none from state {state!r}")
            response.success = False
            return response

    service.callback = answer
