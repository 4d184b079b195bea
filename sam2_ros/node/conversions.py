"""Messages to numpy and back, and nothing else. (Camera images are read in ``image_io``.)"""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from numpy.typing import ArrayLike, NDArray
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from sam2_ros.image_io.compressed import JPEG_QUALITY, compressed_to_rgb, encode_rgb
from sam2_ros.image_io.encodings import ImageError, check_pixels, image_to_rgb, read_pixels
from sam2_ros.msg import Prompt, PromptResult, TrackedObject, TrackedObjectArray
from sam2_ros.node.optional.other_encodings import OtherEncodings
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.saved_values import MAX_NAME_LENGTH
from sam2_ros.session.objects import ObjectView, PromptAction, PromptOutcome, PromptRequest, TrackingView
from sam2_ros.tracking.types import PromptError

# Default service QoS with a deeper queue: the middleware silently drops concurrent requests beyond its depth.
SERVICE_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE)
NANOSECONDS = 1_000_000_000
FIELD_TYPES = {
    "<f4": PointField.FLOAT32,
    "<u4": PointField.UINT32,
    "<u2": PointField.UINT16,
    "|u1": PointField.UINT8,
}
BOX_OPACITY = 0.4
TEXT_HEIGHT_M = 0.05
MIN_MARKER_M = 0.001  # RViz warns about sizes of zero


def array_to_image(pixels: NDArray[np.uint8] | NDArray[np.uint16], encoding: str, header: Header) -> Image:
    """(H, W) or (H, W, C) uint8, or (H, W) uint16 pixels as a message; ``encoding`` is not checked against them."""
    contiguous = np.ascontiguousarray(pixels)
    data = array.array("B")
    data.frombytes(contiguous.data.cast("B"))
    message = Image(
        header=header,
        height=contiguous.shape[0],
        width=contiguous.shape[1],
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big" and contiguous.dtype.itemsize > 1),
        step=contiguous.strides[0],
    )
    message.data = data  # assigned, not passed above: the constructor would copy it again
    return message


