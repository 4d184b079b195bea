"""Segment everything: point everywhere, keep the masks that are good and not there twice.

Answers to the official ``SAM2AutomaticMaskGenerator``. The predicted IoU is filtered before the masks are enlarged and
masks wait cut to their boxes: the result is the same, and memory does not grow with points times pixels. Empty masks
are always left out (the official code keeps them where the stability threshold is 0).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.crops import Crop, make_crops, make_grid
from sam2_ros.tracking.generator_settings import GeneratorSettings, settings_for
from sam2_ros.tracking.image_heads import EncodedImage, at_image_size, decode, encode
from sam2_ros.tracking.mask_ops import tight_box_xyxy
from sam2_ros.tracking.nms import keep_best_boxes
from sam2_ros.tracking.prompts import Prompt, make_prompt
from sam2_ros.tracking.transforms import check_image

_ENLARGED_AT_ONCE = 16  # masks at the image's size, in float
_EDGE_PX = 20  # a box that ends this close to a crop's edge is taken as cut off by it


@dataclass(frozen=True)
class GeneratedMask:
    """One thing in the image."""

    mask: NDArray[np.bool_]  # (H, W)
    area_px: int
    box_xyxy: tuple[int, int, int, int]  # tight, x1 and y1 exclusive
    predicted_iou: float  # the model's own estimate
    stability_score: float  # 0..1
    point_xy: tuple[float, float]  # the point that found it
    crop_xyxy: tuple[int, int, int, int]  # the part of the image in which it was found


@dataclass(frozen=True)
class Progress:
    """Points done, of all."""

    done: int
    total: int


@dataclass(frozen=True)
class _Found:
    """A mask that waits to be compared with others, cut to its box to save memory."""

    mask: NDArray[np.bool_]  # (y1 - y0, x1 - x0)
    box_xyxy: tuple[int, int, int, int]  # in the whole image, x1 and y1 exclusive
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]  # in the whole image
    crop: Crop


class AutomaticMaskGenerator:
    """Finds the things in an image without being told where they are.

    Args:
        model: in eval mode, on the device that is to be used; an ``ImagePredictor``'s or a ``Tracker``'s will do.
        settings: None takes those that suit this model, see ``settings_for``.
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
                return end.value
            if progress is not None:
                progress(done)

    def steps(self, image_rgb: NDArray[np.uint8]) -> Generator[Progress, None, tuple[GeneratedMask, ...]]:
        """``generate`` a batch of points at a time, for callers who have other things to do in between."""
        check_image(image_rgb)
        settings = self._settings
        height, width = image_rgb.shape[:2]
        crops = make_crops(height, width, settings.crop_n_layers, settings.crop_overlap_ratio)
        per_side = [
            settings.points_per_side // settings.crop_n_points_downscale_factor**layer
            for layer in range(settings.crop_n_layers + 1)
        ]
        done, total = 0, sum(per_side[crop.layer] ** 2 for crop in crops)
        found: list[_Found] = []
        for crop in crops:
            image = self._encode(crop.cut(image_rgb))
            points_p2 = make_grid(per_side[crop.layer], image.height, image.width)
            in_crop: list[_Found] = []
            for start in range(0, len(points_p2), settings.points_per_batch):
                batch_p2 = points_p2[start : start + settings.points_per_batch]
                in_crop += self._find(image, crop, batch_p2, (height, width))
                done += len(batch_p2)
                yield Progress(done, total)
            found += _without_doubles(in_crop, [f.predicted_iou for f in in_crop], settings.box_nms_thresh)
        if len(crops) > 1:
            found = _without_doubles(found, [1 / f.crop.area_px for f in found], settings.crop_nms_thresh)
        return tuple(_at_full_size(f, height, width) for f in found)

    @torch.inference_mode()
    def _encode(self, image_rgb: NDArray[np.uint8]) -> EncodedImage:
        return encode(self._model, image_rgb)

    @torch.inference_mode()
    def _find(
        self, image: EncodedImage, crop: Crop, points_p2: NDArray[np.float32], image_size: tuple[int, int]
    ) -> list[_Found]:
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
        found: list[_Found] = []
        for row, mask_hw, stability in self._stable_masks(image, logits_mhw, rows):
            box = tight_box_xyxy(mask_hw)
            if box is None or _is_cut_off(box, crop, image_size):
                continue
            x0, y0, x1, y1 = box
            x, y = points_p2[point_m[row]].tolist()
            found.append(
                _Found(
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
        """Every mask decoded again from its point and its own logits; (M, h, w) and (M,)."""
        size = self._settings.points_per_batch
        batches = [
            decode(self._model, image, prompts[i : i + size], logits_mhw[i : i + size], multimask=False)
            for i in range(0, len(prompts), size)
        ]
        return torch.cat([b.logits_bnhw[:, 0] for b in batches]), torch.cat([b.ious_bn[:, 0] for b in batches])

    def _stable_masks(
        self, image: EncodedImage, logits_mhw: Tensor, rows: NDArray[np.intp]
    ) -> Iterator[tuple[int, NDArray[np.bool_], float]]:
        """Row, mask at the image's size and stability of those that hardly change with the threshold."""
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
            stability_n = inner_n / (full_nhw > threshold - offset).sum((1, 2))  # NaN where there is nothing at all
            for row, mask_hw, stability in zip(some, full_nhw > threshold, stability_n.tolist(), strict=True):
                if settings.stability_score_thresh <= 0 or stability >= settings.stability_score_thresh:
                    yield int(row), mask_hw.cpu().numpy(), stability


def _official_box(box_xyxy: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The last pixels instead of those after them: the convention in which the official code compares boxes."""
    x0, y0, x1, y1 = box_xyxy
    return x0, y0, x1 - 1, y1 - 1


def _is_cut_off(box_xyxy: tuple[int, int, int, int], crop: Crop, image_size: tuple[int, int]) -> bool:
    """A box (in the crop's pixels) that ends at an edge of the crop which is not an edge of the image."""
    height, width = image_size
    x0, y0, x1, y1 = _official_box(box_xyxy)
    ends = (x0 + crop.x0, y0 + crop.y0, x1 + crop.x0, y1 + crop.y0)
    edges = zip(ends, (crop.x0, crop.y0, crop.x1, crop.y1), (0, 0, width, height), strict=True)
    return any(
        abs(end - crop_edge) <= _EDGE_PX and abs(end - image_edge) > _EDGE_PX for end, crop_edge, image_edge in edges
    )


def _without_doubles(found: Sequence[_Found], scores: Sequence[float], iou_threshold: float) -> list[_Found]:
    boxes = np.array([_official_box(f.box_xyxy) for f in found], dtype=np.float32)
    return [found[i] for i in keep_best_boxes(boxes, np.array(scores, dtype=np.float32), iou_threshold)]


def _at_full_size(found: _Found, height: int, width: int) -> GeneratedMask:
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
