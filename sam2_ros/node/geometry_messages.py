"""Places, sizes and clouds as messages. What they mean: ``object_geometry`` and ``clouds``."""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sam2_ros.msg import TrackedObject
from sam2_ros.perception.object_geometry import ObjectGeometry

FIELD_TYPES = {
    "<f4": PointField.FLOAT32,
    "<u4": PointField.UINT32,
    "<u2": PointField.UINT16,
    "|u1": PointField.UINT8,
}
BOX_OPACITY = 0.4
TEXT_HEIGHT_M = 0.05
MIN_MARKER_M = 0.001  # RViz complains of sizes of zero


@dataclass(frozen=True)
class MarkedObject:
    """What the markers of one object show."""

    label: int
    text: str
    color_rgb: tuple[int, int, int]
    geometry: ObjectGeometry


def cloud_to_message(cloud: NDArray[np.void], header: Header) -> PointCloud2:
    """A structured (N,) array, e.g. of ``clouds.POINT_DTYPE``, as an unorganised cloud without missing points."""
    fields, offset = [], 0
    for name in cloud.dtype.names or ():
        kind = cloud.dtype[name]
        fields.append(PointField(name=name, offset=offset, datatype=FIELD_TYPES[kind.str], count=1))
        offset += kind.itemsize
    point_step = cloud.dtype.itemsize  # nothing between the fields
    data = array.array("B")
    data.frombytes(cloud.tobytes())
    message = PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=fields,
        is_bigendian=False,
        point_step=point_step,
        row_step=point_step * len(cloud),
        is_dense=True,
    )
    message.data = data  # assigned, not passed above: the constructor would copy it again
    return message


def object_pose(geometry: ObjectGeometry) -> Pose:
    """The oriented box's place; with ``size`` it is the box that holds the visible surface."""
    x, y, z = geometry.box_center.tolist()
    qx, qy, qz, qw = geometry.quaternion_xyzw
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def object_pose_stamped(geometry: ObjectGeometry, header: Header) -> PoseStamped:
    return PoseStamped(header=header, pose=object_pose(geometry))


def fill_pose(message: TrackedObject, geometry: ObjectGeometry | None) -> None:
    """Set ``has_pose``, ``pose`` and ``size``; without geometry the message stays as it is made: without a pose."""
    if geometry is None:
        return
    message.has_pose = True
    message.pose = object_pose(geometry)
    message.size = _vector(geometry.size)


def markers_to_message(objects: Sequence[MarkedObject], header: Header) -> MarkerArray:
    """A box and a text for each object, in place of all that was shown before."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in objects:
        markers += [_box(item, header), _text(item, header)]
    return MarkerArray(markers=markers)


def _box(item: MarkedObject, header: Header) -> Marker:
    marker = Marker(header=header, ns="boxes", id=item.label, type=Marker.CUBE, action=Marker.ADD)
    marker.pose = object_pose(item.geometry)
    marker.scale = _vector(np.maximum(item.geometry.size, MIN_MARKER_M))
    marker.color = _color(item.color_rgb, BOX_OPACITY)
    return marker


def _text(item: MarkedObject, header: Header) -> Marker:
    """Above the box as the camera sees it: the optical frame's y points down."""
    marker = Marker(header=header, ns="names", id=item.label, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
    x, y, z = item.geometry.box_center.tolist()
    half_height = float(np.abs(item.geometry.axes[1]) @ item.geometry.size) / 2
    marker.pose = Pose(position=Point(x=x, y=y - half_height - TEXT_HEIGHT_M, z=z))
    marker.scale.z = TEXT_HEIGHT_M
    marker.color = _color((255, 255, 255), 1.0)
    marker.text = item.text
    return marker


def _vector(values: Iterable[float]) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)


def _color(color_rgb: tuple[int, int, int], opacity: float) -> ColorRGBA:
    red, green, blue = (value / 255 for value in color_rgb)
    return ColorRGBA(r=red, g=green, b=blue, a=opacity)
