"""What the node subscribes to while it is active: images, prompts, clicks. No callback waits for anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import read_prompt, stamp_to_ns
from sam2_ros.node.doctor import ImageWatch
from sam2_ros.node.publishers import make_qos
from sam2_ros.session.objects import PromptAction, PromptOutcome, PromptRequest
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.session.work_queue import QUEUED_IMAGES
from sam2_ros.tracking.types import PromptError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # the module's name in Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


COMPRESSED_SUFFIX = "/compressed"  # of an image topic's name, as image_transport has it


class Inputs:
    """Subscriptions that feed a session; ``destroy`` ends them."""

    def __init__(
        self, node: LifecycleNode, session: Session, watch: ImageWatch, parameters: Callable[[], NodeParameters]
    ) -> None:
        self._node = node
        self._session = session
        self._watch = watch
        self._parameters = parameters
        self._seen_image = False
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
        except UnsupportedEventTypeError:  # a middleware that does not count what it loses
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

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._watch.note_image()
        if not self._seen_image:
            self._seen_image = True
            frame_id = message.header.frame_id or "no frame_id"
            if isinstance(message, CompressedImage):
                kind = f"compressed, {message.format!r}"
            else:
                kind = f"{message.width} x {message.height}, {message.encoding!r}"
            self._node.get_logger().info(f"first image: {kind}, {frame_id}")
        self._session.offer(message, stamp_ns)

    def _on_prompt(self, message: Prompt) -> None:
        try:
            request = read_prompt(message)
        except PromptError as error:
            self._refuse("prompt", message.object_id, str(error))
            return
        self._submit(request, "prompt")

    def _on_click(self, message: Point) -> None:
        self.click(message.x, message.y)

    def click(self, x_px: float, y_px: float) -> None:
        """Somebody pointed at this pixel of the image."""
        if not (math.isfinite(x_px) and math.isfinite(y_px)):
            self._refuse("click", "", f"expected pixels, got x {x_px}, y {y_px}")
            return
        known_ids = tuple(item.tracked.object_id for item in self._session.view.objects)
        try:
            request = click_to_prompt(x_px, y_px, self._parameters(), known_ids)
        except PromptError as error:
            self._refuse("click", self._parameters().selected_object, str(error))
            return
        self._submit(request, "click")

    def _refuse(self, what: str, object_id: str, why: str) -> None:
        """What did not get as far as the session."""
        self._node.get_logger().warning(f"{what} for {object_id or 'a new object'} refused: {why}")
        self._session.events.refused(object_id, why)

    def _submit(self, request: PromptRequest, what: str) -> None:
        ticket = self._session.prompt([request])
        ticket.outcomes.add_done_callback(lambda done: self._report(done, what))

    def _report(self, done: Future[tuple[PromptOutcome, ...]], what: str) -> None:
        """Nobody waits for the answer to a topic: it goes to the log. Runs on the session's worker."""
        error: Any = done.exception()
        outcomes = done.result() if error is None else ()
        for outcome in outcomes:
            if outcome.accepted:
                self._node.get_logger().info(f"{what} for {outcome.object_id!r} (label {outcome.label})")
            else:
                error = outcome.error
        if error is not None:
            self._node.get_logger().warning(f"{what} refused: {error}")


def click_to_prompt(x_px: float, y_px: float, parameters: NodeParameters, known_ids: tuple[str, ...]) -> PromptRequest:
    """What a click means under ``click_mode`` and ``selected_object``; PromptError when there is nothing to refine."""
    selected = parameters.selected_object
    if parameters.click_mode == "refine" and selected not in known_ids:
        raise PromptError(
            f"click_mode is 'refine' and selected_object {selected!r} is not a known object; "
            f"set selected_object to one of: {', '.join(known_ids) or '(none yet)'}, or click_mode to 'add' or 'auto'"
        )
    return PromptRequest(
        object_id="" if parameters.click_mode == "add" else selected,
        action=PromptAction.REFINE if parameters.click_mode == "refine" else PromptAction.ADD,
        refine_if_known=parameters.click_mode == "auto",  # a click before this one may still wait for the model
        points_xy=np.array([[x_px, y_px]], dtype=np.float32),
        point_labels=np.array([1], dtype=np.int32),
    )
