"""What the node subscribes to while it is active: images, prompts, clicks, depth. No callback blocks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, PointStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sam2_ros.image_io.compressed import COMPRESSED_SUFFIX
from sam2_ros.log_throttle import LogThrottle
from sam2_ros.msg import Prompt
from sam2_ros.node.clicks import REPEAT_REJECTION_S, ClickedPoints, click_to_prompt
from sam2_ros.node.conversions import read_prompt, reject_integer_bits, stamp_to_ns
from sam2_ros.node.diagnostics import ImageTopic, explain_silence, profile_advice
from sam2_ros.node.optional.pairing import ImagePairing
from sam2_ros.node.optional.tf import Transforms
from sam2_ros.node.publishers import make_qos
from sam2_ros.perception.depth import DepthSource
from sam2_ros.saved_values import MAX_NAME_LENGTH
from sam2_ros.session.objects import PromptOutcome, PromptRequest
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.session.stamps import GapCounter
from sam2_ros.session.work_queue import QUEUED_IMAGES
from sam2_ros.tracking.types import PromptError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # its name in Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError
REPEAT_WARNING_S = 30.0
LOSS_WINDOW_S = 5.0
LEAST_LOST = 5  # per window; fewer are not reported
LOST_SHARE = 0.1
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class TopicMonitor:
    """Counts the images that arrived and those that the middleware reports as lost."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest_s = self._window_start_s = clock()
        self._received = self._lost = 0
        self._window_start = (0, 0)  # received and lost by then
        self._gaps = GapCounter()
        self._warned_s, self._warned_kind = clock(), ""

    def note_image(self, sequence: int | None = None, stamp_ns: int = 0) -> None:
        """An image has arrived. ``sequence``: its number at its publisher, where the middleware tells."""
        self._latest_s = self._clock()
        self._received += 1
        self._gaps.observe(sequence, stamp_ns)

    @property
    def missed(self) -> int:
        """Images that were published since the first one that arrived and did not arrive: lost, or replaced in the
        middleware's queue by a newer one before the node had time to take them."""
        return self._gaps.missed

    def note_lost(self, count: int) -> None:
        """``count`` images were lost on the way. (Those that the queue of depth 1 replaces do not count.)"""
        self._lost += count

    @property
    def silent_s(self) -> float:
        """Time since the latest image, or since the monitor was made."""
        return self._clock() - self._latest_s

    def diagnose(self, timeout_s: float, ask: Callable[[], ImageTopic]) -> str:
        """What is wrong with the images and what to do; empty when nothing is, or when the same was said recently."""
        silent_s = self.silent_s
        lost_share = self._lost_share()
        if silent_s < timeout_s and lost_share < LOST_SHARE:
            return ""
        topic = ask()
        if silent_s >= timeout_s:
            kind, text = f"silence {topic.publishers} {topic.other_types}", explain_silence(topic, silent_s, self._lost)
        else:
            text = f"{lost_share:.0%} of the images on {topic.name} are lost on the way. {profile_advice()}"
            kind = "losses"
        now_s = self._clock()
        if kind == self._warned_kind and now_s - self._warned_s < REPEAT_WARNING_S:
            return ""
        self._warned_kind, self._warned_s = kind, now_s
        return text

    def _lost_share(self) -> float:
        """Share (0..1) lost in a window that has just ended; 0 in between, and for a few."""
        if self._clock() - self._window_start_s < LOSS_WINDOW_S:
            return 0.0
        received, lost = self._received - self._window_start[0], self._lost - self._window_start[1]
        self._window_start_s, self._window_start = self._clock(), (self._received, self._lost)
        return lost / (received + lost) if lost >= LEAST_LOST else 0.0


