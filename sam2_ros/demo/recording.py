"""The record of one run of the demo, without ROS: every camera image, every answer, and the pictures made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.video import VideoWriter
from sam2_ros.demo.camera_stream import index_of_stamp
from sam2_ros.tracking.overlay import draw_overlay
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

LabelImage: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W); 0 = nothing


@dataclass(frozen=True)
class PackedImage:
    """An image kept for later: encoded, because a few hundred plain ones would fill the memory of a small machine."""

    data: bytes

    @staticmethod
    def photo(image_rgb: NDArray[np.uint8]) -> PackedImage:
        """Keep (H, W, 3) uint8 RGB, nearly as it is."""
        bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
        return PackedImage(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 96])[1].tobytes())

    @staticmethod
    def labels(label_image: LabelImage) -> PackedImage:
        """Keep (H, W) uint8 or uint16 labels exactly."""
        return PackedImage(cv2.imencode(".png", label_image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())

    def unpack_photo(self) -> NDArray[np.uint8]:
        bgr = cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def unpack_labels(self) -> LabelImage:
        return np.asarray(cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_UNCHANGED))


@dataclass(frozen=True)
class SeenObject:
    """One entry of ``~/objects``."""

    object_id: str
    label: int
    state: ObjectState
    score: float
    mask_quality: float


@dataclass(frozen=True)
class Output:
    """What the node published for one camera image."""

    stamp_ns: int  # of the camera image
    received_ns: int  # when the label image was here
    labels: PackedImage
    objects: tuple[SeenObject, ...]
    inference_ms: float


@dataclass(frozen=True)
class CameraFrame:
    """One frame that the camera published."""

    index: int  # its number in the stream
    stamp_ns: int | None  # None when neither it nor an answer to it reached the client


@dataclass(frozen=True)
class Recording:
    """One run, from the moment the first prompt was accepted."""

    images: Mapping[int, PackedImage]  # by stamp_ns, every camera image that reached the client
    outputs: Mapping[int, Output]  # by stamp_ns
    frame_count: int | None = None  # of the whole stream, where it is known

    def camera_frames(self) -> list[CameraFrame]:
        """Every frame the camera published, in order; what got lost on the way is known by its missing number."""
        frames: list[CameraFrame] = []
        for stamp_ns in sorted(set(self.images) | set(self.outputs)):
            index = index_of_stamp(stamp_ns)
            if frames:
                frames += [CameraFrame(lost, None) for lost in range(frames[-1].index + 1, index)]
            frames.append(CameraFrame(index, stamp_ns))
        if frames and self.frame_count is not None:
            frames += [CameraFrame(lost, None) for lost in range(frames[-1].index + 1, self.frame_count)]
        return frames


def result_of(output: Output, frame_index: int) -> FrameResult:
    """The messages of one frame as the tracker's own result type, which the overlay draws."""
    labels = output.labels.unpack_labels()
    objects = tuple(_tracked(labels, seen) for seen in sorted(output.objects, key=lambda o: o.label))
    return FrameResult(frame_index, objects, labels, output.inference_ms)


def _tracked(labels: LabelImage, seen: SeenObject) -> TrackedMask:
    mask = labels == seen.label
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    area = int(np.count_nonzero(mask))
    rows, cols = np.nonzero(mask)
    return TrackedMask(
        object_id=seen.object_id,
        label=seen.label,
        state=seen.state,
        score=seen.score,
        mask_quality=seen.mask_quality,
        mask=mask,
        area_px=area,
        box_xyxy=(x, y, x + width, y + height) if area else None,
        centroid_xy=(float(cols.mean()), float(rows.mean())) if area else None,
    )


def write_pictures(recording: Recording, folder: Path, *, rate_hz: float, picture_at: float) -> Path:
    """Write ``overlay.mp4`` and, from the frame at the share ``picture_at`` (0..1), ``overlay.png``; the video's path.

    A dropped frame is shown with the last published masks, as somebody who uses them would have it.
    """
    path = folder / "overlay.mp4"
    stamps = sorted(recording.images)
    chosen = stamps[min(int(picture_at * len(stamps)), len(stamps) - 1)] if stamps else None
    latest: Output | None = None
    with VideoWriter(path, rate_hz) as writer:
        for stamp_ns in stamps:
            latest = recording.outputs.get(stamp_ns, latest)
            image_rgb = recording.images[stamp_ns].unpack_photo()
            if latest is not None:
                index = index_of_stamp(stamp_ns)
                status = f"frame {index}" + ("" if latest.stamp_ns == stamp_ns else "  (dropped: last masks)")
                image_rgb = draw_overlay(image_rgb, result_of(latest, index), status)
            writer.write(image_rgb)
            if stamp_ns == chosen:
                cv2.imwrite(str(folder / "overlay.png"), cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    return path
