"""Conflicts in the ROS graph: other nodes of this node's name, second publishers of its inputs, and other types."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.lifecycle import LifecycleNode


class NameWatch:
    """Looks for other nodes of the domain that have this node's full name, and says so in the log once."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._said = 0

    def count(self) -> int:
        """How many others there are."""
        known = self._node.get_node_names_and_namespaces()
        return max(known.count((self._node.get_name(), self._node.get_namespace())) - 1, 0)

    def look(self) -> str:
        """The consequences of such nodes, and what to do; empty when there are none."""
        count, said = self.count(), self._said
        self._said = count
        if not count:
            return ""
        others = "another node is" if count == 1 else f"{count} other nodes are"
        text = (
            f"{others} called {self._node.get_fully_qualified_name()} in this ROS domain: services answer from either "
            "and outputs come twice. End one, or start it in a namespace of its own (one that was killed is seen for "
            "some seconds more)"
        )
        if count > said:
            self._node.get_logger().warning(text)
        return text


class PublisherWatch:
    """Looks for topics that the node takes images from and that have several publishers, and says so in the log once.

    A publisher counts when it is there at two looks in a row: a driver that is started again is there twice for a
    moment.
    """

    def __init__(self, node: LifecycleNode, topics: Callable[[], Iterable[str]]) -> None:
        self._node = node
        self._topics = topics
        self._before: dict[str, list[str]] = {}
        self._said: dict[str, list[str]] = {}

    def look(self) -> str:
        """Which topics these are, and what to do; empty when there are none."""
        found = {topic: self._publishers(topic) for topic in self._topics()}
        found = {topic: names for topic, names in found.items() if len(names) > 1}
        lasting = {topic: names for topic, names in found.items() if topic in self._before}
        self._before = found
        texts = {
            topic: f"{len(names)} publishers on {topic} ({', '.join(names)}): their images are taken for those of one "
            "camera, one after the other. End one of them, or remap it"
            for topic, names in lasting.items()
        }
        for topic, text in texts.items():
            if self._said.get(topic) != lasting[topic]:
                self._node.get_logger().warning(text)
        self._said = lasting
        return "; ".join(texts.values())

    def _publishers(self, topic: str) -> list[str]:
        if self._node.count_publishers(topic) < 2:  # the usual case is cheap
            return []
        infos = self._node.get_publishers_info_by_topic(topic)
        return sorted(f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos)


class TypeWatch:
    """Looks for inputs that are published with another type alone, and says so in the log once: nothing is received.

    The camera images are left to ``TopicMonitor``, which knows their transports. A publisher counts when it is there at
    two looks in a row, as a graph that is still being discovered tells the type last.

    Args:
        node: whose subscriptions are looked at.
        left_out: topics that are not.
    """

    def __init__(self, node: LifecycleNode, left_out: Callable[[], Iterable[str]]) -> None:
        self._node = node
        self._left_out = left_out
        self._before: dict[str, str] = {}
        self._said: set[str] = set()

    def look(self) -> str:
        """Which topics these are, and what to do; empty when there are none."""
        left_out = set(self._left_out())
        found = {
            each.topic_name: text
            for each in self._node.subscriptions
            if each.topic_name not in left_out and (text := self._mismatch(each))
        }
        lasting = [text for topic, text in found.items() if topic in self._before]
        self._before = found
        for text in lasting:
            if text not in self._said:
                self._node.get_logger().warning(text)
        self._said = set(lasting)
        return "; ".join(lasting)

    def _mismatch(self, subscription: Any) -> str:
        topic = subscription.topic_name
        if not self._node.count_publishers(topic):  # the usual case is cheap
            return ""
        ours = type_name(subscription.msg_type)
        infos = self._node.get_publishers_info_by_topic(topic)
        theirs = sorted({info.topic_type for info in infos})
        if not theirs or ours in theirs:
            return ""
        names = sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos})
        return (
            f"{topic} is published as {', '.join(theirs)} (by {', '.join(names)}) and this node reads {ours}: nothing "
            f"is received. Remap it to a topic of that type (ros2 topic find {ours}), or convert the messages"
        )


def type_name(message_type: type) -> str:
    """As ROS writes it: ``sensor_msgs/msg/Image``."""
    return f"{message_type.__module__.partition('.')[0]}/msg/{message_type.__name__}"


class IdleWatch:
    """Says that images are published while the node waits to be made active, once for each state it waits in.

    The usual reasons are ``autostart: false`` without a lifecycle manager, and a manager that has stopped half way.
    """

    def __init__(self, node: LifecycleNode, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._state, self._since_s, self._said = "", 0.0, False

    def look(self, state: str, topic: str, patience_s: float) -> str:
        """What to do, with the whole command; empty while there is nothing to say, or when it was said.

        Args:
            state: unconfigured, inactive or active.
            topic: of the images.
            patience_s: how long the node may wait without a word.
        """
        now_s = self._clock()
        if state != self._state:
            self._state, self._since_s, self._said = state, now_s, False
        if state == "active" or self._said or now_s - self._since_s < patience_s:
            return ""
        if not self._node.count_publishers(topic):
            return ""
        self._said = True
        advice = self._advice(state, topic)
        self._node.get_logger().warning(advice)
        return advice

    def _advice(self, state: str, topic: str) -> str:
        command = f"ros2 lifecycle set {self._node.get_fully_qualified_name()}"
        activate = f"{command} activate"
        return (
            f"images are published on {topic} and this node is {state}, so it ignores them: "
            + (f"{command} configure && {activate}" if state == "unconfigured" else activate)
            + ", or set autostart to true"
        )


class GraphWatch:
    """All that is wrong with the node's neighbours, in one sentence for ``/diagnostics``."""

    def __init__(self, node: LifecycleNode, topics: Callable[[], Iterable[str]]) -> None:
        # The first one is that of the camera images, where the node is subscribed to any.
        self._watches = (NameWatch(node), PublisherWatch(node, topics), TypeWatch(node, lambda: [*topics()][:1]))

    def look(self) -> str:
        return "; ".join(text for text in [watch.look() for watch in self._watches] if text)
