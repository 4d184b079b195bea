"""Depth images in metres on the grid of the colour image, paired by stamp, and the objects of an image in space.

Depth and calibration arrive on their own topics and are only stored; the publishing thread looks up those of an image
when its masks are ready. An image never waits for them. A message is any object with ``Image``'s fields.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.encodings import ImageError, ImageMessage, read_pixels
from sam2_ros.log_throttle import LogThrottle
from sam2_ros.perception.camera import CameraInfoMessage, GeometryError, Intrinsics, check_aspect, read_intrinsics
from sam2_ros.perception.object_geometry import ObjectGeometry, keep_out_mask, measure_object, object_cloud
from sam2_ros.perception.stamped_buffer import StampedBuffer
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.stamps import TimeJumpDetector
from sam2_ros.tracking.types import ObjectState

MILLIMETRE = 0.001  # REP-118: 16UC1 is in mm, 32FC1 in m
# mono16 is another name for the same bytes, used by some drivers.
DEPTH_TYPES: dict[str, type[np.generic]] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
OFFSETS_KEPT, LEAST_OFFSETS = 15, 5  # pairs of images by which the offset of the stamps is measured
ARRIVAL_SLACK_S = 0.1  # beside the slop: depth is computed, and arrives a little later than it should
SAMPLED_EVERY, LEAST_SAMPLES = 4, 10  # pixels by which the unit is checked
NEAREST_M, FARTHEST_M = 0.02, 100.0  # an image that lies all beyond is in another unit
DEPTH_IMAGES_KEPT = 10  # beside the one nearest to each image that waits or is being processed


def read_depth(message: ImageMessage, scale_m: float = MILLIMETRE) -> NDArray[np.float32]:
    """The depth image as (H, W) float32 metres, NaN where nothing was measured.

    Args:
        message: 16UC1 (or mono16) in units of ``scale_m``, or 32FC1 in metres.
        scale_m: metres of one unit of 16UC1; what REP-118 says unless a driver departs from it.

    Raises:
        ImageError: another encoding, size zero, step too small or data missing.
    """
    dtype = DEPTH_TYPES.get(message.encoding)
    if dtype is None:
        raise ImageError(
            f"depth encoding {message.encoding!r} is not supported; expected one of {', '.join(DEPTH_TYPES)}: is this "
            "the topic of the depth image?"
        )
    values = read_pixels(message, 1, dtype)
    return depth_to_metres(values, 1.0 if dtype is np.float32 else scale_m)


def depth_to_metres(values: NDArray[Any], scale_m: float) -> NDArray[np.float32]:
    """Depth in units of ``scale_m`` as metres. NaN for what means "not measured": 0, negative, NaN, infinite."""
    with np.errstate(invalid="ignore"):
        metres = values.astype(np.float32) * np.float32(scale_m)
        metres[~((metres > 0) & np.isfinite(metres))] = np.nan
    return metres


def on_image_grid(depth_m: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Aligned depth at the resolution of the colour image, one value per pixel.

    Each pixel takes the depth pixel that its centre falls into. Means are never taken: at the edge of an object a mean
    would be a point in the air between the object and its background.

    Raises:
        GeometryError: another aspect ratio, so the depth image cannot be aligned with the colour image.
    """
    depth_height, depth_width = depth_m.shape
    if (depth_height, depth_width) == (height, width):
        return depth_m
    check_aspect("the depth image", depth_width, depth_height, width, height)
    rows = (2 * np.arange(height) + 1) * depth_height // (2 * height)
    columns = (2 * np.arange(width) + 1) * depth_width // (2 * width)
    return depth_m[rows[:, None], columns]


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SceneDepth:
    """Depth for every pixel of one camera image."""

    depth_m: NDArray[np.float32]  # (H, W), NaN where nothing was measured
    intrinsics: Intrinsics


@dataclass(frozen=True)
class Scene:
    """The objects of one image in space; empty without depth."""

    depth: SceneDepth | None = None
    geometry: Mapping[str, ObjectGeometry] = field(default_factory=dict)  # by object id; TRACKED ones with enough depth


