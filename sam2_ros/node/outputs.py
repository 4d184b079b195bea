"""What the node publishes for each processed image, all with that image's header."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, label_image_to_message, view_to_message
from sam2_ros.node.object_book import TrackingView
from sam2_ros.node.parameters import NodeParameters

RELIABILITY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


def make_qos(reliability: str, depth: int) -> QoSProfile:
    """Volatile, keep the last ``depth``; ``reliability`` as the parameters have it."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=RELIABILITY[reliability],
        durability=DurabilityPolicy.VOLATILE,
    )


class Outputs:
    """The node's lifecycle publishers; they are silent until the node is activated."""

    def __init__(self, node: LifecycleNode, parameters: Callable[[], NodeParameters]) -> None:
        self._node = node
        self._parameters = parameters
        reliability = parameters().output_reliability
        image_qos, objects_qos = make_qos(reliability, depth=1), make_qos(reliability, depth=5)
        self._label_image = node.create_lifecycle_publisher(Image, "~/label_image", image_qos)
        self._objects = node.create_lifecycle_publisher(TrackedObjectArray, "~/objects", objects_qos)
        self._overlay = node.create_lifecycle_publisher(Image, "~/overlay", image_qos)

    def topic_names(self) -> list[str]:
        return [publisher.topic_name for publisher in (self._label_image, self._objects, self._overlay)]

    def publish(self, view: TrackingView) -> None:
        """Publish one result; images only to somebody. Called on the session's worker."""
        try:
            self._publish(view)
        except Exception:
            if self._node.context.ok():
                raise
            # Ctrl-C takes the middleware away in the middle of an image: nobody is there to miss it.

    def _publish(self, view: TrackingView) -> None:
        if view.result is None or view.image_rgb is None:
            return
        parameters = self._parameters()
        if parameters.publish_label_image and self._label_image.get_subscription_count():
            self._label_image.publish(label_image_to_message(view.result.label_image, view.header))
        now_ns = self._node.get_clock().now().nanoseconds
        self._objects.publish(view_to_message(view, with_masks=parameters.publish_masks, now_ns=now_ns))
        if parameters.publish_overlay and self._overlay.get_subscription_count():
            from sam2_ros.tracking.overlay import draw_overlay

            self._overlay.publish(array_to_image(draw_overlay(view.image_rgb, view.result), "rgb8", view.header))

    def destroy(self) -> None:
        for publisher in (self._label_image, self._objects, self._overlay):
            self._node.destroy_lifecycle_publisher(publisher)
