"""What the node publishes for each processed image, all with that image's header."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sam2_ros.msg import TrackedObjectArray, TrackEvent
from sam2_ros.node.conversions import (
    MarkedObject,
    array_to_image,
    cloud_to_message,
    fill_pose,
    label_image_to_message,
    markers_to_message,
    object_pose,
    object_pose_stamped,
    rgb_to_compressed,
    view_to_message,
)
from sam2_ros.node.optional.detections import make_vision_publishers
from sam2_ros.node.optional.tf import Transforms
from sam2_ros.perception.depth import DepthSource, Scene, choose_target, cloud_of
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.session.events import Event, EventType
from sam2_ros.session.objects import TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.overlay import color_labels, draw_overlay, label_color_rgb, quality_text, tag_of_tracked
from sam2_ros.tracking.types import TrackedMask

RELIABILITY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}
EVENTS_WAITING = 1000  # for the executor
EVENTS_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=50,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DELIVERY_S = 0.2  # time for a RESET to reach its subscribers before latched events are discarded


def make_qos(reliability: str, depth: int) -> QoSProfile:
    """Volatile, keep the last ``depth``; ``reliability`` as the parameters have it."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=RELIABILITY[reliability],
        durability=DurabilityPolicy.VOLATILE,
    )


class Publishers:
    """The node's lifecycle publishers; they publish nothing until the node is activated."""

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
        self.overlay_ns = 0  # stamp of the overlay that was published last
        reliability = parameters().output_reliability
        image_qos, objects_qos = make_qos(reliability, depth=1), make_qos(reliability, depth=5)
        self._label_image = node.create_lifecycle_publisher(Image, "~/label_image", image_qos)
        self._label_image_color = node.create_lifecycle_publisher(Image, "~/label_image_color", image_qos)
        self._objects = node.create_lifecycle_publisher(TrackedObjectArray, "~/objects", objects_qos)
        self._overlay = node.create_lifecycle_publisher(Image, "~/overlay", image_qos)
        self._overlay_jpeg = node.create_lifecycle_publisher(CompressedImage, "~/overlay/compressed", image_qos)
        self._spatial = SpatialPublishers(node, parameters, transforms, qos=objects_qos, cloud_qos=image_qos)
        self._vision = make_vision_publishers(node, objects_qos)

    def topic_names(self) -> list[str]:
        names = [publisher.topic_name for publisher in self._publishers()] + self._spatial.topic_names()
        return names + (self._vision.topic_names() if self._vision is not None else [])

    def show_markers(self, shown: bool) -> None:
        """Whether there are markers from now on: not while nothing is tracked."""
        self._spatial.show_markers(shown)

    def publish(self, view: TrackingView) -> None:
        """Publish one result; images only while they have subscribers. Called on the publishing thread."""
        try:
            self._publish(view)
        except Exception:
            if self._node.context.ok():
                raise
            # Ctrl-C shut the middleware down while we published: no subscriber is left.

    def _publish(self, view: TrackingView) -> None:
        if view.result is None or view.image_rgb is None or not self._objects.is_activated:
            return  # nothing to TF either, whose broadcaster is no lifecycle publisher
        parameters = self._parameters()
        if parameters.publish_label_image and self._label_image.get_subscription_count():
            self._label_image.publish(label_image_to_message(view.result.label_image, view.header))
        if parameters.publish_label_image and self._label_image_color.get_subscription_count():
            self._label_image_color.publish(array_to_image(color_labels(view.result), "rgb8", view.header))
        scene = self._depth.measure(view) if parameters.use_depth else Scene()
        now_ns = self._node.get_clock().now().nanoseconds
        message = view_to_message(view, with_masks=parameters.publish_masks, now_ns=now_ns)
        for item in message.objects:
            fill_pose(item, scene.geometry.get(item.object_id))
        self._objects.publish(message)
        self._spatial.publish(view, scene)
        if self._vision is not None and parameters.publish_detections:
            self._vision.publish(view, scene)
        if parameters.publish_overlay:
            self._publish_overlay(view, parameters)

    def _publish_overlay(self, view: TrackingView, parameters: NodeParameters) -> None:
        raw, compressed = self._overlay.get_subscription_count(), self._overlay_jpeg.get_subscription_count()
        if not (raw or compressed):
            return
        assert view.image_rgb is not None and view.result is not None, "only a processed image has an overlay"
        tag = functools.partial(tag_of_tracked, unsure_below=parameters.unsure_below)
        drawn = draw_overlay(view.image_rgb, view.result, tag=tag)
        self.overlay_ns = view.stamp_ns
        if raw:
            self._overlay.publish(array_to_image(drawn, "rgb8", view.header))
        if compressed:
            self._overlay_jpeg.publish(rgb_to_compressed(drawn, view.header, jpeg_quality=parameters.jpeg_quality))

    def _publishers(self) -> tuple:
        return self._label_image, self._label_image_color, self._objects, self._overlay, self._overlay_jpeg

    def destroy(self) -> None:
        for publisher in self._publishers():
            self._node.destroy_lifecycle_publisher(publisher)
        self._spatial.destroy()
        if self._vision is not None:
            self._vision.destroy()


