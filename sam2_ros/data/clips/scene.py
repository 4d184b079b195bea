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
_SHORTEST_STREAK_PX = 1.5
_LONGEST_STREAK_PX = 40
_STREAK_STEPS = 4  # 16 places
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
class Shadow:
    """What an object darkens beside or under itself: its outline, squashed towards its foot, slanted and moved."""

    squash: float  # 1: on a wall behind it, as large as itself; less: on the ground
    slant: float  # px sideways for each px of height
    offset_xy: tuple[float, float]  # shares of the outline's sides
    darkness: float  # 0..1
    softness: float  # blur, as a share of the frame


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
    shadow: Shadow | None = None
    streak_t2: NDArray[np.float64] | None = None  # (T, 2) scene units that the object moves while the shutter is open


@dataclass(frozen=True)
class Scene:
    """Everything that a clip shows."""

    aspect: float  # width / height of the scene, squeezed into square frames
    backdrop: Backdrop
    layers: tuple[Layer, ...]
    light_tgg: NDArray[np.float32] | None = None  # (T, G, G) brightness over the frame, on everything

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
    if scene.light_tgg is not None:
        light = cv2.resize(scene.light_tgg[t], (size_px, size_px), interpolation=cv2.INTER_LINEAR)
        image = cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)
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
        # Beyond its edge the photograph is repeated, with its objects, but the repetitions are not targets.
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
        # A rendered mesh ends sharply at a pixel's edge; objects in photographs do not.
        alpha = cv2.min(alpha, cv2.LUT(cv2.GaussianBlur(alpha, (5, 5), 0.8), _SOFT_EDGE))
    if layer.shadow is not None:
        _darken(layer.shadow, alpha, surface.region, image_hwc)
    weight = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
    above = cv2.multiply(rgb, weight, scale=_at(layer.gain_t, t, 1.0) / 255)
    cv2.min(above, weight, dst=above)
    region = surface.region
    if layer.streak_t2 is not None:
        streak_xy = to_frame[:2, :2] @ layer.streak_t2[t]
        if np.abs(streak_xy).max() > _SHORTEST_STREAK_PX:
            region, above, weight = _streaked(region, above, weight, streak_xy, image_hwc.shape[0])
    below = image_hwc[region.slices]
    cv2.add(above, cv2.multiply(below, cv2.bitwise_not(weight), scale=1 / 255), dst=above)
    image_hwc[region.slices] = above
    owner_hw[region.slices][weight[..., 0] >= 128] = number


def _streaked(
    region: Region, above: NDArray[np.uint8], weight: NDArray[np.uint8], streak_xy: NDArray[np.float64], size_px: int
) -> tuple[Region, NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours (times their weight) and weights, smeared along the streak, and the larger region that they cover."""
    streak = np.clip(np.round(streak_xy), -_LONGEST_STREAK_PX, _LONGEST_STREAK_PX).astype(int)
    pad_x, pad_y = np.abs(streak)
    x0, y0 = region.x0 - pad_x, region.y0 - pad_y
    inside = Region(max(x0, 0), max(y0, 0), min(region.x1 + pad_x, size_px), min(region.y1 + pad_y, size_px))
    # The smear extends from the object in one direction; moving it back by half its length centres it on the object.
    back = streak // 2
    cut = np.s_[inside.y0 - y0 : inside.y1 - y0, inside.x0 - x0 : inside.x1 - x0]
    smeared = []
    for picture in (above, weight):
        # An object that the frame's edge cuts continues beyond it; any other ends inside its region.
        for top, bottom, left, right, at_edge in (
            (pad_y, 0, 0, 0, region.y0 <= 0),
            (0, pad_y, 0, 0, region.y1 >= size_px),
            (0, 0, pad_x, 0, region.x0 <= 0),
            (0, 0, 0, pad_x, region.x1 >= size_px),
        ):
            how = cv2.BORDER_REPLICATE if at_edge else cv2.BORDER_CONSTANT
            picture = cv2.copyMakeBorder(picture, int(top), int(bottom), int(left), int(right), how, value=0)
        # Each step averages the picture with a shifted copy of itself, which doubles the number of positions.
        moves = [np.round(streak / 2 ** (step + 1)).astype(int) for step in range(_STREAK_STEPS)]
        for move in moves:
            picture = cv2.addWeighted(picture, 0.5, np.roll(picture, tuple(move[::-1]), (0, 1)), 0.5, 0.0)
        smeared.append(np.ascontiguousarray(np.roll(picture, tuple(-back[::-1]), (0, 1))[cut]))
    return inside, smeared[0], smeared[1]


def _darken(shadow: Shadow, alpha_hw: NDArray[np.uint8], region: Region, image_hwc: NDArray[np.uint8]) -> None:
    """Darken the image where the shadow of the layer that is painted next falls, at half the resolution."""
    height, width = alpha_hw.shape
    half = image_hwc.shape[0] // 2
    foot = region.y1 + shadow.offset_xy[1] * height
    # alpha (x, y) -> frame (x0 + x + slant * (height - y), foot - squash * (height - y)), all halved.
    matrix_23 = 0.5 * np.array(
        [
            [1.0, -shadow.slant, region.x0 + shadow.offset_xy[0] * width + shadow.slant * height],
            [0.0, shadow.squash, foot - shadow.squash * height],
        ]
    )
    fall = cv2.warpAffine(alpha_hw, matrix_23, (half, half), flags=cv2.INTER_LINEAR)
    fall = cv2.GaussianBlur(fall, (0, 0), max(0.5, shadow.softness * half))
    size = (image_hwc.shape[1], image_hwc.shape[0])
    keep = cv2.resize(255 - (shadow.darkness * fall).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image_hwc, cv2.cvtColor(keep, cv2.COLOR_GRAY2BGR), dst=image_hwc, scale=1 / 255)


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
