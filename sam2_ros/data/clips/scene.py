"""A synthetic scene: one backdrop photograph and layers of cut-outs in front of it, rendered frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout
from sam2_ros.data.clips.mesh import MovingMesh, Surface, render_mesh
from sam2_ros.data.clips.motion import Deformation, scene_to_frame
from sam2_ros.data.clips.warping import Region, region_of, source_maps

NOBODY = -1
_SOFT_EDGE = np.clip((np.arange(256) / 255 - 0.25) / 0.5 * 255, 0, 255).astype(np.uint8)


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
    """One object; a later layer covers an earlier one. Layer i owns id len(backdrop.masks) + i."""

    cutout: Cutout  # what it shows: the object itself, or the texture of its mesh
    pose_t33: NDArray[np.float64]  # (T, 3, 3) cut-out px -> scene; without meaning where there is a mesh
    deformation: Deformation | None = None
    is_target: bool = False
    gain_t: NDArray[np.float64] | None = None  # (T,) brightness over time, 1 = as cut out
    mesh: MovingMesh | None = None
    raised_t: NDArray[np.float64] | None = None  # (T,) added to the layer's number where layers change their order
    present_t: NDArray[np.bool_] | None = None  # (T,) False where the object is gone


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
    numbers = range(len(scene.layers))
    for number in sorted(numbers, key=lambda n: n + _at(scene.layers[n].raised_t, t, 0.0)):
        if _at(scene.layers[number].present_t, t, True):
            paint(scene.layers[number], number + len(scene.backdrop.masks), t, to_frame, image, owner)
    return Rendered(image, owner)


def _at(value_t: NDArray[np.generic] | None, t: int, default: float) -> float:
    return default if value_t is None else float(value_t[t])


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


def paint(
    layer: Layer,
    number: int,
    t: int,
    to_frame: NDArray[np.float64],
    image_hwc: NDArray[np.uint8],
    owner_hw: NDArray[np.int16],
) -> None:
    """Paint frame t of the layer into image_hwc, and its number into owner_hw."""
    surface = _surface(layer, t, to_frame, image_hwc.shape[0])
    if surface is None:
        return
    rgba = surface.maps.sample(layer.cutout.rgba_hwc, cv2.BORDER_CONSTANT)
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    if surface.shade_hw is not None:
        rgb = cv2.multiply(rgb, cv2.merge([surface.shade_hw] * 3), dtype=cv2.CV_8U)
        # The mesh ends at a pixel's edge, as no photograph does.
        alpha = cv2.min(alpha, cv2.LUT(cv2.GaussianBlur(alpha, (5, 5), 0.8), _SOFT_EDGE))
    below = image_hwc[surface.region.slices]
    weight = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
    above = cv2.multiply(rgb, weight, scale=_at(layer.gain_t, t, 1.0) / 255)
    cv2.min(above, weight, dst=above)
    cv2.add(above, cv2.multiply(below, cv2.bitwise_not(weight), scale=1 / 255), dst=above)
    image_hwc[surface.region.slices] = above
    owner_hw[surface.region.slices][alpha >= 128] = number


def _surface(layer: Layer, t: int, to_frame: NDArray[np.float64], size_px: int) -> Surface | None:
    """What the layer shows and where; None if it is out of view."""
    if layer.mesh is not None:
        return render_mesh(layer.mesh, t, to_frame, size_px)
    height, width = layer.cutout.rgba_hwc.shape[:2]
    table = layer.deformation.table(t) if layer.deformation else None
    margin = 0.0 if table is None else float(np.abs(table).max())
    matrix = to_frame @ layer.pose_t33[t]
    region = region_of(matrix, width, height, margin, size_px)
    if region is None:
        return None
    return Surface(region, source_maps(matrix, region, table, (0.0, 0.0, float(width), float(height))), None)