class Subscriptions:
    """Subscriptions that feed a session; ``destroy`` ends them.

    ``overlay_ns``: stamp of the overlay that was published last, 0 before.
    """

    def __init__(
        self,
        node: LifecycleNode,
        session: Session,
        watch: TopicMonitor,
        parameters: Callable[[], NodeParameters],
        overlay_ns: Callable[[], int],
        depth: DepthSource,
        pairing: ImagePairing | None = None,
    ) -> None:
        self._depth = depth
        self._overlay_ns = overlay_ns
        self._node = node
        self._session = session
        self._watch = watch
        self._pairing = pairing
        self._parameters = parameters
        self._seen_image = False
        self._told = LogThrottle(REPEAT_REJECTION_S)
        self._subscriptions = [
            self._subscribe_to_images(
                make_qos(parameters().image_reliability, QUEUED_IMAGES if parameters().process_every_frame else 1)
            ),
            node.create_subscription(Prompt, "prompt", self._on_prompt, make_qos("reliable", depth=10)),
            node.create_subscription(Point, "click", self._on_click, make_qos("reliable", depth=10)),
        ]

    def _subscribe_to_images(self, qos: QoSProfile) -> Any:
        events = SubscriptionEventCallbacks(message_lost=lambda info: self._watch.note_lost(info.total_count_change))
        try:
            return self._image_subscription(qos, event_callbacks=events)
        except UnsupportedEventTypeError:  # this middleware does not count lost messages
            return self._image_subscription(qos)

    def _image_subscription(self, qos: QoSProfile, **options: Any) -> Any:
        if self._parameters().image_transport == "compressed":
            topic = self._node.resolve_topic_name("image") + COMPRESSED_SUFFIX
            return self._node.create_subscription(CompressedImage, topic, self._on_image, qos, **options)
        return self._node.create_subscription(Image, "image", self._on_image, qos, **options)

    def topic_names(self) -> list[str]:
        return [subscription.topic_name for subscription in self._subscriptions]

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_image(self, message: Image | CompressedImage, info: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._watch.note_image(info.get("publication_sequence_number"), stamp_ns)
        if self._parameters().use_depth:
            self._depth.note_image(stamp_ns)
        if not self._seen_image:
            self._seen_image = True
            frame_id = message.header.frame_id or "no frame_id"
            if isinstance(message, CompressedImage):
                kind = f"compressed, {message.format!r}"
            else:
                kind = f"{message.width} x {message.height}, {message.encoding!r}"
            self._node.get_logger().info(f"first image: {kind}, {frame_id}")
        self._session.offer(message, stamp_ns)
        if self._pairing is not None:
            self._pairing.add_image(message)

    def _on_prompt(self, message: Prompt) -> None:
        try:
            request = read_prompt(message)
        except PromptError as error:
            self._reject("prompt", message.object_id[:MAX_NAME_LENGTH], str(error))
            return
        self._submit(request, "prompt")

    def _on_click(self, message: Point) -> None:
        try:
            reject_integer_bits(np.array([message.x, message.y]), "click")
        except PromptError as error:
            self._reject("click", "", str(error))
            return
        self.click(message.x, message.y, self._overlay_ns() if self._clicks_are_on_overlay() else 0)

    def _clicks_are_on_overlay(self) -> bool:
        """Whether clicks come from a viewer of the overlay: such a viewer names its topic after the image's."""
        return self._subscriptions[-1].topic_name.startswith(self._node.resolve_topic_name("~/overlay"))

    def click(self, x_px: float, y_px: float, stamp_ns: int = 0) -> None:
        """Turn a click on this pixel of the image of that stamp (0: the next one) into a prompt, by ``click_mode``."""
        if not (math.isfinite(x_px) and math.isfinite(y_px)):
            self._reject("click", "", f"expected pixels, got x {x_px}, y {y_px}")
            return
        known_ids = tuple(item.tracked.object_id for item in self._session.view.objects)
        try:
            request = click_to_prompt(x_px, y_px, self._parameters(), known_ids, stamp_ns)
        except PromptError as error:
            self._reject("click", self._parameters().selected_object, str(error))
            return
        self._submit(request, "click")

    def _reject(self, what: str, object_id: str, why: str) -> None:
        """Report a prompt that was rejected before it reached the session."""
        self._warn(f"{what} for {object_id or 'a new object'} rejected: {why}")
        self._session.events.rejected(object_id, why)

    def _warn(self, text: str) -> None:
        """Once in a while for each reason: a node that sends prompts repeats its mistake with every image."""
        if self._told.is_due(text):
            self._node.get_logger().warning(text)

    def _submit(self, request: PromptRequest, what: str) -> None:
        ticket = self._session.prompt([request])
        ticket.outcomes.add_done_callback(lambda done: self._report(done, what))

    def _report(self, done: Future[tuple[PromptOutcome, ...]], what: str) -> None:
        """Log the answer: a topic has no other way to return one. Runs on the model thread."""
        error: Any = done.exception()
        outcomes = done.result() if error is None else ()
        for outcome in outcomes:
            if outcome.accepted:
                self._node.get_logger().info(f"{what} for {outcome.object_id!r} (label {outcome.label})")
            else:
                error = outcome.error
        if error is not None:
            self._warn(f"{what} rejected: {error}")


class SpatialSubscriptions:
    """Depth and calibration, which are only stored, and ``clicked_point``, see ``ClickedPoints``."""

    def __init__(
        self,
        node: LifecycleNode,
        session: Session,
        depth: DepthSource,
        transforms: Transforms,
        parameters: NodeParameters,
        on_click: Callable[[float, float, int], None],
        pairing: ImagePairing | None = None,
    ) -> None:
        self._node = node
        self._depth = depth
        self._latched_info: Any = None  # a second subscription to camera_info, once it is needed
        self._clicked = ClickedPoints(node, session, depth, transforms, on_click)
        self._pairing = pairing
        sensor = qos_profile_sensor_data  # best effort, depth 5
        self._subscriptions = [
            node.create_subscription(CameraInfo, "camera_info", self._on_camera_info, sensor),
            node.create_subscription(PointStamped, "clicked_point", self._clicked.put, 10),
        ]
        if parameters.use_depth:
            self._subscriptions.append(node.create_subscription(Image, "depth", self._on_depth, sensor))

    def topic_names(self) -> list[str]:
        return list(dict.fromkeys(subscription.topic_name for subscription in self._subscriptions))

    def prepare(self) -> None:
        """Called now and then: get ready for clicks that may come, and for a calibration that was published once.

        Only a transient local subscription gets that; such a one gets nothing from volatile publishers, and both sides
        would log the mismatch, so it is made where such a publisher is.
        """
        self._clicked.prepare()
        if self._latched_info is None and any(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for info in self._node.get_publishers_info_by_topic(self._subscriptions[0].topic_name)
        ):
            self._latched_info = self._node.create_subscription(
                CameraInfo, "camera_info", self._depth.put_camera_info, LATCHED
            )
            self._subscriptions.append(self._latched_info)

    def image_topics(self) -> list[str]:
        """The topics with images of the camera."""
        return list({each.topic_name for each in self._subscriptions if each.msg_type is not PointStamped})

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._clicked.destroy()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._depth.put_camera_info(message)
        if self._pairing is not None:
            self._pairing.add_camera_info(message)

    def _on_depth(self, message: Image) -> None:
        self._depth.put_depth(stamp_to_ns(message.header.stamp), message)
        if self._pairing is not None:
            self._pairing.add_depth(message)
