"""From what the network predicted to what a caller sees: every object at the size of the camera image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.outcome import Advanced
from sam2_ros.tracking.prediction import presence_of
from sam2_ros.tracking.rules.quality import Calibration
from sam2_ros.tracking.state import StreamState, Track
from sam2_ros.tracking.transforms import centroid_xy, label_image, logits_in_image, tight_box_xyxy
from sam2_ros.tracking.types import FrameResult, ObjectState, Scene, TrackedMask


def build_result(
    state: StreamState,
    advanced: Advanced,
    size_hw: tuple[int, int],
    scene: Scene,
    started_s: float,
    calibration: Calibration,
    above_logit: float,
) -> FrameResult:
    """The result of the newest frame: every object at the camera image's size, and the label image.

    Only masks of TRACKED objects are scaled; the others share one empty mask.

    Args:
        state: after ``propagate``.
        advanced: from ``propagate``; an object without a prediction gets an empty mask.
        size_hw: of the camera image, px.
        scene: what the image is.
        started_s: when the work on this image began, by ``time.perf_counter``.
        calibration: of the quality of masks.
        above_logit: the model's ``visible_above_logit``.
    """
    height, width = size_hw
    empty_hw = np.zeros(size_hw, np.bool_)
    empty_hw.flags.writeable = False
    objects = {
        track.object_id: _without_mask(track, advanced, empty_hw, calibration, above_logit)
        for track in state.tracks.values()
    }
    # Not an object that recovers while its visibility is not confirmed yet, nor one whose replay is not finished.
    shown = [
        track
        for track in state.tracks.values()
        if track.object_id in advanced.predictions and track.state is ObjectState.TRACKED
    ]

    def full_size() -> Iterator[NDArray[np.float32]]:
        for track in shown:
            prediction, window = advanced.predictions[track.object_id], advanced.windows.get(track.object_id)
            logits_hw = logits_in_image(prediction.logits_b1hw, window, size_hw)
            objects[track.object_id] = _with_mask(objects[track.object_id], logits_hw > 0)
            yield logits_hw

    labels_hw = label_image(full_size(), [track.label for track in shown], height, width)
    if max((state.tracks[object_id].label for object_id in advanced.predictions), default=0) > 255:
        labels_hw = labels_hw.astype(np.uint16, copy=False)  # also while the object with such a label is hidden
    inference_ms = (time.perf_counter() - started_s) * 1e3
    index, found = state.next_frame - 1, tuple(objects.values())
    return FrameResult(index, found, labels_hw, inference_ms, state.rejected, state.notes, scene)


def _with_mask(tracked: TrackedMask, mask_hw: NDArray[np.bool_]) -> TrackedMask:
    return replace(
        tracked,
        mask=mask_hw,
        area_px=int(np.count_nonzero(mask_hw)),
        box_xyxy=tight_box_xyxy(mask_hw),
        centroid_xy=centroid_xy(mask_hw),
    )


def _without_mask(
    track: Track, advanced: Advanced, empty_hw: NDArray[np.bool_], calibration: Calibration, above_logit: float
) -> TrackedMask:
    prediction = advanced.predictions.get(track.object_id)
    window = advanced.windows.get(track.object_id)
    return TrackedMask(
        object_id=track.object_id,
        label=track.label,
        state=track.state,
        score=0.0 if prediction is None else presence_of(prediction, above_logit),
        mask_quality=0.0 if prediction is None else calibration(float(prediction.iou_b)),
        mask=empty_hw,
        area_px=0,
        box_xyxy=None,
        centroid_xy=None,
        low_res_logits=None if prediction is None else prediction.logits_b1hw[0, 0].cpu().numpy(),
        window_xyxy=None if window is None else window.box_xyxy,
        doubted_with=advanced.doubted.get(track.object_id, ""),
    )
