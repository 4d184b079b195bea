"""What the demo measures, without ROS: accuracy over every camera frame, and speed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.video import VideoWriter
from sam2_ros.demo.stream import index_of_stamp
from sam2_ros.tracking.overlay import draw_overlay
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask


class IouTally:
    """Mean IoU over objects and over every camera frame, a dropped frame counting with the last published mask.

    A hidden object with an empty mask counts as 1, as in DAVIS.
    """

    def __init__(self, truth_ids: Mapping[str, int], labels: Mapping[str, int]) -> None:
        """``truth_ids`` and ``labels``: an object's value in the true ids and in the label images. Same names."""
        if set(truth_ids) != set(labels):
            raise ValueError(f"expected the same objects, got {sorted(truth_ids)} and {sorted(labels)}")
        self._truth_ids, self._labels = dict(truth_ids), dict(labels)
        self._ious: dict[str, list[float]] = {name: [] for name in truth_ids}
        self._published: LabelImage | None = None

    def add(self, true_ids: NDArray[np.uint8], label_image: LabelImage | None) -> None:
        """Count one camera frame. ``true_ids`` (H, W); ``label_image`` (H, W), None when the frame was dropped."""
        if label_image is not None:
            if label_image.shape != true_ids.shape:
                raise ValueError(f"expected a label image of {true_ids.shape}, got {label_image.shape}")
            self._published = label_image
        for name, ious in self._ious.items():
            truth = true_ids == self._truth_ids[name]
            shown = np.zeros_like(truth) if self._published is None else self._published == self._labels[name]
            union = int(np.count_nonzero(truth | shown))
            ious.append(int(np.count_nonzero(truth & shown)) / union if union else 1.0)

    def per_object(self) -> dict[str, float]:
        """Mean over frames for each object."""
        return {name: float(np.mean(ious)) for name, ious in self._ious.items() if ious}

    def mean(self) -> float | None:
        """Mean over objects and frames; None before the first frame."""
        values = list(self.per_object().values())
        return float(np.mean(values)) if values else None


def judge(recording: Recording, true_ids: Callable[[int], NDArray[np.uint8]], tally: IouTally) -> None:
    """Add every camera frame of a run to the tally. ``true_ids``: (H, W) instance ids of a frame by its number."""
    for frame in recording.camera_frames():
        output = recording.outputs.get(frame.stamp_ns) if frame.stamp_ns is not None else None
        tally.add(true_ids(frame.index), output.labels.unpack_labels() if output is not None else None)


@dataclass(frozen=True)
class DemoReport:
    """The demo's result, and its last line on standard output."""

    frames: int  # camera frames that got masks
    objects: int
    fps: float  # masks received per second
    latency_ms_p50: float  # from the camera's stamp until the mask was at the client
    latency_ms_p95: float
    dropped: int  # camera frames that got no mask
    mean_iou: float | None  # None where the truth is not known
    overlay: str  # path of the video
    iou: dict[str, float] | None  # per object
    inference_ms_p50: float  # the model's own share of the latency
    source: str
    model: str
    rate_hz: float  # of the camera

    def as_json(self) -> str:
        """One line."""
        return json.dumps({name: _rounded(value) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Speed:
    """How fast a run was."""

    fps: float
    latency_ms_p50: float
    latency_ms_p95: float
    inference_ms_p50: float


def measure_speed(outputs: Sequence[Output]) -> Speed:
    """Speed over a run's outputs; at least two are needed for a rate."""
    if not outputs:
        return Speed(0.0, 0.0, 0.0, 0.0)
    received = sorted(o.received_ns for o in outputs)
    span_s = (received[-1] - received[0]) / 1e9
    latencies_ms = [(o.received_ns - o.stamp_ns) / 1e6 for o in outputs]
    p50, p95 = np.percentile(latencies_ms, (50, 95))
    inference_ms = float(np.median([o.inference_ms for o in outputs]))
    return Speed((len(received) - 1) / span_s if span_s > 0 else 0.0, float(p50), float(p95), inference_ms)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


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
    received_ns: int  # when the label image arrived
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
    """The messages of one frame as the tracker's result type, which the overlay draws."""
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

    A dropped frame is shown with the last published masks, which is what a user of the masks has at that time.
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
