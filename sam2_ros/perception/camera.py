"""The pinhole camera: pixels and depth to points in the camera's optical frame, and back.

Optical frame as in REP-103: x to the right, y down, z forward, metres. A pixel's centre has whole-number coordinates.
Lens distortion is not undone: for exact points use rectified images (``image_rect``) and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ASPECT_TOLERANCE = 0.01  # 1 %: 848 x 480 passes for 16:9, 4:3 does not


class GeometryError(ValueError):
    """Calibration, depth and image do not go together; the message says what was expected and what came."""


class CameraInfoMessage(Protocol):
    """The part of ``sensor_msgs/CameraInfo`` that is read."""

    width: int
    height: int
    k: Sequence[float]
    p: Sequence[float]
    roi: Any


@dataclass(frozen=True)
class Intrinsics:
    """Focal lengths and principal point, in pixels of an image of this size."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def points(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) depth along z, in metres -> (H, W, 3) points; NaN stays NaN."""
        height, width = depth_m.shape
        return self.points_at(np.arange(width)[None, :], np.arange(height)[:, None], depth_m)

    def points_at(self, x_px: NDArray[Any], y_px: NDArray[Any], depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points at these pixels, coordinates in the last axis."""
        x = ((x_px - self.cx) / self.fx).astype(np.float32) * depth_m
        y = ((y_px - self.cy) / self.fy).astype(np.float32) * depth_m
        return np.stack([x, y, depth_m], axis=-1)

    def project(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """(N, 3) points -> (N, 2) x, y in pixels; NaN for what is not in front of the camera."""
        x, y, z = np.asarray(points, dtype=np.float64).T
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels_xy = np.stack([self.fx * x / z + self.cx, self.fy * y / z + self.cy], axis=-1)
        pixels_xy[~(z > 0)] = np.nan
        return pixels_xy


def read_intrinsics(message: CameraInfoMessage, width: int, height: int, *, rectified: bool = False) -> Intrinsics:
    """The calibration for an image of ``width`` x ``height``, from a ``CameraInfo``: K, or P for a rectified image.

    A calibration for another resolution of the same aspect ratio is scaled. One with a width or height of 0, which some
    drivers send, is taken to be for this image's size.

    Raises:
        GeometryError: not calibrated (zeros), not finite, or for an image of another shape.
    """
    name, matrix = ("p", np.reshape(message.p, (3, 4))) if rectified else ("k", np.reshape(message.k, (3, 3)))
    fx, fy, cx, cy = (float(value) for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    if not np.isfinite(matrix).all() or fx <= 0 or fy <= 0:
        raise GeometryError(
            f"the camera is not calibrated: expected positive focal lengths in camera_info's {name}, got fx {fx}, "
            f"fy {fy}; calibrate it, or set the driver's calibration file"
        )
    source_width, source_height = message.width or width, message.height or height
    if message.roi.width and message.roi.height:  # only this part of the sensor is sent
        cx, cy = cx - message.roi.x_offset, cy - message.roi.y_offset
        source_width, source_height = message.roi.width, message.roi.height
    check_aspect("camera_info", source_width, source_height, width, height)
    scale_x, scale_y = width / source_width, height / source_height
    return Intrinsics(
        fx=fx * scale_x,
        fy=fy * scale_y,
        cx=(cx + 0.5) * scale_x - 0.5,  # the image's corner is at -0.5, half a pixel before the first centre
        cy=(cy + 0.5) * scale_y - 0.5,
        width=width,
        height=height,
    )


def check_aspect(what: str, width: int, height: int, image_width: int, image_height: int) -> None:
    """GeometryError unless both sizes have the same aspect ratio, within ``ASPECT_TOLERANCE``."""
    if abs(width * image_height / (height * image_width) - 1) > ASPECT_TOLERANCE:
        raise GeometryError(
            f"{what} is for {width} x {height} px and the image has {image_width} x {image_height}: expected the same "
            "size or the same aspect ratio; give the topic that belongs to this image"
        )
