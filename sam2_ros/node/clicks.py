"""Clicks as prompts: what a click means, and points in space as pixels of the image that was shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from sam2_ros.log_throttle import LogThrottle
from sam2_ros.node.conversions import reject_integer_bits
from sam2_ros.node.optional.tf import Transforms
from sam2_ros.perception.camera import GeometryError
from sam2_ros.perception.depth import DepthSource
from sam2_ros.session.objects import PromptAction, PromptRequest, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.tracking.types import PromptError

WAIT_FOR_TF_S = 1.0  # transforms come some time after the image of their stamp
TRY_AGAIN_S = 0.05
MAX_WAITING = 16  # clicks; each asks TF again and again
REPEAT_REJECTION_S = 5.0  # in the log


def click_to_prompt(
    x_px: float, y_px: float, parameters: NodeParameters, known_ids: tuple[str, ...], stamp_ns: int = 0
) -> PromptRequest:
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
        refine_if_known=parameters.click_mode == "auto",  # an earlier click may still be queued
        points_xy=np.array([[x_px, y_px]], dtype=np.float32),
        point_labels=np.array([1], dtype=np.int32),
        stamp_ns=stamp_ns,
    )


@dataclass(frozen=True)
class _Click:
    """A point that was clicked, with the image that was shown then."""

    point: NDArray[np.float64]  # (3,) m
    frame: str
    view: TrackingView
    until_s: float  # by the monotonic clock: how long TF is waited for


class NoTransformError(PromptError):
    """TF does not lead from the point's frame to the camera's, or not yet."""


class ClickedPoints:
    """Points in any frame, of RViz' tool: each becomes ``on_click(x_px, y_px, stamp_ns)``.

    The prompt is for the image that was processed last when the click came, and TF is asked for that image's time. TF
    may be a little late, or listened to only since then: a click waits for it, and the executor does not.
    """

    def __init__(
        self,
        node: LifecycleNode,
        session: Session,
        depth: DepthSource,
        transforms: Transforms,
        on_click: Callable[[float, float, int], None],
    ) -> None:
        self._node = node
        self._session = session
        self._depth = depth
        self._transforms = transforms
        self._on_click = on_click
        self._waiting: list[_Click] = []
        self._timer: Any = None  # there while clicks wait
        self._told = LogThrottle(REPEAT_REJECTION_S)

    def prepare(self) -> None:
        """Listen to TF as soon as somebody may click, so that the first click finds the transforms of its image."""
        if self._node.count_publishers(self._node.resolve_topic_name("clicked_point")):  # it does not remap by itself
            self._transforms.listen()

    def put(self, message: PointStamped) -> None:
        try:
            self._try(self._read(message))
        except (PromptError, GeometryError) as error:
            self._reject(error)

    def destroy(self) -> None:
        self._waiting.clear()
        self._stop_timer()

    def _read(self, message: PointStamped) -> _Click:
        view = self._session.view
        if view.image_rgb is None:
            raise PromptError("no image was processed yet; click again when the camera runs")
        point = np.array([message.point.x, message.point.y, message.point.z])
        reject_integer_bits(point, "point")
        if not np.isfinite(point).all():
            raise PromptError(f"expected a finite point, got {point.tolist()}")
        return _Click(point, message.header.frame_id, view, time.monotonic() + WAIT_FOR_TF_S)

    def _try(self, click: _Click) -> None:
        """Carry the click out, or let it wait for TF."""
        try:
            x_px, y_px = self._project(click)
        except NoTransformError:
            if time.monotonic() >= click.until_s:
                raise
            if len(self._waiting) >= MAX_WAITING:
                raise PromptError(f"{MAX_WAITING} clicks wait for transforms already: click again later") from None
            self._waiting.append(click)
            if self._timer is None:
                clock = Clock(clock_type=ClockType.STEADY_TIME)
                self._timer = self._node.create_timer(TRY_AGAIN_S, self._try_again, clock=clock)
        else:
            self._on_click(x_px, y_px, click.view.stamp_ns)

    def _try_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for click in waiting:
            try:
                self._try(click)
            except (PromptError, GeometryError) as error:
                self._reject(error)
        if not self._waiting:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _reject(self, error: Exception) -> None:
        if self._told.is_due(str(error)):
            self._node.get_logger().warning(f"clicked_point rejected: {error}")

    def _project(self, click: _Click) -> tuple[float, float]:
        """Where the camera saw the point, in pixels of the click's image."""
        view = click.view
        assert view.image_rgb is not None, "a click is on an image"
        height, width = view.image_rgb.shape[:2]
        point = self._in_camera(click)
        x_px, y_px = self._depth.intrinsics(width, height).project(point[None])[0].tolist()
        if math.isnan(x_px):
            raise PromptError(f"the point is behind the camera: {point[2]:.3f} m along its view")
        # A pixel reaches half a pixel around its centre.
        if not (-0.5 <= x_px < width - 0.5 and -0.5 <= y_px < height - 0.5):
            raise PromptError(
                f"the camera does not see the point: it is at x {x_px:.0f}, y {y_px:.0f} of an image of "
                f"{width} x {height} px"
            )
        return max(x_px, 0.0), max(y_px, 0.0)

    def _in_camera(self, click: _Click) -> NDArray[np.float64]:
        """The (3,) point in the camera's frame, at the time of the click's image."""
        camera = click.view.header.frame_id or self._depth.camera_frame
        if click.frame == camera:
            return click.point
        frames = f"the point is in frame {click.frame!r} and the camera in {camera!r}"
        if why := self._transforms.listen():
            raise PromptError(f"{frames}: {why}")
        stamp_ns = click.view.stamp_ns
        moved = self._transforms.move_point(click.point, click.frame, camera, stamp_ns)
        if isinstance(moved, str) and time.monotonic() >= click.until_s and not self._transforms.heard(stamp_ns):
            # Nobody listened to TF when the image was taken: the newest transforms are the oldest that there are.
            moved = self._transforms.move_point(click.point, click.frame, camera)
        if isinstance(moved, str):
            raise NoTransformError(f"{frames}: {moved}")
        return moved
