"""Segment everything: prompt a grid of points, keep the masks that are good, and remove duplicates.

As the official ``SAM2AutomaticMaskGenerator``, but masks are filtered by predicted IoU before they are enlarged, and
stored cropped to their boxes: the result is the same, and memory does not grow with points times pixels. Empty masks
are always dropped (the official code keeps them if the stability threshold is 0).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import EncodedImage, at_image_size, decode, encode
from sam2_ros.tracking.prompts import Prompt, make_prompt
from sam2_ros.tracking.transforms import tight_box_xyxy
from sam2_ros.tracking.types import check_image

_ENLARGED_AT_ONCE = 16  # float masks at the image's size in memory at once
_EDGE_PX = 20  # a box that ends this close to a crop's edge counts as cut off by it


@dataclass(frozen=True)
class GeneratorSettings:
    """Where to look and what to keep. The defaults are the official ones, chosen for the large model."""

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8  # keep masks with a predicted IoU above this; 0 keeps all
    stability_score_thresh: float = 0.95  # keep masks of at least this stability; 0 keeps all
    stability_score_offset: float = 1.0  # logits; stability is the IoU of the masks at thresholds plus and minus this
    mask_threshold: float = 0.0  # logits above this are the mask
    box_nms_thresh: float = 0.7  # of masks whose boxes have a higher IoU keep the one with the best predicted IoU
    crop_n_layers: int = 0  # layer n adds 4 ** n crops of the image
    crop_nms_thresh: float = 0.7  # as box_nms_thresh, between crops; keep the mask of the smaller crop
    crop_overlap_ratio: float = 512 / 1500  # of the image's shorter side, in layer 1
    crop_n_points_downscale_factor: int = 1  # layer n has points_per_side divided by the n-th power of this
    min_mask_region_area: int = 0  # remove holes and specks of at most this many pixels of the low-resolution map
    use_m2m: bool = False  # decode every mask again with its own logits
    multimask_output: bool = True  # three masks per point instead of one

    def __post_init__(self) -> None:
        counts = {"points_per_side": 1, "points_per_batch": 1, "crop_n_layers": 0, "crop_n_points_downscale_factor": 1}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        smallest = self.points_per_side // self.crop_n_points_downscale_factor**self.crop_n_layers
        if smallest < 1:
            raise ValueError(
                f"no point is left in crop layer {self.crop_n_layers}: lower crop_n_points_downscale_factor "
                f"({self.crop_n_points_downscale_factor}) or raise points_per_side ({self.points_per_side})"
            )


# Chosen by inspecting photographs. Its weights are unsure: predicted IoUs rarely reach 0.7 and outlines shift with the
# threshold, so that nothing would pass the official thresholds.
_NANO = GeneratorSettings(
    points_per_side=16,
    pred_iou_thresh=0.4,
    stability_score_thresh=0.6,
    stability_score_offset=0.3,
    box_nms_thresh=0.5,
    min_mask_region_area=20,
)


def settings_for(model_name: str) -> GeneratorSettings:
    """The official settings, or those chosen for nano."""
    return _NANO if model_name == "nano" else GeneratorSettings()


@dataclass(frozen=True)
class Crop:
    """A part of the image, in pixels; x1 and y1 exclusive."""

    layer: int  # 0 = the whole image; layer n has 4 ** n crops
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area_px(self) -> int:
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def cut(self, image_rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of an image, as a view."""
        return image_rgb[self.y0 : self.y1, self.x0 : self.x1]


def make_crops(height: int, width: int, layers: int, overlap_ratio: float) -> tuple[Crop, ...]:
    """The whole image, then the crops of every layer, column by column.

    ``overlap_ratio`` is the overlap of the crops of layer 1 as a fraction of the image's shorter side; every further
    layer halves it.
    """
    crops = [Crop(0, 0, 0, width, height)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        for column in range(per_side):
            for row in range(per_side):
                x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
                if x0 >= width or y0 >= height:  # an image of a few pixels
                    continue
                crops.append(Crop(layer, x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)))
    return tuple(crops)


