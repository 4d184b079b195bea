"""``~/detections`` and ``~/label_info`` where vision_msgs is installed: what is tracked, in that package's terms."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from sam2_ros.node.geometry_messages import object_pose
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.perception.scene_depth import Scene
from sam2_ros.session.objects import ObjectView, TrackingView

MASK_THRESHOLD = 0.5  # a pixel belongs to an object from this probability on
LARGEST_CLASS_ID = 65534  # uint16, whose last value means "unlabelled"


def make_vision_outputs(node: LifecycleNode, qos: QoSProfile) -> VisionOutputs | None:
    try:
        from vision_msgs import msg
    except Exception:  # an ImportError, or what a broken installation raises
        return None
    return VisionOutputs(node, qos, msg)


class VisionOutputs:
    """The two publishers; ``msg`` is ``vision_msgs.msg``, of Humble or later."""

    def __init__(self, node: LifecycleNode, qos: QoSProfile, msg: Any) -> None:
        self._node = node
        self._msg = msg
        latched = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._detections = node.create_lifecycle_publisher(msg.Detection2DArray, "~/detections", qos)
        self._label_info = node.create_lifecycle_publisher(msg.LabelInfo, "~/label_info", latched)
        self._said: dict[int, str] | None = None

    def topic_names(self) -> list[str]:
        return [self._detections.topic_name, self._label_info.topic_name]

    def destroy(self) -> None:
        for publisher in (self._detections, self._label_info):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, view: TrackingView, scene: Scene) -> None:
        names = {item.tracked.label: item.class_id or item.tracked.object_id for item in view.objects}
        if names != self._said:
            classes = [
                self._msg.VisionClass(class_id=label, class_name=name)
                for label, name in names.items()
                if label <= LARGEST_CLASS_ID
            ]
            self._label_info.publish(
                self._msg.LabelInfo(header=view.header, class_map=classes, threshold=MASK_THRESHOLD)
            )
            if self._label_info.is_activated:  # else nobody was told
                self._said = names
        if self._detections.get_subscription_count():
            message = self._msg.Detection2DArray(header=view.header)
            message.detections = [
                self._detection(item, view.header, scene.geometry.get(item.tracked.object_id))
                for item in view.objects
                if item.tracked.box_xyxy is not None
            ]
            self._detections.publish(message)

    def _detection(self, item: ObjectView, header: Any, geometry: ObjectGeometry | None) -> Any:
        tracked = item.tracked
        assert tracked.box_xyxy is not None, "only what is seen is detected"
        x0, y0, x1, y1 = (float(value) for value in tracked.box_xyxy)
        message = self._msg.Detection2D(header=header, id=tracked.object_id)
        message.bbox.center.position.x = (x0 + x1) / 2
        message.bbox.center.position.y = (y0 + y1) / 2
        message.bbox.size_x, message.bbox.size_y = x1 - x0, y1 - y0
        result = self._msg.ObjectHypothesisWithPose()
        result.hypothesis.class_id = item.class_id
        result.hypothesis.score = float(tracked.score)
        if geometry is not None:
            result.pose.pose = object_pose(geometry)
        message.results = [result]
        return message
