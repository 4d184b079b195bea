"""Procedural prints for the rendered tabletop: wood, wall, packaging. RGB uint8, drawn from a seeded generator."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb: TypeAlias = tuple[int, int, int]
Image: TypeAlias = NDArray[np.uint8]  # (H, W, 3) RGB

_FONT = cv2.FONT_HERSHEY_DUPLEX
_PLANKS = 7  # of a table
_CREAM: Rgb = (238, 230, 212)
_INK: Rgb = (52, 48, 46)


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells_y: float, cells_x: float
) -> NDArray[np.float32]:
    """(height, width) float32 value noise in about -1..1, with the given number of cells along each axis."""
    grid = rng.uniform(-1, 1, (max(int(cells_y), 1) + 3, max(int(cells_x), 1) + 3)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _to_uint8(image: NDArray[np.floating]) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)


def _filled(height: int, width: int, color: Rgb) -> Image:
    return np.full((height, width, 3), color, np.uint8)


def _text(
    image: Image, text: str, center_xy: tuple[float, float], width_px: float, color: Rgb, weight: float = 1.0
) -> None:
    """Write one line, scaled so that it is ``width_px`` wide, centred on ``center_xy``."""
    (unit_width, unit_height), _ = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = width_px / unit_width
    thickness = max(round(2.0 * scale * weight), 1)
    origin = (int(center_xy[0] - width_px / 2), int(center_xy[1] + unit_height * scale / 2))
    cv2.putText(image, text, origin, _FONT, scale, color, thickness, cv2.LINE_AA)


def _small_print(
    image: Image, rng: np.random.Generator, box_xyxy: tuple[int, int, int, int], line_px: int, color: Rgb
) -> None:
    """Rows of short dashes: reads as a paragraph from a metre away."""
    x0, y0, x1, y1 = box_xyxy
    for y in range(y0, y1, line_px):
        x = x0
        row_end = x1 - int(rng.integers(0, max((x1 - x0) // 5, 1)))
        while x < row_end:
            word = int(rng.integers(line_px // 2, line_px * 3))
            cv2.line(image, (x, y), (min(x + word, row_end), y), color, max(line_px // 4, 1), cv2.LINE_AA)
            x += word + line_px // 2


def _worn(image: Image, rng: np.random.Generator, strength: float = 7.0) -> Image:
    """Large soft stains, fine speckle and scuffed borders, so that no print is perfectly flat."""
    height, width = image.shape[:2]
    soft = smooth_noise(rng, height, width, 4, 4) * strength + rng.normal(0, strength / 3, (height, width)).astype(
        np.float32
    )
    out = image.astype(np.float32) + soft[..., None]
    rim = max(min(height, width) // 60, 1)
    out[:rim], out[-rim:] = out[:rim] * 0.8 + 40, out[-rim:] * 0.8 + 30
    out[:, :rim], out[:, -rim:] = out[:, :rim] * 0.8 + 40, out[:, -rim:] * 0.8 + 30
    return _to_uint8(out)


def wood(rng: np.random.Generator, height: int, width: int) -> Image:
    """(height, width, 3) planks whose grain runs along x."""
    out = np.empty((height, width, 3), np.float32)
    edges = np.linspace(0, height, _PLANKS + 1).astype(int)
    dark, light = np.array((104, 71, 46), np.float32), np.array((171, 129, 90), np.float32)
    for top, bottom in itertools.pairwise(edges):
        rows = bottom - top
        y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
        bend = smooth_noise(rng, rows, width, 2, 5) * 0.55 + smooth_noise(rng, rows, width, 5, 14) * 0.12
        rings = 0.5 + 0.5 * np.sin((y * rng.uniform(1.5, 3.5) + bend * 2.2 + rng.uniform(0, 9)) * 2 * np.pi * 1.6)
        fibre = (
            smooth_noise(rng, rows, width, rows / 2, width / 90) * 0.5
            + smooth_noise(rng, rows, width, rows, width / 14) * 0.25
        )
        mix = np.clip(0.52 + 0.30 * (rings - 0.5) + 0.20 * fibre + rng.uniform(-0.16, 0.16), 0, 1)[..., None]
        plank = dark + (light - dark) * mix
        plank[:2] *= 0.55
        plank[2:4] *= 0.85
        out[top:bottom] = plank
    return _to_uint8(out + rng.normal(0, 2.5, (height, width, 1)))


def clutter_on_table(table: Image, rng: np.random.Generator, px_per_m: float, origin_m: tuple[float, float]) -> None:
    """Print flat things onto the table: paper, notes, a coffee ring. ``origin_m``: x, y of the table's top left."""

    def to_px(x_m: float, y_m: float) -> tuple[int, int]:
        return int((x_m - origin_m[0]) * px_per_m), int((origin_m[1] - y_m) * px_per_m)

    def sheet(x_m: float, y_m: float, size_m: tuple[float, float], yaw_deg: float, paper: Rgb) -> None:
        width, height = int(size_m[0] * px_per_m), int(size_m[1] * px_per_m)
        page = _filled(height, width, paper)
        margin = max(width // 10, 2)
        _small_print(
            page, rng, (margin, margin, width - margin, height - margin), max(int(0.008 * px_per_m), 3), (92, 92, 104)
        )
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), yaw_deg, 1.0)
        turn[:, 2] += np.array(to_px(x_m, y_m)) - (width / 2, height / 2)
        area = (table.shape[1], table.shape[0])
        cover = cv2.warpAffine(np.full((height, width), 255, np.uint8), turn, area)
        shade = cv2.GaussianBlur(cover, (0, 0), 0.006 * px_per_m).astype(np.float32)[..., None] / 255
        alpha = cover.astype(np.float32)[..., None] / 255
        under = table.astype(np.float32) * (1 - 0.35 * shade)
        table[:] = _to_uint8(under * (1 - alpha) + cv2.warpAffine(page, turn, area).astype(np.float32) * alpha)

    sheet(-0.02, -0.20, (0.17, 0.13), -9, (226, 226, 220))
    sheet(0.33, -0.045, (0.08, 0.08), 14, (222, 205, 112))
    sheet(-0.37, 0.09, (0.08, 0.08), -20, (150, 190, 205))
    ring = table.copy()
    cv2.circle(
        ring, to_px(0.11, -0.28), int(0.042 * px_per_m), (84, 54, 34), max(int(0.004 * px_per_m), 1), cv2.LINE_AA
    )
    cv2.addWeighted(ring, 0.6, table, 0.4, 0, dst=table)


