"""What the evaluation needs of an image predictor, how it gets one by name, and the floor to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.trackers import FLOORS
from sam2_ros.tracking.image_predictor import ImagePrediction


class PointPredictor(Protocol):
    """The part of ``sam2_ros.tracking.image_predictor.ImagePredictor`` that the evaluation calls."""

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """What follows is about this image, (H, W, 3) uint8 RGB."""
        ...

    def predict(
        self,
        points: NDArray[np.float32],
        labels: NDArray[np.int32],
        *,
        logits: NDArray[np.float32] | None = None,
        multimask: bool = True,
    ) -> ImagePrediction:
        """See ``ImagePredictor.predict``."""
        ...


class DiscPredictor:
    """The floor for images: a disc around each click, without looking at the image.

    A pixel belongs to the object if it is within ``radius_of_side`` times the image's shorter side of a click, and the
    nearest click is a positive one.
    """

    def __init__(self, radius_of_side: float = 0.1) -> None:
        self._radius_of_side = radius_of_side
        self._image_shape = (0, 0)

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Only the size is used."""
        self._image_shape = (image_rgb.shape[0], image_rgb.shape[1])

    def predict(
        self,
        points: NDArray[np.float32],
        labels: NDArray[np.int32],
        *,
        logits: NDArray[np.float32] | None = None,
        multimask: bool = True,
    ) -> ImagePrediction:
        """The discs of all clicks; one candidate."""
        ys, xs = np.mgrid[: self._image_shape[0], : self._image_shape[1]]
        squared_nhw = np.stack([(xs - x) ** 2 + (ys - y) ** 2 for x, y in points])
        radius_px = self._radius_of_side * min(self._image_shape)
        mask = (np.asarray(labels)[squared_nhw.argmin(axis=0)] == 1) & (squared_nhw.min(axis=0) <= radius_px**2)
        return ImagePrediction(mask[None], np.ones(1, np.float32), np.zeros((1, 1, 1), np.float32))


def image_predictor_by_name(model: str | None, checkpoint: Path | None = None, **network: Any) -> PointPredictor:
    """A model of the package by its name, or the floor "disc"; without a name as ``load_image_predictor``.

    Args:
        model, checkpoint, network: arguments of ``load_image_predictor``; the floor needs no more than its name.

    Raises:
        ValueError: the floor was given a checkpoint, a floor for videos was asked for, or the name is unknown.
    """
    if model in FLOORS:
        raise ValueError(f'{model!r} is a floor for videos: it carries a mask from frame to frame; images have "disc"')
    if model == "disc":
        if checkpoint is not None:
            raise ValueError(f"{model!r} has no weights; leave the checkpoint ({checkpoint}) out")
        return DiscPredictor()
    from sam2_ros.tracking.loading import load_image_predictor

    predictor: PointPredictor = load_image_predictor(model=model, checkpoint=checkpoint, **network)
    return predictor