class SpatialPublishers:
    """Lifecycle publishers for images with depth; each publishes only while it has subscribers."""

    def __init__(
        self,
        node: LifecycleNode,
        parameters: Callable[[], NodeParameters],
        transforms: Transforms,
        *,
        qos: QoSProfile,
        cloud_qos: QoSProfile,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._transforms = transforms
        self._markers = node.create_lifecycle_publisher(MarkerArray, "~/markers", qos)
        self._markers_lock = threading.Lock()  # guards the two below: the executor hides, the publishing thread shows
        self._markers_shown = True
        self._markers_header = Header()  # of those that were published last
        self._object_points = node.create_lifecycle_publisher(PointCloud2, "~/object_points", cloud_qos)
        self._target_pose = node.create_lifecycle_publisher(PoseStamped, "~/target_pose", qos)

    def topic_names(self) -> list[str]:
        return [publisher.topic_name for publisher in (self._markers, self._object_points, self._target_pose)]

    def destroy(self) -> None:
        for publisher in (self._markers, self._object_points, self._target_pose):
            self._node.destroy_lifecycle_publisher(publisher)

    def show_markers(self, shown: bool) -> None:
        """Whether there are markers from now on; without, viewers are told to remove what they show."""
        with self._markers_lock:
            self._markers_shown = shown
            if not shown and self._markers.is_activated:
                self._markers.publish(markers_to_message([], self._markers_header))

    def publish(self, view: TrackingView, scene: Scene) -> None:
        parameters = self._parameters()
        if not parameters.use_depth:
            return
        if parameters.publish_markers and self._markers.get_subscription_count():
            # Also when there are none: the markers drawn before are outdated.
            marked = marked_objects(view, scene, parameters.unsure_below)
            message = markers_to_message(marked, view.header, lifetime_s=parameters.image_timeout_s)
            with self._markers_lock:
                self._markers_header = view.header
                if self._markers_shown:
                    self._markers.publish(message)
        if scene.depth is None:
            return
        if parameters.publish_target_pose:
            target = scene.geometry.get(choose_target(view.objects, parameters))
            if target is not None:
                self._target_pose.publish(object_pose_stamped(target, view.header))
        if parameters.publish_object_points and self._object_points.get_subscription_count():
            self._object_points.publish(cloud_to_message(cloud_of(view, scene.depth, parameters), view.header))
        if parameters.publish_tf:
            prefix = self._node.get_fully_qualified_name().strip("/")
            self._transforms.send([_frame(prefix, name, place, view.header) for name, place in scene.geometry.items()])


def marked_objects(view: TrackingView, scene: Scene, unsure_below: float) -> list[MarkedObject]:
    return [
        MarkedObject(
            label=item.tracked.label,
            text=_name_of(item.tracked, unsure_below),
            color_rgb=label_color_rgb(item.tracked.label),
            geometry=scene.geometry[item.tracked.object_id],
        )
        for item in view.objects
        if item.tracked.object_id in scene.geometry
    ]


def _name_of(tracked: TrackedMask, unsure_below: float) -> str:
    """The object's id; with the quality of its mask where that is in doubt."""
    in_doubt = tracked.mask_quality < unsure_below
    return f"{tracked.object_id} {quality_text(tracked.mask_quality, unsure_below)}" if in_doubt else tracked.object_id


def _frame(prefix: str, object_id: str, geometry: ObjectGeometry, header: Header) -> TransformStamped:
    """The object's frame, a child of the camera's; prefixed with the node's name, so that cameras do not collide."""
    pose = object_pose(geometry)
    message = TransformStamped(header=header, child_frame_id=f"{prefix}/{object_id}")
    message.transform.translation.x = pose.position.x
    message.transform.translation.y = pose.position.y
    message.transform.translation.z = pose.position.z
    message.transform.rotation = pose.orientation
    return message


class EventPublisher:
    """Takes events on any thread; the executor publishes them, in order.

    A plain publisher, not a lifecycle one: services work and say what they did while the node is inactive, too.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: deque[Event] = deque(maxlen=EVENTS_WAITING)  # the latest ones: a flood of bad prompts is one
        self._publisher = self._make_publisher()
        self._wake = node.create_guard_condition(self._publish_waiting)

    def _make_publisher(self) -> Any:
        return self._node.create_publisher(TrackEvent, "~/events", EVENTS_QOS)

    def topic_name(self) -> str:
        return str(self._publisher.topic_name)

    def put(self, event: Event) -> None:
        self._waiting.append(event)
        try:
            self._wake.trigger()
        except Exception:
            if self._node.context.ok():
                raise
            # Ctrl-C shut the middleware down: no subscriber is left.

    def _publish_waiting(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            self._publisher.publish(event_to_message(event))
            if event.type is EventType.RESET:
                # The middleware discards latched messages only together with their publisher.
                self._publisher.wait_for_all_acked(Duration(seconds=DELIVERY_S))
                self._node.destroy_publisher(self._publisher)
                self._publisher = self._make_publisher()

    def destroy(self) -> None:
        """Publish the events that wait, then destroy the publisher."""
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