def wall(rng: np.random.Generator, height: int, width: int) -> Image:
    """(height, width, 3) painted wall with two pictures and a skirting, slightly out of focus."""
    out = _filled(height, width, (190, 190, 182)).astype(np.float32)
    out += smooth_noise(rng, height, width, 5, 9)[..., None] * 5
    image = _to_uint8(out)
    for x, y, w, h, hue in ((0.20, 0.40, 0.16, 0.34, (96, 128, 140)), (0.66, 0.44, 0.20, 0.26, (170, 126, 92))):
        x0, y0, x1, y1 = int(x * width), int(y * height), int((x + w) * width), int((y + h) * height)
        cv2.rectangle(image, (x0 + 8, y0 + 10), (x1 + 8, y1 + 10), (158, 158, 152), -1)
        cv2.rectangle(image, (x0, y0), (x1, y1), (62, 52, 46), -1)
        inset = max((x1 - x0) // 14, 2)
        patch = smooth_noise(rng, y1 - y0 - 2 * inset, x1 - x0 - 2 * inset, 3, 5)[..., None] * 42 + np.array(
            hue, np.float32
        )
        image[y0 + inset : y1 - inset, x0 + inset : x1 - inset] = _to_uint8(patch)
    blurred = cv2.GaussianBlur(image, (0, 0), width / 420)
    return np.asarray(blurred, np.uint8)


def oats_box(rng: np.random.Generator, height: int, width: int, depth: int) -> dict[str, Image]:
    """Faces of a packet of oats: front, back, side, top."""
    yellow: Rgb = (222, 164, 44)
    front = _filled(height, width, yellow)
    fade = np.linspace(1.08, 0.82, height, dtype=np.float32)[:, None, None]
    front = _to_uint8(front * fade)
    cv2.ellipse(
        front,
        (width // 2, int(height * 0.98)),
        (int(width * 0.75), int(height * 0.30)),
        0,
        0,
        360,
        (196, 98, 30),
        -1,
        cv2.LINE_AA,
    )
    bowl = (width // 2, int(height * 0.68))
    cv2.ellipse(front, bowl, (int(width * 0.34), int(height * 0.17)), 0, 0, 180, (44, 84, 134), -1, cv2.LINE_AA)
    cv2.ellipse(front, bowl, (int(width * 0.34), int(height * 0.055)), 0, 0, 360, (228, 210, 178), -1, cv2.LINE_AA)
    for _ in range(70):
        angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1)) * 0.30
        spot = (int(bowl[0] + np.cos(angle) * radius * width), int(bowl[1] + np.sin(angle) * radius * 0.14 * height))
        tone = int(rng.integers(150, 205))
        cv2.circle(front, spot, max(width // 50, 1), (tone, tone - 42, tone - 100), -1, cv2.LINE_AA)
    _text(front, "MORNING", (width * 0.5, height * 0.13), width * 0.72, (132, 40, 24))
    _text(front, "OATS", (width * 0.5, height * 0.28), width * 0.80, (132, 40, 24), 1.6)
    _text(front, "whole grain", (width * 0.5, height * 0.42), width * 0.5, (255, 246, 220))
    _text(front, "500 g", (width * 0.8, height * 0.94), width * 0.22, _CREAM)
    side = _to_uint8(_filled(height, depth, (206, 146, 36)) * fade)
    panel = (depth // 8, int(height * 0.30), depth - depth // 8, int(height * 0.80))
    cv2.rectangle(side, panel[:2], panel[2:], _CREAM, -1)
    _small_print(side, rng, (panel[0] + 3, panel[1] + 8, panel[2] - 3, panel[3] - 4), max(height // 40, 3), _INK)
    _text(side, "OATS", (depth * 0.5, height * 0.14), depth * 0.7, (132, 40, 24))
    top = _filled(depth, width, (214, 154, 40))
    cv2.line(top, (0, depth // 2), (width, depth // 2), (150, 100, 30), max(depth // 30, 1), cv2.LINE_AA)
    return {"front": _worn(front, rng), "back": _worn(front, rng), "side": _worn(side, rng), "top": _worn(top, rng)}


def book(rng: np.random.Generator, length: int, width: int, height: int) -> dict[str, Image]:
    """Faces of a book that lies flat: top (the cover), front and back (paper and spine), side (paper)."""
    cover = _filled(width, length, (38, 82, 78))
    cover = _to_uint8(cover + smooth_noise(rng, width, length, width / 3, length / 3)[..., None] * 6)
    cv2.rectangle(
        cover,
        (length // 18, width // 14),
        (length - length // 18, width - width // 14),
        (196, 172, 112),
        max(width // 90, 1),
    )
    cv2.circle(cover, (int(length * 0.5), int(width * 0.68)), int(width * 0.15), (198, 122, 66), -1, cv2.LINE_AA)
    _text(cover, "FIELD NOTES", (length * 0.5, width * 0.27), length * 0.68, (232, 220, 186))
    _text(cover, "on seeing things", (length * 0.5, width * 0.43), length * 0.42, (232, 220, 186))
    pages = _filled(height, length, (222, 212, 188)).astype(np.float32)
    pages += rng.normal(0, 9, (height, 1, 1))
    rim = max(height // 8, 1)
    pages[:rim], pages[-rim:] = (38, 82, 78), (38, 82, 78)
    paper = _to_uint8(pages)
    return {"top": cover, "front": paper, "back": paper, "side": _filled(height, width, (34, 72, 70))}


def can_label(rng: np.random.Generator, height: int, around: int) -> Image:
    """(height, around, 3) wrap of a tin: metal rims, a blue label printed twice around."""
    out = _filled(height, around, (34, 70, 128))
    cv2.rectangle(out, (0, int(height * 0.60)), (around, int(height * 0.92)), (214, 216, 210), -1)
    cv2.rectangle(out, (0, int(height * 0.56)), (around, int(height * 0.60)), (206, 92, 44), -1)
    for turn in (0.25, 0.75):
        x = around * turn
        cv2.circle(out, (int(x), int(height * 0.32)), int(height * 0.17), (226, 188, 96), -1, cv2.LINE_AA)
        _text(out, "SEA", (x, height * 0.32), height * 0.22, (34, 70, 128), 1.4)
        _text(out, "chickpeas", (x, height * 0.72), around * 0.26, (34, 70, 128), 1.2)
        _text(out, "400 g", (x, height * 0.84), around * 0.12, _INK)
    rim = max(int(height * 0.04), 1)
    metal = 168 + 40 * np.sin(np.linspace(0, 6 * np.pi, around, dtype=np.float32))[None, :, None]
    out[:rim] = out[-rim:] = _to_uint8(np.broadcast_to(metal, (rim, around, 3)))
    return _to_uint8(out + smooth_noise(rng, height, around, 4, 9)[..., None] * 5)


def mug_glaze(rng: np.random.Generator, height: int, around: int) -> Image:
    """(height, around, 3) cream glaze with green bands and speckle."""
    out = _filled(height, around, (222, 214, 196))
    cv2.rectangle(out, (0, int(height * 0.66)), (around, int(height * 0.84)), (78, 122, 92), -1)
    cv2.rectangle(out, (0, int(height * 0.58)), (around, int(height * 0.61)), (78, 122, 92), -1)
    for _ in range(140):
        spot = (int(rng.integers(0, around)), int(rng.integers(0, height)))
        cv2.circle(out, spot, max(int(height * rng.uniform(0.002, 0.008)), 1), (128, 108, 84), -1, cv2.LINE_AA)
    return _to_uint8(out + smooth_noise(rng, height, around, 5, 9)[..., None] * 5)


def rubber_ball(rng: np.random.Generator, height: int, around: int) -> Image:
    """(height, around, 3) latitude-longitude map of a red ball with pale stripes."""
    out = _filled(height, around, (176, 36, 40))
    lon = np.linspace(0, 2 * np.pi, around, dtype=np.float32)
    for offset in (0.30, 0.70):
        y = ((offset + 0.06 * np.sin(2 * lon)) * height).astype(np.int32)
        path = np.stack([np.arange(around, dtype=np.int32), y], axis=-1)
        cv2.polylines(out, [path], False, (226, 206, 190), max(height // 28, 1), cv2.LINE_AA)
    return _to_uint8(
        out + smooth_noise(rng, height, around, 12, 24)[..., None] * 9 + rng.normal(0, 4, (height, around, 1))
    )


def painted_wood(rng: np.random.Generator, size: int, color: Rgb) -> Image:
    """(size, size, 3) face of a toy block."""
    grain = smooth_noise(rng, size, size, size / 3, 2)[..., None] * 10
    return _worn(_to_uint8(_filled(size, size, color) + grain), rng, 5.0)
