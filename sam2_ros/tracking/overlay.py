"""Draw a ``FrameResult`` on its image: masks, outlines, and tags with id, state, score and mask quality."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask, check_image

MASK_ALPHA = 0.45
OUTLINE_PX = 2
MAX_ID_CHARACTERS = 24
UNSURE_BELOW = 0.5  # ``mask_quality`` of a mask that gets a mark
# Keeps the list in the corner from covering the picture when very many objects are not visible.
MAX_LISTED_OBJECTS = 8

# Chosen so that neighbours differ strongly in hue or lightness; later labels get generated hues.
_PALETTE_RGB = (
    (255, 90, 60),
    (50, 150, 255),
    (70, 210, 90),
    (255, 205, 30),
    (205, 90, 255),
    (0, 215, 215),
    (255, 120, 190),
    (160, 110, 60),
    (170, 255, 60),
    (110, 100, 255),
    (255, 160, 90),
    (0, 150, 120),
)
_GOLDEN_RATIO = 0.61803398875
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TAG_BACKGROUND_RGB = (20, 20, 20)
_STATUS_TEXT_RGB = (255, 255, 255)


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels; ``x1`` and ``y1`` exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    def overlaps(self, other: _Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True)
class _TagStyle:
    """Text sizes for one image size."""

    font_scale: float
    thickness_px: int
    padding_px: int

    @classmethod
    def for_height(cls, height_px: int) -> _TagStyle:
        # 0.62 is legible at 720 rows; below 0.45 the stroke font breaks up.
        scale = float(np.clip(0.62 * height_px / 720.0, 0.45, 2.0))
        return cls(font_scale=scale, thickness_px=max(1, round(scale * 1.6)), padding_px=max(3, round(7 * scale)))

    def size_px(self, text: str) -> tuple[int, int]:
        """(width, height) of a tag with this text, including its background."""
        (width, height), baseline = cv2.getTextSize(text, _FONT, self.font_scale, self.thickness_px)
        return width + 3 * self.padding_px, height + baseline + 2 * self.padding_px - 2


def color_labels(result: FrameResult) -> NDArray[np.uint8]:
    """The label image for people, (H, W, 3) uint8 RGB: each object in its colour, black where there is none.

    Viewers show labels as they are, as nearly black grey values.
    """
    colors = np.zeros((int(result.label_image.max(initial=0)) + 1, 3), np.uint8)
    for tracked in result:
        if tracked.label < len(colors):
            colors[tracked.label] = label_color_rgb(tracked.label)
    return colors[result.label_image]


def label_color_rgb(label: int) -> tuple[int, int, int]:
    """The colour of a label (1 or more) as (R, G, B) in 0..255; fixed per label.

    >>> label_color_rgb(1)
    (255, 90, 60)
    """
    if label < 1:
        raise ValueError(f"expected a label of 1 or more (0 is the background), got {label}")
    if label <= len(_PALETTE_RGB):
        return _PALETTE_RGB[label - 1]
    hue = (label * _GOLDEN_RATIO) % 1.0
    value = 1.0 if label % 2 else 0.75
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.8, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def tag_of_tracked(tracked: TrackedMask, unsure_below: float = UNSURE_BELOW) -> str:
    """Id, state and presence of a tracked object; of a visible one the quality of its mask, in doubt with a mark."""
    text = f"{short_name(tracked)} {ObjectState(tracked.state).name} {tracked.score:.2f}"
    if tracked.doubted_with:
        return f"{text}, or {tracked.doubted_with}?"
    return text if tracked.box_xyxy is None else f"{text} q{quality_text(tracked.mask_quality, unsure_below)}"


def quality_text(mask_quality: float, unsure_below: float = UNSURE_BELOW) -> str:
    """The quality of a mask for people: with a question mark where it is below ``unsure_below``.

    >>> quality_text(0.8), quality_text(0.3)
    ('0.80', '0.30?')
    """
    return f"{mask_quality:.2f}" + ("?" if mask_quality < unsure_below else "")


def short_name(tracked: TrackedMask) -> str:
    """The object's id, cut to what a tag has room for."""
    name = tracked.object_id
    return name if len(name) <= MAX_ID_CHARACTERS else name[: MAX_ID_CHARACTERS - 2] + ".."


def draw_overlay(
    image_rgb: NDArray[np.uint8],
    result: FrameResult,
    status: str | None = None,
    tag: Callable[[TrackedMask], str] | None = tag_of_tracked,
) -> NDArray[np.uint8]:
    """Draw ``result`` on a copy of its image.

    Visible objects get a translucent mask, an outline and a tag; the others are listed in the lower left corner.

    Args:
        image_rgb: (H, W, 3) uint8 RGB; not changed.
        result: what ``Tracker.step`` returned for this image; its masks are (H, W).
        status: optional line for the upper left corner, for example ``"12.3 fps"``.
        tag: the text about an object; None omits it, where there may be too many objects.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: the image is not (H, W, 3) uint8, or a mask has another size than the image.
    """
    check_image(image_rgb)
    canvas = np.array(image_rgb, order="C", copy=True)
    visible = [tracked for tracked in result if tracked.box_xyxy is not None]
    hidden = [tracked for tracked in result if tracked.box_xyxy is None]
    for tracked in visible:
        _draw_mask(canvas, tracked)
    # Tags are drawn last and avoid each other, so that no mask or other tag covers them if there is room.
    style = _TagStyle.for_height(canvas.shape[0])
    taken: list[_Box] = []
    if status:
        taken.append(_draw_tag(canvas, status, (0, 0), _STATUS_TEXT_RGB, style))
    if tag is not None:
        _draw_hidden_list(canvas, [(tag(each), label_color_rgb(each.label)) for each in hidden], style, taken)
        for tracked in visible:
            _draw_object_tag(canvas, tracked, tag(tracked), style, taken)
    return canvas


