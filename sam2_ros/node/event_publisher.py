"""``~/events``: latched, so that who comes late still hears of the last ones. Published on the executor."""

from __future__ import annotations

from collections import deque
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from sam2_ros.msg import TrackEvent
from sam2_ros.session.events import Event, EventType

QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=50,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DELIVERY_S = 0.2  # that a RESET has to reach its subscribers before the latch is emptied


class EventPublisher:
    """Takes events on any thread; the executor publishes them, in order.

    A plain publisher, not a lifecycle one: services work and say what they did while the node is inactive, too.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: deque[Event] = deque()
        self._publisher = self._make_publisher()
        self._wake = node.create_guard_condition(self._publish_waiting)

    def _make_publisher(self) -> Any:
        return self._node.create_publisher(TrackEvent, "~/events", QOS)

    def topic_name(self) -> str:
        return str(self._publisher.topic_name)

    def put(self, event: Event) -> None:
        self._waiting.append(event)
        try:
            self._wake.trigger()
        except Exception:
            if self._node.context.ok():
                raise
            # Ctrl-C has taken the middleware away: nobody is there to hear of it.

    def _publish_waiting(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            self._publisher.publish(event_to_message(event))
            if event.type is EventType.RESET:
                # The middleware forgets what is latched with its publisher, and only so.
                self._publisher.wait_for_all_acked(Duration(seconds=DELIVERY_S))
                self._node.destroy_publisher(self._publisher)
                self._publisher = self._make_publisher()

    def destroy(self) -> None:
        """Publish what waits and end."""
        if self._node.context.ok():
            self._publish_waiting()
        self._node.destroy_guard_condition(self._wake)
        self._node.destroy_publisher(self._publisher)


def event_to_message(event: Event) -> TrackEvent:
    return TrackEvent(
        header=event.header if isinstance(event.header, Header) else Header(),
        object_id=event.object_id,
        label=event.label,
        type=int(event.type),
        message=event.message,
    )