class NoDepthError(ValueError):
    """No depth image belongs to this one, or none that can be used; the message says why."""


class StampOffset:
    """How much later the stamps of depth images are than those of the camera images that arrive with them.

    A depth image with a wrong stamp lies next to a camera image of another moment: pairing by stamps alone does not
    show it, arrivals do. Each camera image is compared with the first depth image after it, and the median counts: a
    replay at another speed, or a delay now and then, changes nothing. Any thread may use it.
    """

    def __init__(self) -> None:
        self._image: tuple[int, float] | None = None  # stamp and arrival, until a depth image has come
        self._offsets_s: deque[float] = deque(maxlen=OFFSETS_KEPT)
        self._told_s: float | None = None

    def note_image(self, stamp_ns: int, arrival_s: float) -> None:
        self._image = (stamp_ns, arrival_s) if stamp_ns else None

    def note_depth(self, stamp_ns: int, arrival_s: float) -> None:
        image, self._image = self._image, None
        if image is None or not stamp_ns:
            return
        self._offsets_s.append((stamp_ns - image[0]) / 1e9 - (arrival_s - image[1]))
        offset_s = float(np.median(self._offsets_s))
        # One number as long as it is about the same: in the log, which says it once, and in /diagnostics.
        if self._told_s is None or abs(offset_s - self._told_s) > max(0.05, abs(self._told_s) / 5):
            self._told_s = offset_s

    @property
    def seconds(self) -> float | None:
        """None while too few images came to tell."""
        return self._told_s if len(self._offsets_s) >= LEAST_OFFSETS else None


def describe_offset(offset_s: float, slop_s: float) -> str:
    side = "later" if offset_s > 0 else "earlier"
    return (
        f"depth images are stamped {abs(offset_s):.2f} s {side} than the images that arrive with them, so which belong "
        f"together is not known within depth_slop_s ({slop_s:g} s): stamp both by one clock, when they are taken"
    )


def implausible_unit(depth_m: NDArray[np.float32], encoding: str) -> str:
    """Why the depth of a whole image is in another unit than its encoding says; empty when it looks right.

    Args:
        depth_m: (H, W) metres as read, NaN where nothing was measured.
        encoding: of the message.
    """
    sample = depth_m[::SAMPLED_EVERY, ::SAMPLED_EVERY]
    sample = sample[np.isfinite(sample)]
    if len(sample) < LEAST_SAMPLES:
        return ""
    near_m, middle_m, far_m = np.percentile(sample, (5, 50, 95)).tolist()
    if far_m > NEAREST_M and near_m < FARTHEST_M:
        return ""
    advice = (
        "32FC1 is in metres (REP-118): convert it, or send millimetres as 16UC1"
        if encoding == "32FC1"
        else "16UC1 is in millimetres (REP-118) unless depth_scale says otherwise: set that"
    )
    return f"depth of {middle_m:.4g} m in the middle of its range is in another unit: {advice}"


@dataclass(frozen=True)
class _Pair:
    """What message_filters has paired with a camera image."""

    depth_ns: int
    depth: Any
    camera_info: Any


