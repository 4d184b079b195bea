"""``detections`` where vision_msgs is installed: a detector's boxes find lost objects again, or start new ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rclpy.lifecycle import LifecycleNode

from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.perception.detections import Box, Detection, boxes_of, prompts_for
from sam2_ros.perception.stamped_buffer import StampedBuffer
from sam2_ros.session.objects import PromptOutcome, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.session.work_queue import JUMP_BACK_S
from sam2_ros.tracking.types import FrameResult, ObjectState

REPEAT_LOG_S = 5.0  # a detector says the same thing in every image
SAME_MOMENT_NS = 100_000_000  # an object is nearly where it was so long ago
IMAGES_KEPT = 300  # 10 s at 30 Hz, as far back as a prompt may be for; boxes only
MESSAGES_KEPT = 200  # of images that are still to be tracked; fewer but for a detector that floods the topic


def make_detection_input(
    node: LifecycleNode, session: Session, parameters: Callable[[], NodeParameters]
) -> DetectionInput | None:
    try:
        from vision_msgs.msg import Detection2DArray
    except Exception:  # an ImportError, or what a broken installation raises
        return None
    return DetectionInput(node, session, parameters, Detection2DArray)


class DetectionInput:
    """The subscription. One image's detections at a time: what came of the last ones must be seen first, or the next
    image's would ask for the same again.

    A box says where something was in the detector's image, so it is compared with where the objects were in the image
    that was tracked next to it in time, and left out without one. When that image is still to be tracked, it waits.
    """

    def __init__(
        self, node: LifecycleNode, session: Session, parameters: Callable[[], NodeParameters], message_type: Any
    ) -> None:
        self._node = node
        self._session = session
        self._parameters = parameters
        self._lock = threading.Lock()  # guards all below: messages come on the executor, images on the session's worker
        self._pending: Future[tuple[PromptOutcome, ...]] | None = None
        self._prompted_at: FrameResult | None = None
        self._seen: StampedBuffer[dict[str, Box | None]] = StampedBuffer(IMAGES_KEPT)
        self._newest_ns = 0  # of the images
        self._waiting: list[Any] = []  # messages
        self._subscription = node.create_subscription(message_type, "detections", self._on_detections, 10)

    @property
    def topic_name(self) -> str:
        return str(self._subscription.topic_name)

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def observe(self, view: TrackingView) -> None:
        """An image has been tracked. Called on the session's worker, image by image."""
        with self._lock:
            if view.stamp_ns < self._newest_ns - JUMP_BACK_S * 1e9:  # a bag that starts again
                self._seen.clear()
                self._waiting.clear()
            self._newest_ns = view.stamp_ns
            self._seen.put(view.stamp_ns, boxes_of(view))
            due = [message for message in self._waiting if _are_close(message, view.stamp_ns)]
            self._waiting = [message for message in self._waiting if not _are_close(message, view.stamp_ns)]
            for message in due:
                self._compare(message)

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
        prompts = prompts_for(read_detections(message), view, self._parameters(), stamp_ns, then)
        if prompts:
            self._prompted_at = view.result
            self._pending = self._session.prompt(prompts).outcomes
            self._pending.add_done_callback(self._report)

    def _report(self, done: Future[tuple[PromptOutcome, ...]]) -> None:
        """Runs on the session's worker."""
        if done.exception() is not None:
            return  # the session has ended, and says so itself
        for outcome in done.result():
            if outcome.accepted:
                self._node.get_logger().info(f"detection for {outcome.object_id!r} (label {outcome.label})")
            else:
                self._node.get_logger().warning(
                    f"detection refused: {outcome.error}", throttle_duration_sec=REPEAT_LOG_S
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
