"""J (region), F (boundary) and J&F, by the rules of DAVIS and SA-V.

J is intersection over union. F compares outlines that are one pixel wide, with a tolerance of 0.8 % of the image's
diagonal. The first annotated frame of an object, which is its prompt, and by convention the last one are dropped; then
frames are averaged per object, and objects with equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BOUNDARY_TOLERANCE_OF_DIAGONAL = 0.008


@dataclass(frozen=True)
class Score:
    """Of one object in one frame, or a mean over frames or objects; both 0..1."""

    region: float  # J
    boundary: float  # F

    @property
    def mean(self) -> float:
        """J&F."""
        return (self.region + self.boundary) / 2


def region_similarity(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """J: intersection over union of two (H, W) bool masks; 1 where both are empty."""
    _check_pair(predicted, truth)
    union = int(np.count_nonzero(predicted | truth))
    if union == 0:
        return 1.0
    return int(np.count_nonzero(predicted & truth)) / union


def boundary_pixels(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The one-pixel outline of a mask: pixels that differ from their right, lower or lower right neighbour.

    The last row and column are repeated beyond the image, so the image border is no outline (a mask that fills the
    image has none).

    >>> boundary_pixels(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def boundary_similarity(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F: harmonic mean of precision and recall of outline pixels of two (H, W) bool masks, within the tolerance.

    1 if neither has an outline, 0 if only one has.
    """
    _check_pair(predicted, truth)
    outline_predicted, outline_truth = boundary_pixels(predicted), boundary_pixels(truth)
    count_predicted, count_truth = int(outline_predicted.sum()), int(outline_truth.sum())
    if count_predicted == 0 and count_truth == 0:
        return 1.0
    if count_predicted == 0 or count_truth == 0:
        return 0.0
    tolerance_px = boundary_tolerance_px(truth.shape)
    precision = int((outline_predicted & _within(outline_truth, tolerance_px)).sum()) / count_predicted
    recall = int((outline_truth & _within(outline_predicted, tolerance_px)).sum()) / count_truth
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def boundary_tolerance_px(image_shape: tuple[int, ...]) -> int:
    """The distance within which outlines match, for an image of (H, W)."""
    return math.ceil(BOUNDARY_TOLERANCE_OF_DIAGONAL * math.hypot(image_shape[0], image_shape[1]))


def score_frame(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Score:
    """J and F of one object in one frame; (H, W) bool both."""
    return Score(region_similarity(predicted, truth), boundary_similarity(predicted, truth))


def score_object(frames: Sequence[Score]) -> Score | None:
    """Mean over one object's annotated frames in order, without the first and the last; None if nothing is left."""
    return mean_score(frames[1:-1])


def mean_score(scores: Sequence[Score]) -> Score | None:
    """Mean with equal weights; None if there is nothing to average."""
    if not scores:
        return None
    return Score(
        region=sum(score.region for score in scores) / len(scores),
        boundary=sum(score.boundary for score in scores) / len(scores),
    )


def _within(outline: NDArray[np.bool_], distance_px: int) -> NDArray[np.bool_]:
    """Dilation with a disk, computed as a threshold on the distance to the outline, at a cost independent of radius."""
    distance = cv2.distanceTransform((~outline).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are integers: this margin absorbs rounding and includes no further pixel.
    return distance <= distance_px + 1e-3


def _check_pair(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    for name, mask in (("predicted", predicted), ("true", truth)):
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(f"expected the {name} mask as (H, W) bool, got {mask.shape} {mask.dtype}")
    if predicted.shape != truth.shape:
        raise ValueError(
            f"predicted mask is {predicted.shape}, true mask is {truth.shape}; scores are taken at the true mask's "
            "size: resize the prediction first"
        )