def make_grid(per_side: int, height: int, width: int) -> NDArray[np.float32]:
    """(per_side ** 2, 2) points x, y in pixels, row by row, half a step from the edges.

    >>> make_grid(2, 4, 8).tolist()
    [[2.0, 1.0], [6.0, 1.0], [2.0, 3.0], [6.0, 3.0]]
    """
    places = np.linspace(1 / (2 * per_side), 1 - 1 / (2 * per_side), per_side)
    x, y = np.meshgrid(places * width, places * height)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def keep_best_boxes(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> NDArray[np.intp]:
    """Non-maximum suppression: indices of the boxes to keep, best score first; of equal scores the earlier box.

    A box is dropped if its IoU with a better one that is kept exceeds ``iou_threshold``. Boxes without area overlap
    nothing.

    >>> keep_best_boxes(np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]]), np.float32([0.8, 0.9, 0.1]), 0.7)
    array([1, 2])
    """
    x0, y0, x1, y1 = boxes_xyxy.astype(np.float32).reshape(-1, 4).T
    areas = (x1 - x0) * (y1 - y0)
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[waiting]) - np.maximum(x0[best], x0[waiting])
        height = np.minimum(y1[best], y1[waiting]) - np.maximum(y0[best], y0[waiting])
        overlap = width.clip(min=0) * height.clip(min=0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which exceeds no threshold
            iou = overlap / (areas[best] + areas[waiting] - overlap)
        waiting = waiting[~(iou > np.float32(iou_threshold))]
    return np.array(kept, dtype=np.intp)


@dataclass(frozen=True)
class GeneratedMask:
    """One segment of the image."""

    mask: NDArray[np.bool_]  # (H, W)
    area_px: int
    box_xyxy: tuple[int, int, int, int]  # tight, x1 and y1 exclusive
    predicted_iou: float  # the model's own estimate
    stability_score: float  # 0..1
    point_xy: tuple[float, float]  # the point that prompted it
    crop_xyxy: tuple[int, int, int, int]  # the crop in which it was found


@dataclass(frozen=True)
class Progress:
    """Number of grid points processed, and in all."""

    done: int
    total: int


@dataclass(frozen=True)
class FoundMask:
    """One segment of the image, cropped to its box: at full size hundreds of masks take gigabytes."""

    mask: NDArray[np.bool_]  # (y1 - y0, x1 - x0)
    box_xyxy: tuple[int, int, int, int]  # in the whole image, x1 and y1 exclusive
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]  # in the whole image
    crop: Crop


