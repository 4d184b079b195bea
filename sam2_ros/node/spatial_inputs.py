"""What the node subscribes to because the world has three dimensions: depth, calibration, points clicked in RViz."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PointStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.node.tf import Transforms
from sam2_ros.perception.camera import GeometryError
from sam2_ros.perception.scene_depth import DepthSource
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.session import Session
from sam2_ros.tracking.types import PromptError


class SpatialInputs:
    """Subscriptions that only store, and ``clicked_point``, which becomes ``on_click(x, y)`` in pixels."""

    def __init__(
        self,
        node: LifecycleNode,
        session: Session,
        depth: DepthSource,
        transforms: Transforms,
        parameters: NodeParameters,
        on_click: Callable[[float, float], None],
    ) -> None:
        self._node = node
        self._session = session
        self._depth = depth
        self._transforms = transforms
        self._on_click = on_click
        sensor = qos_profile_sensor_data  # best effort, depth 5
        self._subscriptions = [
            node.create_subscription(CameraInfo, "camera_info", depth.put_camera_info, sensor),
            node.create_subscription(PointStamped, "clicked_point", self._on_clicked_point, 10),
        ]
        if parameters.use_depth:
            self._subscriptions.append(node.create_subscription(Image, "depth", self._on_depth, sensor))

    def topic_names(self) -> list[str]:
        return [subscription.topic_name for subscription in self._subscriptions]

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_depth(self, message: Image) -> None:
        self._depth.put_depth(stamp_to_ns(message.header.stamp), message)

    def _on_clicked_point(self, message: PointStamped) -> None:
        try:
            x_px, y_px = self._project(message)
        except (PromptError, GeometryError) as error:
            self._node.get_logger().warning(f"clicked_point refused: {error}")
            return
        self._on_click(x_px, y_px)

    def _project(self, message: PointStamped) -> tuple[float, float]:
        """Where the camera sees the point, in pixels of the latest processed image."""
        view = self._session.view
        if view.image_rgb is None:
            raise PromptError("no image was processed yet; click again when the camera runs")
        point = np.array([message.point.x, message.point.y, message.point.z])
        if not np.isfinite(point).all():
            raise PromptError(f"expected a finite point, got {point.tolist()}")
        camera, frame = view.header.frame_id or self._depth.camera_frame, message.header.frame_id
        if frame != camera:
            moved = self._transforms.move_point(point, frame, camera)
            if isinstance(moved, str):
                raise PromptError(f"the point is in frame {frame!r} and the camera in {camera!r}: {moved}")
            point = moved
        height, width = view.image_rgb.shape[:2]
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
