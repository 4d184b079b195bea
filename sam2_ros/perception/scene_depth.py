"""What belongs to a processed image in the third dimension: its depth and calibration, or why there are none. ROS-free.

Depth and calibration come by topics of their own and are only stored; the session's worker asks for what fits an image
when its masks are there. An image never waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.image_io.encodings import ImageError
from sam2_ros.perception.camera import CameraInfoMessage, GeometryError, Intrinsics, read_intrinsics
from sam2_ros.perception.clouds import keep_out_mask, object_cloud
from sam2_ros.perception.depth import on_image_grid, read_depth
from sam2_ros.perception.object_geometry import ObjectGeometry, measure_object
from sam2_ros.perception.stamped_buffer import StampedBuffer
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.work_queue import JUMP_BACK_S
from sam2_ros.tracking.types import ObjectState

logger = logging.getLogger(__name__)

DEPTH_IMAGES_KEPT = 10  # beside the one nearest to each image that waits or is worked on


@dataclass(frozen=True)
class SceneDepth:
    """Depth for every pixel of one camera image."""

    depth_m: NDArray[np.float32]  # (H, W), NaN where nothing was measured
    intrinsics: Intrinsics


@dataclass(frozen=True)
class Scene:
    """The objects of one image in space: nothing without depth."""

    depth: SceneDepth | None = None
    geometry: Mapping[str, ObjectGeometry] = field(default_factory=dict)  # by object id; TRACKED ones with enough depth


class NoDepthError(ValueError):
    """No depth image belongs to this one; the message says why."""


class DepthSource:
    """Keeps the newest calibration and the last depth images. Any thread may use it.

    ``waiting_ns``: stamps of images that are still to be measured; their depth is kept however long the model takes.
    """

    def __init__(
        self, parameters: Callable[[], NodeParameters], waiting_ns: Callable[[], Collection[int]] = tuple
    ) -> None:
        self._parameters = parameters
        self._waiting_ns = waiting_ns
        self._camera_info: Any = None
        self._depth: StampedBuffer[Any] = StampedBuffer(DEPTH_IMAGES_KEPT)
        self._newest_ns = 0
        self._trouble = ""
        self._told: set[str] = set()

    def forget(self) -> None:
        """Use no depth that came until now. The calibration stays: it is the camera's, and may be sent only once."""
        self._depth.clear()
        self._newest_ns = 0
        self._trouble = ""
        self._told.clear()

    def put_depth(self, stamp_ns: int, message: Any) -> None:
        if stamp_ns < self._newest_ns - JUMP_BACK_S * 1e9:
            self._depth.clear()  # of a time that will come again
        self._newest_ns = stamp_ns
        self._depth.put(stamp_ns, message, self._waiting_ns())

    def put_camera_info(self, message: CameraInfoMessage) -> None:
        self._camera_info = message

    @property
    def camera_frame(self) -> str:
        """The frame that the calibration is for; empty when it does not say, or none came."""
        return self._camera_info.header.frame_id if self._camera_info is not None else ""

    @property
    def trouble(self) -> str:
        """Why the latest image had no depth; empty when it had, and without ``use_depth``."""
        return self._trouble

    def intrinsics(self, width: int, height: int) -> Intrinsics:
        """The calibration for images of this size; GeometryError when there is none that fits."""
        if self._camera_info is None:
            raise GeometryError("no camera_info came yet: remap camera_info to the topic of the camera's calibration")
        return read_intrinsics(self._camera_info, width, height, rectified=self._parameters().rectified)

    def measure(self, view: TrackingView) -> Scene:
        """The objects of an image in space. What is wrong is told once, and ``trouble`` says it as long as it lasts."""
        if not self._parameters().use_depth or view.image_rgb is None:
            self._trouble = ""
            return Scene()
        height, width = view.image_rgb.shape[:2]
        try:
            depth = self._depth_of(view, height, width)
        except (ImageError, GeometryError, NoDepthError) as error:
            self._trouble = str(error)
            if any(item.tracked.state is ObjectState.TRACKED for item in view.objects):  # else nobody misses it
                self._complain(error)
            return Scene()
        self._trouble = ""
        return Scene(depth, measure_objects(view.objects, depth))

    def _depth_of(self, view: TrackingView, height: int, width: int) -> SceneDepth:
        parameters = self._parameters()
        message = self._depth.nearest(view.stamp_ns, round(parameters.depth_slop_s * 1e9))
        if message is None:
            raise NoDepthError(self._why_none(view.stamp_ns, parameters.depth_slop_s))
        depth_frame, image_frame = message.header.frame_id, view.header.frame_id
        if depth_frame != image_frame:
            self._tell_once(
                f"depth is in frame {depth_frame!r} and the image in {image_frame!r}: positions are wrong unless it is "
                "aligned with the image all the same"
            )
        depth_m = on_image_grid(read_depth(message, parameters.depth_scale), height, width)
        return SceneDepth(depth_m, self.intrinsics(width, height))

    def _why_none(self, stamp_ns: int, slop_s: float) -> str:
        offset_ns = self._depth.offset_ns(stamp_ns)
        if offset_ns is None:
            return "no depth image came yet: remap depth to the topic of the depth images, aligned with the image"
        side = "later" if offset_ns > 0 else "earlier"
        return (
            f"no depth image within {slop_s:g} s of the image: the nearest is {abs(offset_ns) / 1e9:.3f} s {side}; "
            "synchronise the two, or raise depth_slop_s"
        )

    def _complain(self, error: ValueError) -> None:
        # What differs from image to image does not make it another complaint.
        kind = type(error).__name__ if isinstance(error, NoDepthError) else str(error)
        self._tell_once(f"no positions, sizes and points: {error}", kind)

    def _tell_once(self, text: str, kind: str = "") -> None:
        if (kind or text) not in self._told:
            self._told.add(kind or text)
            logger.warning("%s", text)


def measure_objects(objects: Collection[ObjectView], depth: SceneDepth) -> dict[str, ObjectGeometry]:
    """Place and size of every TRACKED object that has enough depth."""
    measured = {
        item.tracked.object_id: measure_object(item.tracked.mask, depth.depth_m, depth.intrinsics)
        for item in objects
        if item.tracked.state is ObjectState.TRACKED
    }
    return {object_id: geometry for object_id, geometry in measured.items() if geometry is not None}


def is_ignored(item: ObjectView, parameters: NodeParameters) -> bool:
    """Whether the object's class is one of ``ignore_classes``: it is to be kept out of what robots act on."""
    return item.class_id != "" and item.class_id in (name.strip() for name in parameters.ignore_classes.split(","))


def choose_target(objects: Collection[ObjectView], parameters: NodeParameters) -> str:
    """Id of the object that ``~/target_pose`` is about: the selected one if one is, seen or not; else that which was
    first seen, of those that are TRACKED and not ignored. Empty when there is none."""
    if parameters.selected_object:
        return parameters.selected_object
    candidates = [
        item for item in objects if item.tracked.state is ObjectState.TRACKED and not is_ignored(item, parameters)
    ]
    oldest = min(candidates, key=lambda item: (item.first_seen_ns, item.tracked.label), default=None)
    return oldest.tracked.object_id if oldest is not None else ""


def cloud_of(view: TrackingView, depth: SceneDepth, parameters: NodeParameters) -> NDArray[np.void]:
    """The points of all objects but the ignored ones, and without all pixels on or next to those."""
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
