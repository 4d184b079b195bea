"""vision_msgs where it is installed: tracked objects as detections, and a detector's boxes as prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

from sam2_ros.node.conversions import object_pose, stamp_to_ns
from sam2_ros.perception.depth import Scene
from sam2_ros.perception.detections import Box, Detection, boxes_of, prompts_for
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.perception.stamped_buffer import StampedBuffer
from sam2_ros.session.objects import ObjectView, PromptOutcome, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.tracking.types import FrameResult, ObjectState

MASK_THRESHOLD = 0.5  # a pixel belongs to an object from this probability on
LARGEST_CLASS_ID = 65534  # uint16, whose last value means "unlabelled"
REPEAT_LOG_S = 5.0  # a detector says the same thing in every image
SAME_MOMENT_NS = 100_000_000  # an object has hardly moved in this time
IMAGES_KEPT = 300  # 10 s at 30 Hz, as far back as a prompt may be for; boxes only
MESSAGES_KEPT = 200  # detections of images that are still to be tracked


def make_vision_publishers(node: LifecycleNode, qos: QoSProfile) -> VisionPublishers | None:
    try:
        from vision_msgs import msg
    except Exception:  # an ImportError, or what a broken installation raises
        return None
    return VisionPublishers(node, qos, msg)


class VisionPublishers:
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
            if self._label_info.is_activated:  # an inactive publisher sends nothing
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


def make_detection_subscription(
    node: LifecycleNode, session: Session, parameters: Callable[[], NodeParameters]
) -> DetectionSubscription | None:
    try:
        from vision_msgs.msg import Detection2DArray
    except Exception:  # an ImportError, or what a broken installation raises
        return None
    return DetectionSubscription(node, session, parameters, Detection2DArray)


class DetectionSubscription:
    """Turns detections into prompts, one image's detections at a time: the next ones wait until the prompts of the last
    ones show in a result, or they would prompt for the same objects again.

    A box shows where something was in the detector's image, so it is compared with the objects in the tracked image
    nearest in time, and ignored without one. If that image is yet to be tracked, the detections wait.
    """

    def __init__(
        self, node: LifecycleNode, session: Session, parameters: Callable[[], NodeParameters], message_type: Any
    ) -> None:
        self._node = node
        self._session = session
        self._parameters = parameters
        self._lock = threading.Lock()  # guards all below: messages on the executor, results on the publishing thread
        self._pending: Future[tuple[PromptOutcome, ...]] | None = None
        self._prompted_at: FrameResult | None = None
        self._seen: StampedBuffer[dict[str, Box | None]] = StampedBuffer(IMAGES_KEPT)
        self._newest_ns = 0  # of the images
        self._waiting: list[Any] = []  # messages
        self._refreshed: dict[str, int] = {}  # object -> the image in which it was first seen, or last refreshed
        qos = qos_profile_sensor_data  # best effort, which receives from every publisher: detectors are of both kinds
        self._subscription = node.create_subscription(message_type, "detections", self._on_detections, qos)

    @property
    def topic_name(self) -> str:
        return str(self._subscription.topic_name)

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def observe(self, view: TrackingView) -> None:
        """An image has been tracked. Called on the publishing thread, image by image."""
        with self._lock:
            self._newest_ns = view.stamp_ns
            self._seen.put(view.stamp_ns, boxes_of(view))
            due = [message for message in self._waiting if _are_close(message, view.stamp_ns)]
            self._waiting = [message for message in self._waiting if not _are_close(message, view.stamp_ns)]
            for message in due:
                self._compare(message)

    def forget(self) -> None:
        """Drop everything after a jump back in time, because its stamps are of another time."""
        with self._lock:
            self._seen.clear()
            self._waiting.clear()
            self._newest_ns = 0

    def _on_detections(self, message: Any) -> None:
        with self._lock:
            if self._session.view.stamp_ns and stamp_to_ns(message.header.stamp) > self._newest_ns + SAME_MOMENT_NS:
                waiting_ns = self._session.waiting_ns
                waiting = [each for each in (*self._waiting, message) if any(_are_close(each, ns) for ns in waiting_ns)]
                self._waiting = waiting[-MESSAGES_KEPT:]
            else:
                self._compare(message)

    def _compare(self, message: Any) -> None:
        view = self._session.view
        if self._pending is not None and (not self._pending.done() or view.result is self._prompted_at):
            return
        if any(item.tracked.state is ObjectState.PENDING for item in view.objects):
            return
        stamp_ns = stamp_to_ns(message.header.stamp)
        then = self._seen.nearest(stamp_ns, SAME_MOMENT_NS) if stamp_ns and view.stamp_ns else boxes_of(view)
        if then is None:
            self._node.get_logger().debug("detections left out: no image was tracked within 0.1 s of their stamp")
            return
        due = self._due(view)
        prompts = prompts_for(read_detections(message), view, self._parameters(), stamp_ns, then, due)
        for prompt in prompts:
            if prompt.object_id in due:
                self._refreshed[prompt.object_id] = view.frame_index
        if prompts:
            self._prompted_at = view.result
            self._pending = self._session.prompt(prompts).outcomes
            self._pending.add_done_callback(self._report)

    def _due(self, view: TrackingView) -> set[str]:
        """The visible objects that a detection may refresh again."""
        every = self._parameters().detection_refresh_frames
        visible = [item.tracked.object_id for item in view.objects if item.tracked.state is ObjectState.TRACKED]
        # After a reset images are counted from 0 again.
        since = {
            object_id: min(self._refreshed.get(object_id, view.frame_index), view.frame_index) for object_id in visible
        }
        self._refreshed = since
        return {object_id for object_id, frame in since.items() if every and view.frame_index - frame >= every}

    def _report(self, done: Future[tuple[PromptOutcome, ...]]) -> None:
        """Runs on the model thread."""
        if done.exception() is not None:
            return  # the session has ended and logged why
        for outcome in done.result():
            if outcome.accepted:
                self._node.get_logger().info(f"detection for {outcome.object_id!r} (label {outcome.label})")
            else:
                self._node.get_logger().warning(
                    f"detection rejected: {outcome.error}", throttle_duration_sec=REPEAT_LOG_S
                )


def _are_close(message: Any, stamp_ns: int) -> bool:
    return abs(stamp_to_ns(message.header.stamp) - stamp_ns) <= SAME_MOMENT_NS


def read_detections(message: Any) -> list[Detection]:
    """A ``Detection2DArray``: of each detection the class with the highest score; those without one are left out."""
    found = []
    for item in message.detections:
        best = max((result.hypothesis for result in item.results), key=lambda h: h.score, default=None)
        if best is not None:
            x, y = item.bbox.center.position.x, item.bbox.center.position.y
            half_x, half_y = item.bbox.size_x / 2, item.bbox.size_y / 2
            found.append(Detection(best.class_id, best.score, (x - half_x, y - half_y, x + half_x, y + half_y)))
    return found
