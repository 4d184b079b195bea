"""Messages to numpy and back, and nothing else."""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Iterable

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from sam2_ros.msg import Prompt, PromptResult, TrackedObject, TrackedObjectArray
from sam2_ros.node import optional_cv_bridge
from sam2_ros.node.object_book import ObjectView, TrackingView
from sam2_ros.node.prompts import PromptAction, PromptOutcome, PromptRequest
from sam2_ros.tracking.types import PromptError

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
NANOSECONDS = 1_000_000_000


class ImageError(ValueError):
    """An image message that cannot be read; the message says what was expected, what came and what to do."""


def image_to_rgb(message: Image) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB. A view of the message's data for rgb8, a new array otherwise."""
    encoding = message.encoding
    if encoding not in CHANNELS:
        _check_size(message)
        converted = optional_cv_bridge.read_as_rgb(message)
        if isinstance(converted, str):
            raise ImageError(
                f"image encoding {encoding!r} is not supported; expected one of {', '.join(CHANNELS)}. {converted}"
            )
        return converted
    pixels = _pixels(message, CHANNELS[encoding])
    return pixels if encoding == "rgb8" else np.asarray(cv2.cvtColor(pixels, TO_RGB[encoding]), dtype=np.uint8)


def _check_size(message: Image) -> None:
    if message.width == 0 or message.height == 0:
        raise ImageError(f"image of size zero: width {message.width}, height {message.height}, expected at least 1 x 1")


def _pixels(message: Image, channels: int) -> NDArray[np.uint8]:
    """(H, W, channels) view of the data (H, W for one channel), without the padding at the end of the rows."""
    _check_size(message)
    height, width, step = message.height, message.width, message.step
    row_bytes = width * channels
    if step < row_bytes:
        raise ImageError(
            f"image step {step} is too small: {width} pixels of {message.encoding} need {row_bytes} bytes a row"
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    needed = step * (height - 1) + row_bytes  # the last row's padding may be missing
    if data.size < needed:
        raise ImageError(
            f"image data too short: {data.size} bytes, expected {step * height} "
            f"(step {step} x height {height}, encoding {message.encoding})"
        )
    if channels == 1:
        return np.lib.stride_tricks.as_strided(data, (height, width), (step, 1))
    return np.lib.stride_tricks.as_strided(data, (height, width, channels), (step, channels, 1))


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
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(time_ns: int) -> Time:
    return Time(sec=time_ns // NANOSECONDS, nanosec=time_ns % NANOSECONDS)


def read_prompt(message: Prompt) -> PromptRequest:
    """A Prompt message as the session takes it; PromptError when the message itself makes no sense."""
    try:
        action = PromptAction(message.action)
    except ValueError:
        known = ", ".join(f"{a.name}={int(a)}" for a in PromptAction)
        raise PromptError(f"unknown action {message.action}; expected {known}") from None
    points_xy = np.array([(p.x, p.y) for p in message.points], dtype=np.float32).reshape(-1, 2)
    labels = np.array(message.point_labels, dtype=np.int32)
    if len(points_xy) != len(labels):
        raise PromptError(f"expected one point label per point, got {len(points_xy)} points and {len(labels)} labels")
    box_xyxy = np.array(message.box_xyxy, dtype=np.float32)
    if len(box_xyxy) not in (0, 4):
        raise PromptError(f"box_xyxy must be empty or x0, y0, x1, y1; got {len(box_xyxy)} values")
    return PromptRequest(
        object_id=message.object_id,
        class_id=message.class_id,
        action=action,
        points_xy=points_xy if len(points_xy) else None,
        point_labels=labels if len(points_xy) else None,
        box_xyxy=box_xyxy if len(box_xyxy) else None,
        mask=_read_mask(message.mask),
        normalized=message.normalized,
    )


def _read_mask(message: Image) -> NDArray[np.bool_] | None:
    if message.width == 0 and message.height == 0 and len(message.data) == 0:
        return None
    if message.encoding not in ("mono8", "8UC1"):
        raise PromptError(f"the prompt's mask must be mono8 or 8UC1, got {message.encoding!r}")
    try:
        return _pixels(message, 1) != 0
    except ImageError as error:
        raise PromptError(f"the prompt's mask cannot be read: {error}") from None


def outcome_to_message(outcome: PromptOutcome) -> PromptResult:
    return PromptResult(
        accepted=outcome.accepted, error=outcome.error, object_id=outcome.object_id, label=outcome.label
    )


def view_to_message(view: TrackingView, *, with_masks: bool, now_ns: int | None = None) -> TrackedObjectArray:
    """All objects as of one image. ``now_ns``: the node's clock, for ``age_ms`` (0 without, or without a stamp)."""
    header = view.header if isinstance(view.header, Header) else Header()
    stamp_ns = stamp_to_ns(header.stamp)
    age_ms = (now_ns - stamp_ns) / 1e6 if now_ns is not None and stamp_ns else 0.0
    return TrackedObjectArray(
        header=header,
        frame_index=max(view.frame_index, 0),
        frames_dropped=view.frames_dropped,
        inference_ms=float(view.inference_ms),
        age_ms=float(age_ms),
        objects=objects_to_messages(view.objects, header, with_masks=with_masks),
    )


def objects_to_messages(objects: Iterable[ObjectView], header: Header, *, with_masks: bool) -> list[TrackedObject]:
    return [_object_to_message(item, header, with_masks) for item in objects]


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
