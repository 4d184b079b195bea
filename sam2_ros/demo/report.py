"""What the demo measures, without ROS: accuracy over every camera frame, and speed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.demo.recording import LabelImage, Output, Recording


class IouTally:
    """Mean IoU over objects and over every camera frame, a dropped frame counting with the last published mask.

    An object that is hidden and for which nothing is shown counts as 1, as in DAVIS: staying quiet is then right.
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
    """Count every camera frame of a run. ``true_ids``: (H, W) instance ids of a frame by its number."""
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
