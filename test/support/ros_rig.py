"""A ``Sam2Node`` with a peer in a context of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fake_tracker import DEADLINE_S, FakeTracker


class RosRig:
    """A ``Sam2Node`` with a fake tracker, and a peer that uses it, on one executor in a context of their own.

    Nothing runs between calls: ``spin_until`` turns the executor in the test's own thread.
    """

    def __init__(
        self,
        domain: int,
        tracker: FakeTracker,
        overrides: dict[str, Any] | None = None,
        cli_args: list[str] | None = None,
    ) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter

        from sam2_ros.node.sam2_node import Sam2Node

        self.tracker = tracker
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        parameters = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        self.node = Sam2Node(
            tracker_factory=self._make_tracker,
            context=self.context,
            parameter_overrides=parameters,
            cli_args=cli_args,
        )
        self.peer = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        self.factory_error: Exception | None = None
        self._clients: dict[str, Any] = {}

    def _make_tracker(self, parameters: Any) -> FakeTracker:
        if self.factory_error is not None:
            raise self.factory_error
        return self.tracker

    def start(self) -> None:
        from sam2_ros.node import sam2_node

        started = self.executor.create_task(sam2_node.start, [self.node])
        self.spin_until(started.done, "the node is started")
        self.tracker.calls.clear()  # those of the warm-up
        self.tracker.in_step.clear()

    def spin_until(self, condition: Callable[[], bool], why: str) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"not within {DEADLINE_S:.0f} s: {why}"
            self.executor.spin_once(timeout_sec=0.05)

    def call_async(self, kind: Any, name: str, **fields: Any) -> Any:
        """Start a call of one of the node's services, e.g. ``Clear, "clear"``."""
        if name not in self._clients:
            from sam2_ros.node.conversions import SERVICE_QOS

            # As deep as the service's: who sends many requests through one client must hold as many answers.
            self._clients[name] = self.peer.create_client(kind, f"sam2_node/{name}", qos_profile=SERVICE_QOS)
            self.spin_until(self._clients[name].service_is_ready, f"service {name} is there")
        return self._clients[name].call_async(kind.Request(**fields))

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        future = self.call_async(kind, name, **fields)
        self.spin_until(future.done, f"{name} answers")
        return future.result()

    def publisher(self, kind: Any, topic: str, qos: Any = 10) -> Any:
        """A publisher of the peer, once the node has seen it."""
        publisher = self.peer.create_publisher(kind, topic, qos)
        self.spin_until(lambda: publisher.get_subscription_count() > 0, f"the node subscribes to {topic}")
        return publisher

    def collect(self, kind: Any, topic: str, qos: Any = 10) -> list[Any]:
        """A list that fills with what the node publishes on ``sam2_node/<topic>``."""
        received: list[Any] = []
        subscription = self.peer.create_subscription(kind, f"sam2_node/{topic}", received.append, qos)
        self.spin_until(lambda: self.peer.count_publishers(subscription.topic_name) > 0, f"{topic} is published")
        return received

    def close(self) -> None:
        self.tracker.gate.set()
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()
        self.context.try_shutdown()