def label_image_to_message(label_image: NDArray[np.uint8] | NDArray[np.uint16], header: Header) -> Image:
    """(H, W) uint8 or uint16 labels as mono8 or mono16."""
    return array_to_image(label_image, "mono8" if label_image.dtype == np.uint8 else "mono16", header)


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds of the stamp; its nanosec field is limited to a second, which some drivers exceed."""
    return int(stamp.sec) * NANOSECONDS + min(int(stamp.nanosec), NANOSECONDS - 1)


def ns_to_stamp(time_ns: int) -> Time:
    return Time(sec=time_ns // NANOSECONDS, nanosec=time_ns % NANOSECONDS)


def read_prompt(message: Prompt) -> PromptRequest:
    """A Prompt message as the session takes it; PromptError when the message itself makes no sense."""
    try:
        action = PromptAction(message.action)
    except ValueError:
        known = ", ".join(f"{a.name}={int(a)}" for a in PromptAction)
        raise PromptError(f"unknown action {message.action}; expected {known}") from None
    for name, text in (("object_id", message.object_id), ("class_id", message.class_id)):
        if len(text) > MAX_NAME_LENGTH:
            raise PromptError(f"{name}: expected at most {MAX_NAME_LENGTH} characters, got {len(text)}")
    wide_xy = np.array([(p.x, p.y) for p in message.points], dtype=np.float64).reshape(-1, 2)
    reject_integer_bits(wide_xy, "points")
    with np.errstate(over="ignore"):  # infinite then, and rejected as such
        points_xy = wide_xy.astype(np.float32)
    labels = np.array(message.point_labels, dtype=np.int32)
    if len(points_xy) != len(labels):
        raise PromptError(f"expected one point label per point, got {len(points_xy)} points and {len(labels)} labels")
    box_xyxy = np.array(message.box_xyxy, dtype=np.float32)
    if len(box_xyxy) not in (0, 4):
        raise PromptError(f"box_xyxy must be empty or x0, y0, x1, y1; got {len(box_xyxy)} values")
    reject_integer_bits(box_xyxy, "box_xyxy")
    return PromptRequest(
        object_id=message.object_id,
        class_id=message.class_id,
        action=action,
        points_xy=points_xy if len(points_xy) else None,
        point_labels=labels if len(points_xy) else None,
        box_xyxy=box_xyxy if len(box_xyxy) else None,
        mask=_read_mask(message.mask),
        normalized=message.normalized,
        stamp_ns=stamp_to_ns(message.header.stamp),
    )


def reject_integer_bits(values: NDArray[Any], name: str) -> None:
    """PromptError for subnormal numbers, which no user means: some Python messages store the bits of an integer.

    ``Point(x=320)`` then arrives as 1.6e-321.
    """
    # By their bits: a processor that flushes subnormal numbers takes them for zero.
    unsigned, mantissa_bits = (np.uint64, 52) if values.dtype == np.float64 else (np.uint32, 23)
    bits = (values.view(unsigned) << unsigned(1)) >> unsigned(1)  # without the sign
    subnormal = (bits > 0) & (bits < 1 << mantissa_bits)
    if subnormal.any():
        raise PromptError(
            f"{name}: got {values[subnormal][0]:g}, which is what an integer becomes in a message of floats; "
            "give floats: Point(x=320.0), not Point(x=320)"
        )


def make_prompt(
    object_id: str,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    mask: NDArray[Any] | None,
    normalized: bool,
    stamp: Time | Header | int | None,
) -> Prompt:
    """The Prompt of these values, given as numbers of any kind; ``stamp`` as a stamp, a header or nanoseconds.

    Raises:
        ValueError: not the shape of points (x, y), one label for each, a box or an (H, W) mask.
    """
    prompt = Prompt(object_id=object_id, normalized=normalized)
    if isinstance(stamp, Header):
        stamp = stamp.stamp
    if stamp is not None:
        prompt.header.stamp = ns_to_stamp(stamp) if isinstance(stamp, int) else stamp
    points_xy = _numbers("points", points, 2)
    prompt.points = [Point(x=x, y=y) for x, y in zip(points_xy[::2], points_xy[1::2], strict=True)]
    given = [1] * len(prompt.points) if labels is None else np.atleast_1d(np.asarray(labels)).ravel().tolist()
    if len(given) != len(prompt.points):
        raise ValueError(f"labels: expected one for each of {len(prompt.points)} points, got {len(given)}")
    prompt.point_labels = [int(label) for label in given]
    corners = _numbers("box", box, 4)
    if len(corners) > 4:
        raise ValueError(f"box: expected x0, y0, x1, y1, got {len(corners)} numbers")
    prompt.box_xyxy = corners
    if mask is not None:
        mask_hw = np.asarray(mask)
        if mask_hw.ndim != 2:
            raise ValueError(f"mask: expected (H, W), got {mask_hw.shape}")
        prompt.mask = array_to_image((mask_hw != 0).astype(np.uint8) * 255, "mono8", Header())
    return prompt


def _numbers(name: str, values: ArrayLike | None, group: int) -> Sequence[float]:
    flat = np.zeros(0) if values is None else np.asarray(values, dtype=np.float64).ravel()
    if len(flat) % group:
        raise ValueError(f"{name}: expected groups of {group} numbers, got {len(flat)}")
    return [float(value) for value in flat]


def image_to_labels(message: Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) labels or mask of a mono8 or mono16 image; ImageError for another encoding or missing data."""
    if message.encoding not in ("mono8", "mono16"):
        raise ImageError(f"expected a label image or mask in mono8 or mono16, got {message.encoding!r}")
    return np.array(read_pixels(message, 1, np.uint8 if message.encoding == "mono8" else np.uint16))


def place_mask(message: Image, roi: RegionOfInterest, height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) of a mask that was cropped to its box; all False for an empty one."""
    mask = np.zeros((height, width), dtype=np.bool_)
    if roi.width and roi.height:
        rows = slice(roi.y_offset, roi.y_offset + roi.height)
        mask[rows, roi.x_offset : roi.x_offset + roi.width] = image_to_labels(message) != 0
    return mask


def roi_to_box(roi: RegionOfInterest) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 in px, half open; None when it is empty."""
    if not (roi.width and roi.height):
        return None
    return roi.x_offset, roi.y_offset, roi.x_offset + roi.width, roi.y_offset + roi.height


def _read_mask(message: Image) -> NDArray[np.bool_] | None:
    if message.width == 0 and message.height == 0 and len(message.data) == 0:
        return None
    if message.encoding not in ("mono8", "8UC1"):
        raise PromptError(f"the prompt's mask must be mono8 or 8UC1, got {message.encoding!r}")
    try:
        return read_pixels(message, 1) != 0
    except ImageError as error:
        raise PromptError(f"the prompt's mask cannot be read: {error}") from None


