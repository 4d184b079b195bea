"""Synthetic clips that each contain one limitation named in section 8 of the SAM 2 paper, and a plain one.

Textured shapes move over a cluttered background that the camera pans across. A clip is a function of its kind and a
seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.cutouts import Cutout, procedural_cutout, random_texture
from sam2_ros.data.clips.motion import similarity
from sam2_ros.data.clips.scene import Backdrop, Layer, Scene, render
from sam2_ros.evaluation.two_mugs import two_mugs

_NUM_FRAMES = 32
_SIZE_PX = 320
_GROUND_PX = 560
_NUM_CLUTTER = 14
_CUTOUT_PX = 160
_MIN_FILLED = 0.3  # of a shape's square

Path2 = NDArray[np.float64]  # (T, 2) middle of an object; the scene is x and y in 0..1


@dataclass(frozen=True)
class LimitClip:
    """A clip of one kind."""

    kind: str
    images_thwc: NDArray[np.uint8]  # (T, H, W, 3) RGB
    masks_tnhw: NDArray[np.bool_]  # (T, N, H, W) visible part of each object; all show in frame 0
    event_frame: int | None  # first frame after a cut or an occlusion; None: the clip has no such event


def limit_clip(kind: str, seed: int) -> LimitClip:
    """The clip of this kind and seed.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in _MAKERS:
        raise ValueError(f"expected one of {', '.join(LIMIT_KINDS)}, got {kind!r}")
    rng = np.random.default_rng((LIMIT_KINDS.index(kind), seed))
    return _MAKERS[kind](_Studio(rng))


class _Studio:
    """Draws the parts of a clip."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def ground(self) -> NDArray[np.uint8]:
        """A background (_GROUND_PX, _GROUND_PX, 3) of blotches in two sizes."""
        image = np.zeros((_GROUND_PX, _GROUND_PX, 3), np.float32) + self.rng.uniform(50, 190, 3)
        for cells, strength in ((4, 28), (40, 16)):
            noise = self.rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (_GROUND_PX, _GROUND_PX), interpolation=cv2.INTER_CUBIC)
        return np.clip(image, 0, 255).astype(np.uint8)

    def shape(self) -> Cutout:
        """A shape that fills enough of its square: thin shapes are a limit of their own."""
        while True:
            cutout = procedural_cutout(self.rng, self.ground(), _CUTOUT_PX)
            if cutout.area_px > _MIN_FILLED * _CUTOUT_PX**2:
                return cutout

    def bar(self, length: float, width: float) -> Cutout:
        """An upright rectangle with these sides in scene units, drawn at 4 times the frame's resolution."""
        height_px, width_px = round(4 * _SIZE_PX * length), max(4, round(4 * _SIZE_PX * width))
        texture = cv2.resize(random_texture(self.rng, self.ground(), height_px), (width_px, height_px))
        alpha = np.full((height_px, width_px), 255, np.uint8)
        return Cutout(cv2.copyMakeBorder(np.dstack([texture, alpha]), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0))

    def drift(self, reach: float, shift_x: float = 0.0) -> Path2:
        """A straight path through the middle of the frame, or beside it, that starts and ends inside."""
        turn = self.rng.uniform(0, 2 * np.pi)
        along = np.linspace(-0.5, 0.5, _NUM_FRAMES)[:, None] * reach
        return self.rng.uniform(0.4, 0.6, 2) + np.array([shift_x, 0.0]) + along * np.array([np.cos(turn), np.sin(turn)])

    def scene(self, layers: list[Layer]) -> Scene:
        """The layers over a new cluttered background that the camera pans across."""
        slide_t2 = np.linspace(0, 1, _NUM_FRAMES)[:, None] * self.rng.uniform(-0.12, 0.12, 2)
        clutter = []
        for _ in range(_NUM_CLUTTER):
            path_t2 = self.rng.uniform(-0.1, 1.1, 2) + slide_t2
            clutter.append(_layer(self.shape(), path_t2, self.rng.uniform(0.06, 0.2)))
        scale = 1.4 / _GROUND_PX
        ground_t33 = np.stack([similarity(-0.2 + slide, scale, 0.0, 0.0) for slide in slide_t2])
        return Scene(1.0, Backdrop(self.ground(), (), ground_t33, None, (0, 0, 0, 0)), (*clutter, *layers))


def _layer(cutout: Cutout, center_t2: Path2, side: float, turn_rad: float = 0.0) -> Layer:
    """A cut-out whose longer side is ``side``, along a path; it turns by ``turn_rad`` over the clip."""
    height, width = cutout.rgba_hwc.shape[:2]
    to_origin = np.eye(3)
    to_origin[:2, 2] = -(width - 1) / 2, -(height - 1) / 2
    angles = np.linspace(0, turn_rad, len(center_t2))
    scale = side / max(height, width)
    path = [similarity(center, scale, angle, 0.0) @ to_origin for center, angle in zip(center_t2, angles, strict=True)]
    return Layer(cutout, np.stack(path))


