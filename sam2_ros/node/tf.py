"""tf2_ros where it is installed: frames of objects, and points of other frames. Without it nothing is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time


class Transforms:
    """A node's TF broadcaster and listener, created on first use: listening to a robot's TF costs CPU time."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._broadcaster: Any = None
        self._buffer: Any = None
        self._listener: Any = None
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

    def move_point(self, point: NDArray[np.float64], from_frame: str, to_frame: str) -> NDArray[np.float64] | str:
        """The (3,) point in ``to_frame`` by the newest transforms, or the reason why there is none."""
        try:
            import tf2_ros
        except Exception as error:
            return f"tf2_ros, which leads from one to the other, is not usable here ({type(error).__name__}: {error})"
        just_begun = self._buffer is None
        if just_begun:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node)
        try:
            found = self._buffer.lookup_transform(to_frame, from_frame, Time()).transform
        except tf2_ros.TransformException as error:
            begun = "; TF is listened to from now on: try again" if just_begun else ""
            return f"TF does not lead from one to the other ({error}){begun}"
        turn, shift = found.rotation, found.translation
        return rotate(np.array([turn.x, turn.y, turn.z, turn.w]), point) + np.array([shift.x, shift.y, shift.z])


def rotate(quaternion_xyzw: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (3,) point turned by a unit quaternion."""
    axis, w = quaternion_xyzw[:3], quaternion_xyzw[3]
    across = 2 * np.cross(axis, point)
    return np.asarray(point + w * across + np.cross(axis, across))
