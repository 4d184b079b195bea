"""The ROS graph around the image topic, as the doctor wants to know it."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import ReliabilityPolicy

from sam2_ros.node.doctor import ImageTopic, Publisher
from sam2_ros.node.subscriptions import COMPRESSED_SUFFIX
from sam2_ros.session.parameters import NodeParameters

IMAGE_TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
RELIABILITY = {ReliabilityPolicy.RELIABLE: "reliable", ReliabilityPolicy.BEST_EFFORT: "best_effort"}


def look_at_image_topic(node: LifecycleNode, parameters: NodeParameters) -> ImageTopic:
    """Who publishes where the node listens, and where else images are to be had."""
    transport = parameters.image_transport
    base = node.resolve_topic_name("image")
    names = {"raw": base, "compressed": f"{base}{COMPRESSED_SUFFIX}"}
    (other,) = set(names) - {transport}
    publishers = tuple(
        Publisher(info.node_name, RELIABILITY.get(info.qos_profile.reliability, "unknown"))
        for info in node.get_publishers_info_by_topic(names[transport])
    )
    others = tuple(
        topic.removesuffix(COMPRESSED_SUFFIX) if transport == "compressed" else topic
        for topic, types in node.get_topic_names_and_types()
        if IMAGE_TYPES[transport] in types and not is_output(topic, node.get_name())
        if node.count_publishers(topic)
    )
    return ImageTopic(
        name=names[transport],
        reliability=parameters.image_reliability,
        publishers=publishers,
        other_image_topics=others,
        other_transport=other if node.count_publishers(names[other]) else "",
    )


def is_output(topic: str, node_name: str) -> bool:
    """Whether one of these nodes publishes the topic, this or another one: nothing to track in."""
    return any(f"/{name}/" in topic for name in (node_name, "sam2_node"))
