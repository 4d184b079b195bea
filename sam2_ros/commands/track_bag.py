"""A rosbag2 recording as a source of ``sam2-ros track``, and its output as another: what the node would publish."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.rosbag import IMAGE, BagImage, BagWriter, ImageBag
from sam2_ros.data.files.video import SourceError
from sam2_ros.image_io.compressed import compressed_to_rgb
from sam2_ros.image_io.encodings import ImageError, image_to_rgb
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

_log = logging.getLogger(__name__)

OBJECTS_TOPIC = "/sam2_node/objects"
LABEL_IMAGE_TOPIC = "/sam2_node/label_image"
TOPICS = {OBJECTS_TOPIC: "sam2_ros/msg/TrackedObjectArray", LABEL_IMAGE_TOPIC: IMAGE}


class BagSource:
    """Frames of a recording, each (H, W, 3) uint8 RGB."""

    def __init__(self, path: str | Path, image_topic: str = "") -> None:
        self._bag = ImageBag(path, image_topic)
        self.info, self.storage = self._bag.info, self._bag.storage
        self.left_out: dict[int, str] = {}  # images that could not be read: position among all of them, reason
        self.unwritten: deque[BagImage] = deque()  # messages of the frames without a result yet, in order

    @property
    def tracker_settings(self) -> dict[str, int]:
        """Arguments of ``load_tracker`` for the visibility rules that the node has by default."""
        defaults = NodeParameters()
        names = ("lost_after_frames", "recover_after_frames")
        return {name: getattr(defaults, name) for name in names}

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Decode one image after the other; those that cannot be read are left out, as by the node."""
        position = -1
        for position, image in enumerate(self._bag):
            try:
                image_rgb = compressed_to_rgb(image.message) if image.compressed else image_to_rgb(image.message)
            except ImageError as error:
                self.left_out[position] = f"image {position}: {error}"
                _log.warning("left out: %s", self.left_out[position])
                continue
            self.unwritten.append(image)
            yield image_rgb
        if self.left_out and len(self.left_out) == position + 1:
            raise SourceError(f"{self.info.name}: no image can be read; {self.left_out[0]}")

    def close(self) -> None:
        """Close the files."""
        self._bag.close()


class BagOutput:
    """Writes the objects and the label image of each frame, with the header and the time of the frame's message."""

    def __init__(self, path: Path, source: BagSource) -> None:
        self.path = path
        self._source = source
        self._writer = BagWriter(path, TOPICS, source.storage)
        self._types: dict[str, Any] = self._writer.typestore.types
        self._seen: dict[
            str, list[Any]
        ] = {}  # object id -> stamps of the first and the latest image in which it was TRACKED

    def write(self, image_rgb: NDArray[np.uint8], result: FrameResult, fps: float) -> None:
        """One frame: two messages."""
        image = self._source.unwritten.popleft()
        header, time_ns = image.message.header, image.time_ns
        objects = self._make(
            "sam2_ros/msg/TrackedObjectArray",
            header=header,
            frame_index=result.frame_index,
            frames_dropped=0,
            inference_ms=result.inference_ms,
            age_ms=0.0,  # unknown for a recording
            objects=[self._object(tracked, header) for tracked in result],
        )
        self._writer.write(OBJECTS_TOPIC, objects, time_ns)
        encoding = "mono8" if result.label_image.dtype == np.uint8 else "mono16"
        self._writer.write(LABEL_IMAGE_TOPIC, self._image(result.label_image, encoding, header), time_ns)

    def close(self) -> None:
        """Finish the recording."""
        self._writer.close()

    def _make(self, name: str, **fields: Any) -> Any:
        return self._types[name](**fields)

    def _object(self, tracked: TrackedMask, header: Any) -> Any:
        if tracked.state is ObjectState.TRACKED:
            self._seen.setdefault(tracked.object_id, [header.stamp, header.stamp])[1] = header.stamp
        never = self._make("builtin_interfaces/msg/Time", sec=0, nanosec=0)
        first_seen, last_seen = self._seen.get(tracked.object_id, (never, never))
        x0, y0, x1, y1 = tracked.box_xyxy or (0, 0, 0, 0)
        x, y = tracked.centroid_xy or (math.nan, math.nan)
        return self._make(
            "sam2_ros/msg/TrackedObject",
            object_id=tracked.object_id,
            label=tracked.label,
            class_id="",
            state=int(tracked.state),
            score=float(tracked.score),
            mask_quality=float(tracked.mask_quality),
            roi=self._make(
                "sensor_msgs/msg/RegionOfInterest",
                x_offset=x0,
                y_offset=y0,
                width=x1 - x0,
                height=y1 - y0,
                do_rectify=False,
            ),
            area=tracked.area_px,
            centroid=self._point(x, y),
            first_seen=first_seen,
            last_seen=last_seen,
            mask=self._no_image(),
            has_pose=False,
            pose=self._make(
                "geometry_msgs/msg/Pose",
                position=self._point(0.0, 0.0),
                orientation=self._make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            ),
            size=self._make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0),
        )

    def _point(self, x: float, y: float) -> Any:
        return self._make("geometry_msgs/msg/Point", x=float(x), y=float(y), z=0.0)

    def _no_image(self) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", sec=0, nanosec=0)
        header = self._make("std_msgs/msg/Header", stamp=stamp, frame_id="")
        return self._image(np.zeros((0, 0), np.uint8), "", header)

    def _image(self, pixels: NDArray[Any], encoding: str, header: Any) -> Any:
        height, width = pixels.shape
        data = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).view(np.uint8).ravel()
        return self._make(
            IMAGE,
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=width * pixels.itemsize,
            data=data,
        )