def _draw_mask(canvas: NDArray[np.uint8], tracked: TrackedMask) -> None:
    if tracked.mask.shape != canvas.shape[:2]:
        raise ValueError(
            f"object {tracked.object_id!r}: mask of shape {tracked.mask.shape} on an image of {canvas.shape[:2]}; "
            "pass the image that this result was computed from"
        )
    assert tracked.box_xyxy is not None
    x0, y0, x1, y1 = tracked.box_xyxy
    mask = np.ascontiguousarray(tracked.mask[y0:y1, x0:x1]).view(np.uint8)
    region = canvas[y0:y1, x0:x1]
    color = label_color_rgb(tracked.label)
    tinted = cv2.addWeighted(region, 1.0 - MASK_ALPHA, np.full_like(region, color), MASK_ALPHA, 0.0)
    np.copyto(region, tinted, where=mask[..., None].astype(bool))
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    cv2.drawContours(canvas, contours, -1, color, OUTLINE_PX, cv2.LINE_8)


def _draw_object_tag(
    canvas: NDArray[np.uint8], tracked: TrackedMask, text: str, style: _TagStyle, taken: list[_Box]
) -> None:
    """Put the tag above the object, or at the nearest free place inside the image."""
    assert tracked.box_xyxy is not None
    width, height = style.size_px(text)
    x0, y0, x1, y1 = tracked.box_xyxy
    wanted = [(x0, y0 - height - 2), (x0, y1 + 2), (x0, y0 + 2), (x1 + 2, y0), (x0 - width - 2, y0)]
    wanted += [(x0, y0 + step * (height + 2)) for step in range(1, 6)]
    places = [_inside(place, (width, height), canvas.shape) for place in wanted]
    place = next((p for p in places if not any(p.overlaps(other) for other in taken)), places[0])
    taken.append(_draw_tag(canvas, text, (place.x0, place.y0), label_color_rgb(tracked.label), style))


def _draw_hidden_list(
    canvas: NDArray[np.uint8], hidden: list[tuple[str, tuple[int, int, int]]], style: _TagStyle, taken: list[_Box]
) -> None:
    """Texts with their colours."""
    lines = hidden[:MAX_LISTED_OBJECTS]
    if len(hidden) > MAX_LISTED_OBJECTS:
        lines.append((f"and {len(hidden) - MAX_LISTED_OBJECTS} more not visible", _STATUS_TEXT_RGB))
    bottom = canvas.shape[0]
    for text, color in reversed(lines):
        bottom -= style.size_px(text)[1]
        taken.append(_draw_tag(canvas, text, (0, bottom), color, style))


def _inside(place_xy: tuple[int, int], size_wh: tuple[int, int], image_shape: tuple[int, ...]) -> _Box:
    """The rectangle moved as little as possible to lie inside the image; if too large, its upper left part does."""
    x0 = max(0, min(place_xy[0], image_shape[1] - size_wh[0]))
    y0 = max(0, min(place_xy[1], image_shape[0] - size_wh[1]))
    return _Box(x0, y0, x0 + size_wh[0], y0 + size_wh[1])


def _draw_tag(
    canvas: NDArray[np.uint8],
    text: str,
    place_xy: tuple[int, int],
    color_rgb: tuple[int, int, int],
    style: _TagStyle,
) -> _Box:
    """Draw light text on a dark background with a bar in the object's colour; returns its rectangle."""
    box = _inside(place_xy, style.size_px(text), canvas.shape)
    region = canvas[box.y0 : box.y1, box.x0 : box.x1]
    # Slightly transparent, so that a tag hides less of the image at nearly full contrast.
    np.copyto(region, cv2.addWeighted(region, 0.2, np.full_like(region, _TAG_BACKGROUND_RGB), 0.8, 0.0))
    bar_px = style.padding_px
    canvas[box.y0 : box.y1, box.x0 : min(box.x0 + bar_px, canvas.shape[1])] = color_rgb
    (_, text_height), _ = cv2.getTextSize(text, _FONT, style.font_scale, style.thickness_px)
    origin = (box.x0 + 2 * style.padding_px, box.y0 + style.padding_px + text_height - 1)
    cv2.putText(canvas, text, origin, _FONT, style.font_scale, _STATUS_TEXT_RGB, style.thickness_px, cv2.LINE_AA)
    return box