class AutomaticMaskGenerator:
    """Segments everything in an image without prompts.

    Args:
        model: in eval mode, on the device to use; it may belong to an ``ImagePredictor`` or a ``Tracker`` as well.
        settings: None selects those for this model, see ``settings_for``.
    """

    def __init__(self, model: SAM2, settings: GeneratorSettings | None = None) -> None:
        self._model = model
        self._settings = settings or settings_for(model.config.name)

    @property
    def settings(self) -> GeneratorSettings:
        return self._settings

    def generate(
        self, image_rgb: NDArray[np.uint8], progress: Callable[[Progress], None] | None = None
    ) -> tuple[GeneratedMask, ...]:
        """All masks, in the official order: best predicted IoU first; with crops, those of the smallest crops first.

        Raises:
            ValueError: not a (H, W, 3) uint8 array.
        """
        steps = self.steps(image_rgb)
        while True:
            try:
                done = next(steps)
            except StopIteration as end:
                return tuple(_at_full_size(found, *image_rgb.shape[:2]) for found in end.value)
            if progress is not None:
                progress(done)

    def steps(self, image_rgb: NDArray[np.uint8]) -> Generator[Progress, None, tuple[FoundMask, ...]]:
        """``generate``, one crop's encoding or one batch of points at a time, for callers with other work in between.

        Returns:
            The masks in the order of ``generate``, not yet at full size.
        """
        check_image(image_rgb)
        settings = self._settings
        height, width = image_rgb.shape[:2]
        crops = make_crops(height, width, settings.crop_n_layers, settings.crop_overlap_ratio)
        per_side = [
            settings.points_per_side // settings.crop_n_points_downscale_factor**layer
            for layer in range(settings.crop_n_layers + 1)
        ]
        done, total = 0, sum(per_side[crop.layer] ** 2 for crop in crops)
        found: list[FoundMask] = []
        for crop in crops:
            image = retried_out_of_memory(functools.partial(self._encode, crop.cut(image_rgb)))
            yield Progress(done, total)
            points_p2 = make_grid(per_side[crop.layer], image.height, image.width)
            in_crop: list[FoundMask] = []
            for start in range(0, len(points_p2), settings.points_per_batch):
                batch_p2 = points_p2[start : start + settings.points_per_batch]
                find = functools.partial(self._find, image, crop, batch_p2, (height, width))
                in_crop += retried_out_of_memory(find)
                done += len(batch_p2)
                yield Progress(done, total)
            found += _remove_duplicates(in_crop, [f.predicted_iou for f in in_crop], settings.box_nms_thresh)
        if len(crops) > 1:
            found = _remove_duplicates(found, [1 / f.crop.area_px for f in found], settings.crop_nms_thresh)
        return tuple(found)

    @torch.inference_mode()
    def _encode(self, image_rgb: NDArray[np.uint8]) -> EncodedImage:
        return encode(self._model, image_rgb)

    @torch.inference_mode()
    def _find(
        self, image: EncodedImage, crop: Crop, points_p2: NDArray[np.float32], image_size: tuple[int, int]
    ) -> list[FoundMask]:
        """The good masks of a batch of points."""
        settings = self._settings
        prompts = [make_prompt([point], [1]) for point in points_p2]
        decoded = decode(self._model, image, prompts, None, settings.multimask_output)
        # One row a candidate mask from here on.
        point_m = np.repeat(np.arange(len(prompts)), decoded.ious_bn.shape[1])
        logits_mhw, iou_m = decoded.logits_bnhw.flatten(0, 1), decoded.ious_bn.flatten()
        if settings.use_m2m:
            logits_mhw, iou_m = self._refine(image, [prompts[i] for i in point_m], decoded.fed_back_bnhw.flatten(0, 1))
        rows = np.arange(len(point_m))
        if settings.pred_iou_thresh > 0:
            rows = rows[(iou_m > settings.pred_iou_thresh).cpu().numpy()]
        found: list[FoundMask] = []
        for row, mask_hw, stability in self._stable_masks(image, logits_mhw, rows):
            box = tight_box_xyxy(mask_hw)
            if box is None or _is_cut_off(box, crop, image_size):
                continue
            x0, y0, x1, y1 = box
            x, y = points_p2[point_m[row]].tolist()
            found.append(
                FoundMask(
                    mask=mask_hw[y0:y1, x0:x1].copy(),
                    box_xyxy=(x0 + crop.x0, y0 + crop.y0, x1 + crop.x0, y1 + crop.y0),
                    predicted_iou=float(iou_m[row]),
                    stability_score=stability,
                    point_xy=(x + crop.x0, y + crop.y0),
                    crop=crop,
                )
            )
        return found

    def _refine(self, image: EncodedImage, prompts: list[Prompt], logits_mhw: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every mask again from its point and its own logits; (M, h, w) and (M,)."""
        size = self._settings.points_per_batch
        batches = [
            decode(self._model, image, prompts[i : i + size], logits_mhw[i : i + size], multimask=False)
            for i in range(0, len(prompts), size)
        ]
        return torch.cat([b.logits_bnhw[:, 0] for b in batches]), torch.cat([b.ious_bn[:, 0] for b in batches])

    def _stable_masks(
        self, image: EncodedImage, logits_mhw: Tensor, rows: NDArray[np.intp]
    ) -> Iterator[tuple[int, NDArray[np.bool_], float]]:
        """Row, mask at the image's size and stability of the masks that hardly change with the threshold."""
        settings = self._settings
        threshold, offset, area = (
            settings.mask_threshold,
            settings.stability_score_offset,
            settings.min_mask_region_area,
        )
        for start in range(0, len(rows), _ENLARGED_AT_ONCE):
            some = rows[start : start + _ENLARGED_AT_ONCE]
            full_nhw = at_image_size(image, logits_mhw[some], area, area)
            inner_n = (full_nhw > threshold + offset).sum((1, 2))
            stability_n = inner_n / (full_nhw > threshold - offset).sum((1, 2))  # NaN where the mask is empty
            for row, mask_hw, stability in zip(some, full_nhw > threshold, stability_n.tolist(), strict=True):
                if settings.stability_score_thresh <= 0 or stability >= settings.stability_score_thresh:
                    yield int(row), mask_hw.cpu().numpy(), stability


def _official_box(box_xyxy: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Inclusive x1 and y1, the convention in which the official code compares boxes."""
    x0, y0, x1, y1 = box_xyxy
    return x0, y0, x1 - 1, y1 - 1


def _is_cut_off(box_xyxy: tuple[int, int, int, int], crop: Crop, image_size: tuple[int, int]) -> bool:
    """Whether a box (in the crop's pixels) ends at an edge of the crop that is not an edge of the image."""
    height, width = image_size
    x0, y0, x1, y1 = _official_box(box_xyxy)
    ends = (x0 + crop.x0, y0 + crop.y0, x1 + crop.x0, y1 + crop.y0)
    edges = zip(ends, (crop.x0, crop.y0, crop.x1, crop.y1), (0, 0, width, height), strict=True)
    return any(
        abs(end - crop_edge) <= _EDGE_PX and abs(end - image_edge) > _EDGE_PX for end, crop_edge, image_edge in edges
    )


def _remove_duplicates(found: Sequence[FoundMask], scores: Sequence[float], iou_threshold: float) -> list[FoundMask]:
    boxes = np.array([_official_box(f.box_xyxy) for f in found], dtype=np.float32)
    return [found[i] for i in keep_best_boxes(boxes, np.array(scores, dtype=np.float32), iou_threshold)]


def _at_full_size(found: FoundMask, height: int, width: int) -> GeneratedMask:
    x0, y0, x1, y1 = found.box_xyxy
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y0:y1, x0:x1] = found.mask
    crop = found.crop
    return GeneratedMask(
        mask=mask,
        area_px=int(found.mask.sum()),
        box_xyxy=found.box_xyxy,
        predicted_iou=found.predicted_iou,
        stability_score=found.stability_score,
        point_xy=found.point_xy,
        crop_xyxy=(crop.x0, crop.y0, crop.x1, crop.y1),
    )
