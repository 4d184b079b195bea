"""What the node publishes for each processed image, all with that image's header."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, label_image_to_message, rgb_to_compressed, view_to_message
from sam2_ros.node.geometry_messages import fill_pose
from sam2_ros.node.optional_vision_msgs import make_vision_outputs
from sam2_ros.node.spatial_outputs import SpatialOutputs
from sam2_ros.node.tf import Transforms
from sam2_ros.perception.scene_depth import DepthSource
from sam2_ros.session.objects import TrackingView
from sam2_ros.session.parameters import NodeParameters

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

    def __init__(
        self,
        node: LifecycleNode,
        parameters: Callable[[], NodeParameters],
        depth: DepthSource,
        transforms: Transforms,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._depth = depth
        reliability = parameters().output_reliability
        image_qos, objects_qos = make_qos(reliability, depth=1), make_qos(reliability, depth=5)
        self._label_image = node.create_lifecycle_publisher(Image, "~/label_image", image_qos)
        self._objects = node.create_lifecycle_publisher(TrackedObjectArray, "~/objects", objects_qos)
        self._overlay = node.create_lifecycle_publisher(Image, "~/overlay", image_qos)
        self._overlay_jpeg = node.create_lifecycle_publisher(CompressedImage, "~/overlay/compressed", image_qos)
        self._spatial = SpatialOutputs(node, parameters, transforms, qos=objects_qos, cloud_qos=image_qos)
        self._vision = make_vision_outputs(node, objects_qos)

    def topic_names(self) -> list[str]:
        names = [publisher.topic_name for publisher in self._publishers()] + self._spatial.topic_names()
        return names + (self._vision.topic_names() if self._vision is not None else [])

    def publish(self, view: TrackingView) -> None:
        """Publish one result; images only to somebody. Called on the session's worker."""
        try:
            self._publish(view)
        except Exception:
            if self._node.context.ok():
                raise
            # Ctrl-C takes the middleware away in the middle of an image: nobody is there to miss it.

    def _publish(self, view: TrackingView) -> None:
        if view.result is None or view.image_rgb is None or not self._objects.is_activated:
            return  # also without a word to TF, which knows no lifecycle
        parameters = self._parameters()
        if parameters.publish_label_image and self._label_image.get_subscription_count():
            self._label_image.publish(label_image_to_message(view.result.label_image, view.header))
        scene = self._depth.measure(view)
        now_ns = self._node.get_clock().now().nanoseconds
        message = view_to_message(view, with_masks=parameters.publish_masks, now_ns=now_ns)
        for item in message.objects:
            fill_pose(item, scene.geometry.get(item.object_id))
        self._objects.publish(message)
        self._spatial.publish(view, scene)
        if self._vision is not None and parameters.publish_detections:
            self._vision.publish(view, scene)
        if parameters.publish_overlay:
            self._publish_overlay(view, parameters.jpeg_quality)

    def _publish_overlay(self, view: TrackingView, jpeg_quality: int) -> None:
        raw, compressed = self._overlay.get_subscription_count(), self._overlay_jpeg.get_subscription_count()
        if not (raw or compressed):
            return
        from sam2_ros.tracking.overlay import draw_overlay

        assert view.image_rgb is not None and view.result is not None, "only a processed image has an overlay"
        drawn = draw_overlay(view.image_rgb, view.result)
        if raw:
            self._overlay.publish(array_to_image(drawn, "rgb8", view.header))
        if compressed:
            self._overlay_jpeg.publish(rgb_to_compressed(drawn, view.header, jpeg_quality=jpeg_quality))

    def _publishers(self) -> tuple:
        return self._label_image, self._objects, self._overlay, self._overlay_jpeg

    def destroy(self) -> None:
        for publisher in self._publishers():
            self._node.destroy_lifecycle_publisher(publisher)
        self._spatial.destroy()
        if self._vision is not None:
            self._vision.destroy()