def outcome_to_message(outcome: PromptOutcome) -> PromptResult:
    return PromptResult(
        accepted=outcome.accepted, error=outcome.error, object_id=outcome.object_id, label=outcome.label
    )


def view_to_message(view: TrackingView, *, with_masks: bool, now_ns: int | None = None) -> TrackedObjectArray:
    """All objects as of one image. ``now_ns``: the node's clock, for ``age_ms``; 0 where the age is not known."""
    header = view.header if isinstance(view.header, Header) else Header()
    stamp_ns = stamp_to_ns(header.stamp)
    age_ms = (now_ns - stamp_ns) / 1e6 if now_ns and stamp_ns and view.age_is_known else 0.0
    return TrackedObjectArray(
        header=header,
        frame_index=max(view.frame_index, 0),
        frames_dropped=view.frames_dropped,
        inference_ms=float(view.inference_ms),
        age_ms=float(age_ms),
        objects=[_object_to_message(item, header, with_masks) for item in view.objects],
    )


def _object_to_message(item: ObjectView, header: Header, with_mask: bool) -> TrackedObject:
    tracked = item.tracked
    message = TrackedObject(
        object_id=tracked.object_id,
        label=tracked.label,
        class_id=item.class_id,
        state=int(tracked.state),
        score=float(tracked.score),
        mask_quality=float(tracked.mask_quality),
        area=int(tracked.area_px),
        first_seen=ns_to_stamp(item.first_seen_ns),
        last_seen=ns_to_stamp(item.last_seen_ns),
    )
    x, y = tracked.centroid_xy or (math.nan, math.nan)
    message.centroid.x, message.centroid.y = float(x), float(y)
    if tracked.box_xyxy is not None:
        x0, y0, x1, y1 = (int(value) for value in tracked.box_xyxy)
        message.roi = RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0)
        if with_mask:
            message.mask = array_to_image(tracked.mask[y0:y1, x0:x1].astype(np.uint8) * 255, "mono8", header)
    return message


def rgb_to_compressed(
    image_rgb: NDArray[np.uint8], header: Header, codec: str = "jpeg", jpeg_quality: int = JPEG_QUALITY
) -> CompressedImage:
    """(H, W, 3) uint8 RGB as a message, for topics that end in ``/compressed``; ``codec`` is "jpeg" or "png"."""
    stated_format, encoded = encode_rgb(image_rgb, codec, jpeg_quality)
    message = CompressedImage(header=header, format=stated_format)
    data = array.array("B")
    data.frombytes(encoded.data.cast("B"))
    message.data = data  # assigned, not passed above: the constructor would copy it again
    return message


@dataclass(frozen=True)
class MarkedObject:
    """What the markers of one object show."""

    label: int
    text: str
    color_rgb: tuple[int, int, int]
    geometry: ObjectGeometry


def cloud_to_message(cloud: NDArray[np.void], header: Header) -> PointCloud2:
    """A structured (N,) array, e.g. of ``POINT_DTYPE``, as an unorganised cloud without missing points."""
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
    """Centre and orientation of the box around the visible surface, whose extent is ``size``."""
    x, y, z = geometry.box_center.tolist()
    qx, qy, qz, qw = geometry.quaternion_xyzw
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def object_pose_stamped(geometry: ObjectGeometry, header: Header) -> PoseStamped:
    return PoseStamped(header=header, pose=object_pose(geometry))


def fill_pose(message: TrackedObject, geometry: ObjectGeometry | None) -> None:
    """Set ``has_pose``, ``pose`` and ``size``; without geometry the message is not changed."""
    if geometry is None:
        return
    message.has_pose = True
    message.pose = object_pose(geometry)
    message.size = _vector(geometry.size)


def markers_to_message(objects: Sequence[MarkedObject], header: Header, lifetime_s: float = 0.0) -> MarkerArray:
    """A box and a text for each object, which replace all earlier markers. ``lifetime_s``: 0 = for ever."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in objects:
        markers += [_box(item, header), _text(item, header)]
    for marker in markers[1:]:
        marker.lifetime = Duration(sec=int(lifetime_s), nanosec=round(lifetime_s % 1 * 1e9))
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


read_other = OtherEncodings()


def decode_image(message: Image | CompressedImage, max_pixels: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; ImageError when it cannot be read or has more than ``max_pixels``."""
    if isinstance(message, CompressedImage):
        return compressed_to_rgb(message, max_pixels)
    check_pixels(message, max_pixels)
    return image_to_rgb(message, read_other)