class DepthSource:
    """Keeps the newest calibration and the last depth images. Any thread may use it.

    ``waiting_ns``: stamps of images that are still to be measured; their depth is kept however long the model takes.
    """

    def __init__(
        self,
        parameters: Callable[[], NodeParameters],
        waiting_ns: Callable[[], Collection[int]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parameters = parameters
        self._clock = clock
        self._waiting_ns = waiting_ns
        self._camera_info: Any = None
        self._depth: StampedBuffer[Any] = StampedBuffer(DEPTH_IMAGES_KEPT)
        self._pairs: StampedBuffer[_Pair] = StampedBuffer(DEPTH_IMAGES_KEPT)  # by the camera image's stamp
        self._time_jumps = TimeJumpDetector("depth image")
        self._offset = StampOffset()
        self._newest_ns = 0
        self._trouble = ""
        self._told = LogThrottle()

    def forget(self) -> None:
        """Drop the depth images received so far. The calibration stays: the camera may send it only once."""
        self._depth.clear()
        self._pairs.clear()
        self._time_jumps.forget()
        self._offset = StampOffset()
        self._newest_ns = 0
        self._trouble = ""
        self._told.forget()

    def note_image(self, stamp_ns: int) -> None:
        """A camera image has arrived: depth that comes with it should be of its time."""
        self._offset.note_image(stamp_ns, self._clock())

    def put_depth(self, stamp_ns: int, message: Any) -> None:
        self._offset.note_depth(stamp_ns, self._clock())
        if self._time_jumps.observe(stamp_ns, self._clock()).back_s:
            for buffer in (self._depth, self._pairs):
                buffer.discard_after(stamp_ns)  # those of before the jump, whose stamps will occur again
        self._newest_ns = stamp_ns
        self._depth.put(stamp_ns, message, self._waiting_ns())

    def put_pair(self, image_ns: int, depth_ns: int, depth: Any, camera_info: CameraInfoMessage) -> None:
        """What message_filters has found for the camera image of this stamp; both were also put in by themselves."""
        self._pairs.put(image_ns, _Pair(depth_ns, depth, camera_info), self._waiting_ns())

    def put_camera_info(self, message: CameraInfoMessage) -> None:
        self._camera_info = message

    @property
    def camera_frame(self) -> str:
        """The frame that the calibration is for; empty when it does not say, or none was received."""
        return self._camera_info.header.frame_id if self._camera_info is not None else ""

    @property
    def trouble(self) -> str:
        """Why the latest image had no depth; empty when it had depth, and without ``use_depth``."""
        return self._trouble

    def intrinsics(self, width: int, height: int, paired: CameraInfoMessage | None = None) -> Intrinsics:
        """The calibration for images of this size; GeometryError when there is none that fits.

        ``paired``: the calibration of just this image; None = the newest one.
        """
        camera_info = self._camera_info if paired is None else paired
        if camera_info is None:
            raise GeometryError("no camera_info came yet: remap camera_info to the topic of the camera's calibration")
        return read_intrinsics(camera_info, width, height, rectified=self._parameters().rectified)

    def measure(self, view: TrackingView) -> Scene:
        """The objects of an image in space. A problem is logged once; ``trouble`` names it as long as it lasts."""
        assert view.image_rgb is not None, "only a processed image is measured"
        height, width = view.image_rgb.shape[:2]
        try:
            depth = self._depth_of(view, height, width)
        except (ImageError, GeometryError, NoDepthError) as error:
            self._trouble = str(error)
            if any(item.tracked.state is ObjectState.TRACKED for item in view.objects):  # else it has no effect
                self._complain(error)
            return Scene()
        self._trouble = ""
        return Scene(depth, measure_objects(view.objects, depth))

    def _depth_of(self, view: TrackingView, height: int, width: int) -> SceneDepth:
        parameters = self._parameters()
        offset_s = self._offset.seconds
        if offset_s is not None and abs(offset_s) > parameters.depth_slop_s + ARRIVAL_SLACK_S:
            raise NoDepthError(describe_offset(offset_s, parameters.depth_slop_s))
        message, camera_info = self._partners(view.stamp_ns, round(parameters.depth_slop_s * 1e9))
        if message is None:
            raise NoDepthError(self._why_none(view.stamp_ns, parameters.depth_slop_s))
        depth_frame, image_frame = message.header.frame_id, view.header.frame_id
        if depth_frame != image_frame:
            self._tell_once(
                f"depth is in frame {depth_frame!r} and the image in {image_frame!r}: positions are wrong unless it is "
                "aligned with the image all the same",
                kind="depth in another frame",
            )
        depth_m = read_depth(message, parameters.depth_scale)
        if why := implausible_unit(depth_m, message.encoding):
            raise NoDepthError(why)
        depth_m = on_image_grid(depth_m, height, width)
        return SceneDepth(depth_m, self.intrinsics(width, height, camera_info))

    def _partners(self, stamp_ns: int, slop_ns: int) -> tuple[Any, CameraInfoMessage | None]:
        """An image's depth image, None when it has none, and its own calibration, None for the newest one.

        message_filters pairs what comes first within the slop, and each message once: where the slop is longer than
        the time between two images, a single lost depth image gives all later images that of the next one. So the
        paired depth image counts only while no other is nearer.
        """
        nearest = self._depth.nearest(stamp_ns, slop_ns)
        paired = self._pairs.nearest(stamp_ns, 0)
        if paired is None:
            return nearest, None
        offset_ns = self._depth.offset_ns(stamp_ns)
        is_nearer = offset_ns is not None and abs(offset_ns) < abs(paired.depth_ns - stamp_ns)
        return (nearest if is_nearer else paired.depth), paired.camera_info

    def _why_none(self, stamp_ns: int, slop_s: float) -> str:
        offset_ns = self._depth.offset_ns(stamp_ns)
        if offset_ns is None:
            return "no depth image came yet: remap depth to the topic of the depth images, aligned with the image"
        side = "later" if offset_ns > 0 else "earlier"
        return (
            f"no depth image within {slop_s:g} s of the image: the nearest is {abs(offset_ns) / 1e9:.3f} s {side}; "
            "synchronise the two, or look for depth images that are lost on the way"
        )

    def _complain(self, error: ValueError) -> None:
        # A warning that differs in its numbers alone is the same warning.
        kind = type(error).__name__ if isinstance(error, NoDepthError) else str(error)
        self._tell_once(f"no positions, sizes and points: {error}", kind)

    def _tell_once(self, text: str, kind: str = "") -> None:
        if self._told.is_due(kind or text):
            logger.warning("%s", text)


def measure_objects(objects: Collection[ObjectView], depth: SceneDepth) -> dict[str, ObjectGeometry]:
    """Position and size of every TRACKED object that has enough depth."""
    measured = {
        item.tracked.object_id: measure_object(item.tracked.mask, depth.depth_m, depth.intrinsics)
        for item in objects
        if item.tracked.state is ObjectState.TRACKED
    }
    return {object_id: geometry for object_id, geometry in measured.items() if geometry is not None}


def is_ignored(item: ObjectView, parameters: NodeParameters) -> bool:
    """Whether the object's class is one of ``ignore_classes``, which robots must not act on."""
    return item.class_id != "" and item.class_id in (name.strip() for name in parameters.ignore_classes.split(","))


def choose_target(objects: Collection[ObjectView], parameters: NodeParameters) -> str:
    """Id of the object that ``~/target_pose`` is about: the selected object, visible or not; without a selection the
    first seen of the objects that are TRACKED and not ignored. Empty when there is none."""
    if parameters.selected_object:
        return parameters.selected_object
    candidates = [
        item for item in objects if item.tracked.state is ObjectState.TRACKED and not is_ignored(item, parameters)
    ]
    oldest = min(candidates, key=lambda item: (item.first_seen_ns, item.tracked.label), default=None)
    return oldest.tracked.object_id if oldest is not None else ""


def cloud_of(view: TrackingView, depth: SceneDepth, parameters: NodeParameters) -> NDArray[np.void]:
    """The points of all objects except ignored ones; pixels on or next to an ignored object are left out."""
    assert view.result is not None and view.image_rgb is not None, "only a processed image has points"
    ignored = [item.tracked for item in view.objects if is_ignored(item, parameters)]
    visible = [tracked.mask for tracked in ignored if tracked.state is ObjectState.TRACKED]
    return object_cloud(
        view.result.label_image,
        view.image_rgb,
        depth.depth_m,
        depth.intrinsics,
        keep_out=keep_out_mask(visible, parameters.keep_out_margin_px),
        without_labels=[tracked.label for tracked in ignored],
    )
