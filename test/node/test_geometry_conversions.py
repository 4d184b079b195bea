"""Places, sizes and clouds as messages."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from sam2_ros.msg import TrackedObject
from sam2_ros.node.conversions import MarkedObject, cloud_to_message, fill_pose, markers_to_message, object_pose_stamped
from sam2_ros.perception.object_geometry import POINT_DTYPE, ObjectGeometry

HEADER = Header(frame_id="camera_optical")
TURNED = ObjectGeometry(  # by 90 degrees about z
    centroid=np.array([0.0, 0.0, 1.0]),
    box_center=np.array([0.5, 0.25, 1.5]),
    size=np.array([0.5, 0.25, 0.0]),
    axes=np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    points_used=100,
)


def test_cloud_to_message() -> None:
    cloud = np.zeros(3, dtype=POINT_DTYPE)
    cloud["x"], cloud["label"] = [1, 2, 3], [7, 7, 70000]
    message = deserialize_message(serialize_message(cloud_to_message(cloud, HEADER)), PointCloud2)
    assert message.header == HEADER
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 3, 20, 60)
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
        ("rgb", 12, 7, 1),
        ("label", 16, 6, 1),
    ]  # 7 is FLOAT32, 6 is UINT32
    assert message.is_dense and not message.is_bigendian
    np.testing.assert_array_equal(np.frombuffer(message.data, dtype=POINT_DTYPE), cloud)


def test_an_empty_cloud_is_a_message_too() -> None:
    message = cloud_to_message(np.zeros(0, dtype=POINT_DTYPE), HEADER)
    assert (message.width, message.row_step, len(message.data), len(message.fields)) == (0, 0, 0, 5)


def test_pose_is_that_of_the_box() -> None:
    message = object_pose_stamped(TURNED, HEADER)
    assert message.header == HEADER
    position, orientation = message.pose.position, message.pose.orientation
    assert (position.x, position.y, position.z) == (0.5, 0.25, 1.5)
    half = 0.5**0.5
    assert (orientation.x, orientation.y, orientation.z, orientation.w) == pytest.approx((0, 0, half, half), abs=1e-9)


def test_fill_pose() -> None:
    message = TrackedObject()
    fill_pose(message, None)
    assert message == TrackedObject()
    fill_pose(message, TURNED)
    assert message.has_pose and message.pose.position.z == 1.5
    assert (message.size.x, message.size.y, message.size.z) == (0.5, 0.25, 0.0)


def test_markers() -> None:
    message = markers_to_message([MarkedObject(4, "mug", (255, 0, 51), TURNED)], HEADER)
    clear, box, text = message.markers
    assert clear.action == Marker.DELETEALL
    assert (box.type, box.ns, box.id, box.header) == (Marker.CUBE, "boxes", 4, HEADER)
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.5, 0.25, 0.001)  # no size of zero
    assert (box.color.r, box.color.g, box.color.b, box.color.a) == pytest.approx((1, 0, 0.2, 0.4))
    assert (text.type, text.id, text.text) == (Marker.TEXT_VIEW_FACING, 4, "mug")
    # The box's longest side is upright: its upper end is 0.25 m above the middle, and y points down.
    assert text.pose.position.y == pytest.approx(0.25 - 0.25 - 0.05)


def test_markers_of_nothing_clear_the_view() -> None:
    assert [marker.action for marker in markers_to_message([], HEADER).markers] == [Marker.DELETEALL]
