"""What a network's own estimate of a mask is worth: from predicted IoU to the IoU that such masks had.

Networks are sure in different ways, and a small one hardly knows when it is wrong. A calibration is fitted once for a
set of weights, on clips with true masks (``sam2-ros eval limits --fit-quality``), and lies beside the file of the
weights. It is a non-decreasing function: it changes what a number means, not which of two masks is the better one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

_BINS = 12  # of equally many masks, from which the function is fitted
_LEAST_IN_BIN = 5
_LARGEST_BYTES = 100_000


@dataclass(frozen=True)
class Calibration:
    """Quality by predicted IoU: straight lines between knots, constant beyond them. Without knots, the same number."""

    predicted: tuple[float, ...] = ()  # ascending
    quality: tuple[float, ...] = ()  # not descending, 0..1

    def __call__(self, predicted_iou: float) -> float:
        return float(np.interp(predicted_iou, self.predicted, self.quality)) if self.predicted else predicted_iou


def fit_calibration(predicted: Sequence[float], ious: Sequence[float]) -> Calibration:
    """The function that fits best among those that do not descend (isotonic regression, of means of bins).

    Args:
        predicted: IoU as the network estimates it, of masks that were shown.
        ious: the true ones.

    Raises:
        ValueError: too few masks, or all with one estimate.
    """
    order = np.argsort(predicted, kind="stable")
    count = min(_BINS, len(order) // _LEAST_IN_BIN)
    if count < 2 or np.ptp(predicted) == 0:
        raise ValueError(f"expected {2 * _LEAST_IN_BIN} masks or more with different estimates, got {len(order)}")
    pools: list[tuple[float, float, int]] = []  # mean estimate, mean IoU, masks
    for places in np.array_split(order, count):
        estimate, iou, size = (
            float(np.mean(np.take(predicted, places))),
            float(np.mean(np.take(ious, places))),
            len(places),
        )
        while pools and pools[-1][1] > iou:  # adjacent violators are pooled
            earlier, other, masks = pools.pop()
            estimate = (earlier * masks + estimate * size) / (masks + size)
            iou = (other * masks + iou * size) / (masks + size)
            size += masks
        pools.append((estimate, iou, size))
    return Calibration(tuple(round(p[0], 4) for p in pools), tuple(round(p[1], 4) for p in pools))


def calibration_file(weights: Path) -> Path:
    """Where the calibration of a file of weights lies: ``nano.quality.json`` beside ``nano.pt``."""
    return weights.with_suffix(".quality.json")


def write_calibration(path: Path, calibration: Calibration, fingerprint: str) -> None:
    """Write it for the weights with this fingerprint."""
    path.write_text(json.dumps({"weights": fingerprint, **asdict(calibration)}) + "\n")


def read_calibration(path: Path, fingerprint: str) -> Calibration:
    """The calibration of these weights; that changes nothing where there is none, or only one of other weights.

    Raises:
        ValueError: damaged.
    """
    if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
        return Calibration()
    try:
        values = json.loads(path.read_text())
        found = Calibration(*(tuple(float(each) for each in values[name]) for name in ("predicted", "quality")))
        weights = values["weights"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: expected a calibration of mask quality ({error}); remove it") from error
    if weights != fingerprint:
        logger.info("%s is of other weights and is not used: fit it again", path)
        return Calibration()
    knots, values_01 = np.array(found.predicted), np.array(found.quality)
    fits = len(knots) == len(values_01) and (np.diff(knots) > 0).all() and (np.diff(values_01) >= 0).all()
    if not fits or not ((values_01 >= 0) & (values_01 <= 1)).all():
        raise ValueError(f"{path} is damaged: expected ascending numbers, and qualities from 0 to 1; remove it")
    return found
