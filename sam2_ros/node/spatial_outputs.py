"""What the node publishes of the objects in space: markers, points, the target's pose, frames of TF."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from sam2_ros.node.geometry_messages import (
    MarkedObject,
    cloud_to_message,
    markers_to_message,
    object_pose,
    object_pose_stamped,
)
from sam2_ros.node.tf import Transforms
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.perception.scene_depth import Scene, choose_target, cloud_of
from sam2_ros.session.objects import TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.overlay import label_color_rgb


class SpatialOutputs:
    """Lifecycle publishers that speak only of images with depth, each to its subscribers only."""

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
        self._object_points = node.create_lifecycle_publisher(PointCloud2, "~/object_points", cloud_qos)
        self._target_pose = node.create_lifecycle_publisher(PoseStamped, "~/target_pose", qos)

    def topic_names(self) -> list[str]:
        return [publisher.topic_name for publisher in (self._markers, self._object_points, self._target_pose)]

    def destroy(self) -> None:
        for publisher in (self._markers, self._object_points, self._target_pose):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, view: TrackingView, scene: Scene) -> None:
        parameters = self._parameters()
        if not parameters.use_depth:
            return
        if parameters.publish_markers and self._markers.get_subscription_count():
            # Also without any: what was drawn before is wrong by now.
            self._markers.publish(markers_to_message(marked_objects(view, scene), view.header))
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


def marked_objects(view: TrackingView, scene: Scene) -> list[MarkedObject]:
    return [
        MarkedObject(
            label=item.tracked.label,
            text=item.tracked.object_id,
            color_rgb=label_color_rgb(item.tracked.label),
            geometry=scene.geometry[item.tracked.object_id],
        )
        for item in view.objects
        if item.tracked.object_id in scene.geometry
    ]


def _frame(prefix: str, object_id: str, geometry: ObjectGeometry, header: Header) -> TransformStamped:
    """The object's frame, below the camera's; its name holds the node's, so that two cameras' objects stay apart."""
    pose = object_pose(geometry)
    message = TransformStamped(header=header, child_frame_id=f"{prefix}/{object_id}")
    message.transform.translation.x = pose.position.x
    message.transform.translation.y = pose.position.y
    message.transform.translation.z = pose.position.z
    message.transform.rotation = pose.orientation
    return message
