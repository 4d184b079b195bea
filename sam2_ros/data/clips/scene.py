"""A synthetic scene: one backdrop photograph and layers of cut-outs in front of it, rendered frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.motion import Deformation, scene_to_frame
from sam2_ros.data.clips.warping import Region, region_of, source_maps

NOBODY = -1


@dataclass(frozen=True)
class Backdrop:
    """The photograph behind everything; some of its own objects may be targets."""

    image_hwc: NDArray[np.uint8]  # (H, W, 3) RGB
    masks: tuple[NDArray[np.uint8], ...]  # each (H, W) 0..255, one per object of interest; they own ids 0, 1, ..
    pose_t33: NDArray[np.float64]  # (T, 3, 3) photograph px -> scene
    deformation: Deformation | None
    carrier_xyxy: tuple[float, float, float, float]  # px, where the deformation lives
    border: int = cv2.BORDER_REFLECT_101  # what the camera sees beyond the photograph


@dataclass(frozen=True)
class Layer:
    """One cut-out; a later layer covers an earlier one. Layer i owns id len(backdrop.masks) + i."""

    cutout: Cutout
    pose_t33: NDArray[np.float64]  # (T, 3, 3) cut-out px -> scene
    deformation: Deformation | None = None
    is_target: bool = False
    gain_t: NDArray[np.float64] | None = None  # (T,) brightness over time, 1 = as cut out


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows."""

    aspect: float  # width / height of the scene, squeezed into square frames
    backdrop: Backdrop
    layers: tuple[Layer, ...]

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Ids of the objects to track."""
        first = len(self.backdrop.masks)
        return (*range(first), *(first + i for i, layer in enumerate(self.layers) if layer.is_target))


@dataclass(frozen=True)
class Rendered:
    """One frame."""

    image_hwc: NDArray[np.uint8]  # (S, S, 3) RGB
    owner_hw: NDArray[np.int16]  # (S, S) id of the front-most object, NOBODY where only the backdrop shows


def render(scene: Scene, t: int, size_px: int) -> Rendered:
    """Render frame t of the scene at size_px x size_px."""
    to_frame = scene_to_frame(size_px, scene.aspect)
    image, owner = _render_backdrop(scene.backdrop, t, to_frame, size_px)
    for number, layer in enumerate(scene.layers):
        _paint(layer, number + len(scene.backdrop.masks), t, to_frame, image, owner)
    return Rendered(image, owner)


def _render_backdrop(
    backdrop: Backdrop, t: int, to_frame: NDArray[np.float64], size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    whole = Region(0, 0, size_px, size_px)
    table = backdrop.deformation.table(t) if backdrop.deformation else None
    maps = source_maps(to_frame @ backdrop.pose_t33[t], whole, table, backdrop.carrier_xyxy)
    image = maps.sample(backdrop.image_hwc, backdrop.border)
    owner = np.full((size_px, size_px), NOBODY, np.int16)
    best = np.full((size_px, size_px), 127, np.uint8)
    for number, mask_hw in enumerate(backdrop.masks):
        # The border repeats the photograph, objects and all, but no target: outside there is no mask.
        cover = maps.sample(mask_hw, cv2.BORDER_CONSTANT)
        owner[cover > best] = number
        best = np.maximum(best, cover)
    return image, owner


def _paint(
    layer: Layer,
    number: int,
    t: int,
    to_frame: NDArray[np.float64],
    image_hwc: NDArray[np.uint8],
    owner_hw: NDArray[np.int16],
) -> None:
    """Paint the layer into image_hwc and owner_hw."""
    height, width = layer.cutout.rgba_hwc.shape[:2]
    table = layer.deformation.table(t) if layer.deformation else None
    margin = 0.0 if table is None else float(np.abs(table).max())
    matrix = to_frame @ layer.pose_t33[t]
    region = region_of(matrix, width, height, margin, image_hwc.shape[0])
    if region is None:
        return
    maps = source_maps(matrix, region, table, (0.0, 0.0, float(width), float(height)))
    rgba = maps.sample(layer.cutout.rgba_hwc, cv2.BORDER_CONSTANT)
    alpha = rgba[..., 3]
    below = image_hwc[region.slices]
    weight = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
    gain = 1.0 if layer.gain_t is None else float(layer.gain_t[t])
    above = cv2.multiply(rgba[..., :3], weight, scale=gain / 255)
    cv2.min(above, weight, dst=above)
    cv2.add(above, cv2.multiply(below, cv2.bitwise_not(weight), scale=1 / 255), dst=above)
    image_hwc[region.slices] = above
    owner_hw[region.slices][alpha >= 128] = number