def _target(cutout: Cutout, center_t2: Path2, side: float, turn_rad: float = 0.3) -> Layer:
    return replace(_layer(cutout, center_t2, side, turn_rad), is_target=True)


def _film(kind: str, scenes: list[Scene], event_frame: int | None = None) -> LimitClip:
    """A clip from frame t of scene t, with the targets of that scene."""
    images, masks = [], []
    for t, scene in enumerate(scenes):
        frame = render(scene, t, _SIZE_PX)
        images.append(cv2.GaussianBlur(frame.image_hwc, (3, 3), 0.6))
        masks.append(frame.owner_hw == np.array(scene.target_ids, np.int16)[:, None, None])
    return LimitClip(kind, np.stack(images), np.stack(masks), event_frame)


def _plain(studio: _Studio) -> LimitClip:
    return _film("plain", [studio.scene([_target(studio.shape(), studio.drift(0.35), 0.26)])] * _NUM_FRAMES)


def _shot_change(studio: _Studio) -> LimitClip:
    """A cut to another place, where the object is elsewhere, larger and turned."""
    cut, shape = _NUM_FRAMES // 2, studio.shape()
    before = studio.scene([_target(shape, studio.drift(0.2, shift_x=-0.15), 0.26)])
    after = studio.scene([_target(shape, studio.drift(0.2, shift_x=0.15), 0.33, turn_rad=1.2)])
    return _film("shot change", [before] * cut + [after] * (_NUM_FRAMES - cut), cut)


def _lookalikes(studio: _Studio) -> LimitClip:
    """Five more of the same shape, on paths that cross that of the target; some pass in front of it."""
    shape = studio.shape()
    layers = [_layer(shape, studio.drift(0.8), 0.2, 0.3) for _ in range(5)]
    start = studio.rng.uniform(0.15, 0.85, 2)
    target_t2 = start + np.linspace(0, 1, _NUM_FRAMES)[:, None] * 0.8 * (0.5 - start)
    return _film(
        "look-alikes", [studio.scene([*layers[:3], _target(shape, target_t2, 0.2), *layers[3:]])] * _NUM_FRAMES
    )


def _long_occlusion(studio: _Studio) -> LimitClip:
    """Behind a wall and out again on the other side; half of it is visible at the event."""
    along = np.linspace(0.12, 0.88, _NUM_FRAMES)
    target_t2 = np.column_stack([along, np.full(_NUM_FRAMES, studio.rng.uniform(0.35, 0.65))])
    wall = _layer(studio.bar(1.2, 0.4), np.tile([0.5, 0.5], (_NUM_FRAMES, 1)), 1.2)
    out = int(np.argmax(along > 0.5 + 0.2))
    return _film("long occlusion", [studio.scene([_target(studio.shape(), target_t2, 0.18), wall])] * _NUM_FRAMES, out)


def _thin(studio: _Studio) -> LimitClip:
    """A stick that turns."""
    stick = _target(studio.bar(0.6, 0.016), studio.drift(0.25), 0.6, turn_rad=1.2)
    return _film("thin", [studio.scene([stick])] * _NUM_FRAMES)


def _fast(studio: _Studio) -> LimitClip:
    """Back and forth by more than its own size per frame."""
    t = np.arange(_NUM_FRAMES)
    phase = studio.rng.uniform(0, 2 * np.pi, 2)
    target_t2 = 0.5 + 0.36 * np.column_stack([np.sin(0.62 * t + phase[0]), np.sin(0.47 * t + phase[1])])
    return _film("fast", [studio.scene([_target(studio.shape(), target_t2, 0.13)])] * _NUM_FRAMES)


def _many_objects(studio: _Studio) -> LimitClip:
    """Twelve different objects at once, on a grid at first."""
    layers = []
    for row in range(3):
        for column in range(4):
            start = np.array([0.14 + 0.24 * column, 0.18 + 0.32 * row])
            path_t2 = start + np.linspace(0, 1, _NUM_FRAMES)[:, None] * studio.rng.uniform(-0.12, 0.12, 2)
            layers.append(_target(studio.shape(), path_t2, 0.17))
    return _film("12 objects", [studio.scene(layers)] * _NUM_FRAMES)


def _two_mugs(studio: _Studio) -> LimitClip:
    """Two equal mugs that cross; then the camera looks away for 3 s, and is back at the event."""
    return LimitClip("two mugs", *two_mugs(int(studio.rng.integers(1 << 31))))


_MAKERS: dict[str, Callable[[_Studio], LimitClip]] = {
    "plain": _plain,
    "shot change": _shot_change,
    "look-alikes": _lookalikes,
    "long occlusion": _long_occlusion,
    "thin": _thin,
    "fast": _fast,
    "12 objects": _many_objects,
    "two mugs": _two_mugs,
}
LIMIT_KINDS = tuple(_MAKERS)
