"""A frame's result as its users read it: every object at the camera image's size, and one label image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from sam2_ros.model.sam2 import ABSENT_LOGIT, MaskPrediction
from sam2_ros.tracking.mask_ops import centroid_xy, label_image, tight_box_xyxy
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.transforms import logits_to_image_size
from sam2_ros.tracking.types import ObjectState, TrackedMask


def describe(
    tracks: Collection[Track], predictions: Mapping[str, MaskPrediction], height: int, width: int
) -> tuple[tuple[TrackedMask, ...], NDArray[np.uint8] | NDArray[np.uint16]]:
    """Every object in the order of ``tracks``, and the label image. One without a prediction has an empty mask."""
    objects = {track.object_id: _unseen(track, height, width) for track in tracks}
    segmented = [track for track in tracks if track.object_id in predictions]

    def full_size() -> Iterator[NDArray[np.float32]]:
        for track in segmented:
            prediction = predictions[track.object_id]
            logits_hw = logits_to_image_size(prediction.logits_b1hw[:, 0], height, width)[0].cpu().numpy()
            if track.state != ObjectState.TRACKED:  # also one that is visible for too short a time to believe it
                logits_hw = np.full_like(logits_hw, ABSENT_LOGIT)
            objects[track.object_id] = _tracked_mask(track, prediction, logits_hw)
            yield logits_hw

    labels_hw = label_image(full_size(), [track.label for track in segmented], height, width)
    return tuple(objects.values()), labels_hw


def _tracked_mask(track: Track, prediction: MaskPrediction, logits_hw: NDArray[np.float32]) -> TrackedMask:
    mask = logits_hw > 0
    return TrackedMask(
        object_id=track.object_id,
        label=track.label,
        state=track.state,
        score=float(prediction.object_score_logits_b1.sigmoid()),
        mask_quality=float(prediction.iou_b),
        mask=mask,
        area_px=int(np.count_nonzero(mask)),
        box_xyxy=tight_box_xyxy(mask),
        centroid_xy=centroid_xy(mask),
        low_res_logits=prediction.logits_b1hw[0, 0].cpu().numpy(),
    )


def _unseen(track: Track, height: int, width: int) -> TrackedMask:
    return TrackedMask(
        object_id=track.object_id,
        label=track.label,
        state=track.state,
        score=0.0,
        mask_quality=0.0,
        mask=np.zeros((height, width), np.bool_),
        area_px=0,
        box_xyxy=None,
        centroid_xy=None,
    )
