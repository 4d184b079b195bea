"""Interactive segmentation of single images: the IoU after one click, after two, and so on.

The first click is in the middle of the object and gives three candidates, of which the one with the best predicted IoU
is chosen. Each further click is in the middle of the largest error; it is decoded with all earlier clicks and the
logits of the mask so far, and gives one mask. The true mask places the clicks and scores the result; it never selects a
candidate.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import IMAGE_SUFFIXES
from sam2_ros.data.files.sequences import LabelledImage
from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.prompt_sampling import center_click, correction_click
from sam2_ros.evaluation.trackers import FLOORS
from sam2_ros.tracking.image_predictor import ImagePrediction


class PointPredictor(Protocol):
    """The part of ``sam2_ros.tracking.image_predictor.ImagePredictor`` that the evaluation calls."""

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Set the image of later predictions, (H, W, 3) uint8 RGB."""
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
    """The floor for images: a disc around each click, whatever the image shows.

    A pixel belongs to the object if the nearest click is positive and at most ``radius_of_side`` times the image's
    shorter side away.
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
        """One candidate with the discs of all clicks."""
        ys, xs = np.mgrid[: self._image_shape[0], : self._image_shape[1]]
        squared_nhw = np.stack([(xs - x) ** 2 + (ys - y) ** 2 for x, y in points])
        radius_px = self._radius_of_side * min(self._image_shape)
        mask = (np.asarray(labels)[squared_nhw.argmin(axis=0)] == 1) & (squared_nhw.min(axis=0) <= radius_px**2)
        return ImagePrediction(mask[None], np.ones(1, np.float32), np.zeros((1, 1, 1), np.float32))


def image_predictor_by_name(model: str | None, checkpoint: Path | None = None, **network: Any) -> PointPredictor:
    """A model of the package by name, or the floor "disc"; None as in ``load_image_predictor``.

    Args:
        model, checkpoint, network: arguments of ``load_image_predictor``; the floor needs only its name.

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


MIN_AREA_PX = 1024


@dataclass(frozen=True)
class InstanceResult:
    """One object in one image."""

    image: str
    value: int  # in the index mask
    area_px: int
    ious: tuple[float, ...]  # after 1, 2, ... clicks, at the image's size


def evaluate_images(
    predictor: PointPredictor,
    images: Sequence[LabelledImage],
    clicks: int,
    progress: Callable[[int, int, int], None] | None = None,
    unless_read: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> tuple[InstanceResult, ...]:
    """Click every instance of at least ``MIN_AREA_PX`` in every image.

    Args:
        predictor: a model or a floor.
        images: read one by one.
        clicks: at most this many per instance.
        progress: called after each image with images done, images in all, and instances so far.
        unless_read: given an image's name, what to read it within: it may suppress the errors of ``LabelledImage.read``
            to leave the image out.
    """
    if clicks < 1:
        raise ValueError(f"clicks: expected 1 or more, got {clicks}")
    results: list[InstanceResult] = []
    for number, image in enumerate(images, 1):
        image_rgb: NDArray[np.uint8] | None = None
        masks: dict[int, NDArray[np.bool_]] = {}
        with unless_read(image.name):
            image_rgb, masks = image.read()
        masks = {value: mask for value, mask in masks.items() if np.count_nonzero(mask) >= MIN_AREA_PX}
        if image_rgb is not None and masks:
            predictor.set_image(image_rgb)
        for value, truth in masks.items():
            ious = click_ious(predictor, truth, clicks)
            results.append(InstanceResult(image.name, value, int(np.count_nonzero(truth)), ious))
        if progress:
            progress(number, len(images), len(results))
    return tuple(results)


def click_ious(predictor: PointPredictor, truth: NDArray[np.bool_], clicks: int) -> tuple[float, ...]:
    """IoU after each click on one object, given as its true (H, W) bool mask, of the current image."""
    given, ious = [center_click(truth)], []
    logits: NDArray[np.float32] | None = None
    while True:
        points = np.array([(click.x, click.y) for click in given], np.float32)
        labels = np.array([click.label for click in given], np.int32)
        answer = predictor.predict(points, labels, logits=logits, multimask=len(given) == 1)
        best = int(answer.scores.argmax())
        mask, logits = answer.masks[best], answer.logits[best : best + 1]
        ious.append(region_similarity(mask, truth))
        following = correction_click(mask, truth) if len(given) < clicks else None
        if following is None:  # enough clicks, or nothing left to correct: the mask stays
            return tuple(ious) + (ious[-1],) * (clicks - len(ious))
        given.append(following)


def mean_ious(results: Iterable[InstanceResult]) -> list[float] | None:
    """Mean over instances after 1, 2, ... clicks; None without instances."""
    rows = [result.ious for result in results]
    return [round(float(value), 4) for value in np.mean(rows, axis=0)] if rows else None


def image_report(
    results: Sequence[InstanceResult],
    images: Sequence[LabelledImage],
    settings: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Everything as JSON: the settings, the means, the means of each group, and a row per instance.

    Args:
        results: of ``evaluate_images``.
        images: all evaluated images, including those without a large enough instance.
        settings: placed first in the JSON.
        groups: names of the groups of each image, validated by ``check_groups``, or None.
    """
    summary: dict[str, Any] = {
        **settings,
        "miou": mean_ious(results),
        "n_instances": len(results),
        "n_images": len(images),
        "min_area_px": MIN_AREA_PX,
    }
    if groups is not None:
        names = sorted({name for image in images for name in groups[image.name]})
        summary["groups"] = {name: _group_row(name, results, images, groups) for name in names}
    summary["instances"] = [
        {
            "image": result.image,
            "value": result.value,
            "area_px": result.area_px,
            "iou": [round(iou, 4) for iou in result.ious],
        }
        for result in results
    ]
    return summary


def read_groups(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Groups of each image from a CSV with the columns ``image`` and ``group``; an image may be in several.

    Images are named as in ``LabelledImage.name``; a suffix is ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, or a row is incomplete.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = {"image", "group"} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: expected a header with the columns image and group, got {rows.fieldnames}")
        groups: dict[str, tuple[str, ...]] = {}
        for row in rows:
            name, group = (row["image"] or "").strip(), (row["group"] or "").strip()
            if not name or not group:
                raise ValueError(f"{path} line {rows.line_num}: expected an image and a group, got {row}")
            name = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
            groups[name] = (*groups.get(name, ()), group)
    return groups


def check_groups(images: Sequence[LabelledImage], groups: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError if an image is in no group, because it would silently be missing from the comparison."""
    without = [image.name for image in images if image.name not in groups]
    if without:
        raise ValueError(
            f"{len(without)} of {len(images)} images are in no group, {without[0]!r} is the first: give each image a "
            "row with its name and its group"
        )


def _group_row(
    name: str, results: Sequence[InstanceResult], images: Sequence[LabelledImage], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    members = [result for result in results if name in groups[result.image]]
    return {
        "miou": mean_ious(members),
        "n_instances": len(members),
        "n_images": sum(name in groups[image.name] for image in images),
    }
