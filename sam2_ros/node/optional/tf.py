"""tf2_ros where it is installed: frames of objects, and points of other frames. Without it nothing is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time


class Transforms:
    """A node's TF broadcaster and listener, created when they are needed: listening to a robot's TF costs CPU time."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._broadcaster: Any = None
        self._buffer: Any = None
        self._listener: Any = None
        self._since_ns = 0  # when it began to listen, by the node's clock
        self._usable = True  # until the import says otherwise

    def send(self, transforms: list[TransformStamped]) -> None:
        if not self._usable or not transforms:
            return
        if self._broadcaster is None:
            try:
                from tf2_ros import TransformBroadcaster
            except Exception:  # an ImportError, or what a broken installation raises
                self._usable = False
                return
            self._broadcaster = TransformBroadcaster(self._node)
        self._broadcaster.sendTransform(transforms)

    def forget(self) -> None:
        """Drop all transforms received so far: after a time jump their stamps will occur again."""
        if self._buffer is not None:
            self._buffer.clear()

    def listen(self) -> str:
        """Begin to listen to TF unless that has been done; why it cannot be, empty when it can."""
        try:
            import tf2_ros
        except Exception as error:
            return f"tf2_ros, which leads from one to the other, is not usable here ({type(error).__name__}: {error})"
        if self._buffer is None:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)
            self._since_ns = self._node.get_clock().now().nanoseconds
        return ""

    def heard(self, stamp_ns: int) -> bool:
        """Whether TF was listened to already at this time."""
        return self._buffer is not None and self._since_ns < stamp_ns

    def move_point(
        self, point: NDArray[np.float64], from_frame: str, to_frame: str, stamp_ns: int = 0
    ) -> NDArray[np.float64] | str:
        """The (3,) point in ``to_frame`` by the transforms of a time, or the reason why there are none.

        ``stamp_ns``: 0 means the newest ones.
        """
        if why := self.listen():
            return why
        import tf2_ros

        try:
            time = Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME)
            found = self._buffer.lookup_transform(to_frame, from_frame, time).transform
        except tf2_ros.TransformException as error:
            return f"TF does not lead from one to the other ({error})"
        turn, shift = found.rotation, found.translation
        return rotate(np.array([turn.x, turn.y, turn.z, turn.w]), point) + np.array([shift.x, shift.y, shift.z])


def rotate(quaternion_xyzw: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (3,) point turned by a unit quaternion."""
    axis, w = quaternion_xyzw[:3], quaternion_xyzw[3]
    across = 2 * np.cross(axis, point)
    return np.asarray(point + w * across + np.cross(axis, across))
