"""Position and size of an object from its mask and the depth image; and point clouds of all objects.

Masks are off by a pixel or two, and depth cameras invent points between an object and what lies behind it. So the
mask's border is left out, and then every point whose depth is unusual for the object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.perception.camera import Intrinsics
from sam2_ros.tracking.transforms import tight_box_xyxy

BORDER_AT_640_PX = 2  # width of the border left out, in an image 640 px wide
MIN_POINTS = 20
MAX_POINTS = 10_000  # evenly picked from large masks, so that the time is bounded
OUTLIER_DEVIATIONS = 3.5  # a surface that slopes away evenly stays whole: its ends are at 1.35 deviations
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
MIN_DEVIATION_M = 0.005  # sensor noise: a surface that faces the camera has almost no spread of its own
EXTENT_PERCENTILES = (1, 99)
# `rgb` as RViz and PCL take it: 0x00RRGGBB in the bytes of a float.
POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("label", "<u4")])


@dataclass(frozen=True)
class ObjectGeometry:
    """The visible surface of one object, in the camera's optical frame, metres."""

    centroid: NDArray[np.float64]  # (3,) mean of the surface's points; nearer to the camera than the object's middle
    box_center: NDArray[np.float64]  # (3,) centre of the oriented box around them
    size: NDArray[np.float64]  # (3,) extent of the box along its axes, longest first
    axes: NDArray[np.float64]  # (3, 3) right-handed, columns are the box's axes
    points_used: int

    @property
    def quaternion_xyzw(self) -> tuple[float, float, float, float]:
        """The box's orientation: turns the optical frame's axes into the box's."""
        return rotation_to_quaternion(self.axes)


def measure_object(
    mask: NDArray[np.bool_], depth_m: NDArray[np.float32], intrinsics: Intrinsics
) -> ObjectGeometry | None:
    """The object's position and oriented box; None when fewer than ``MIN_POINTS`` of its pixels have a usable depth.

    Args:
        mask: (H, W) of the object.
        depth_m: (H, W), NaN where nothing was measured (``depth.read_depth``, ``depth.on_image_grid``).
        intrinsics: of an image of this size.
    """
    points = surface_points(mask, depth_m, intrinsics)
    if len(points) < MIN_POINTS:
        return None
    centroid = points.mean(axis=0)
    axes = _principal_axes(points - centroid)
    low, high = np.percentile((points - centroid) @ axes, EXTENT_PERCENTILES, axis=0)
    return ObjectGeometry(
        centroid=centroid,
        box_center=centroid + axes @ ((low + high) / 2),
        size=high - low,
        axes=axes,
        points_used=len(points),
    )


def surface_points(
    mask: NDArray[np.bool_], depth_m: NDArray[np.float32], intrinsics: Intrinsics
) -> NDArray[np.float64]:
    """(N, 3) points of the object's surface without border and outliers, at most ``MAX_POINTS``, evenly picked."""
    box = tight_box_xyxy(mask)
    if box is None:
        return np.zeros((0, 3))
    x0, y0, x1, y1 = box
    depth = depth_m[y0:y1, x0:x1]
    whole = mask[y0:y1, x0:x1]
    rows, columns = np.nonzero(without_border(whole, border_px(mask.shape[1])) & ~np.isnan(depth))
    if len(rows) < MIN_POINTS:  # a thin or small object is all border: use it rather than nothing
        rows, columns = np.nonzero(whole & ~np.isnan(depth))
    every = -(-len(rows) // MAX_POINTS) or 1
    rows, columns = rows[::every], columns[::every]
    z = depth[rows, columns]
    usual = near_the_median(z)
    return intrinsics.points_at(columns[usual] + x0, rows[usual] + y0, z[usual]).astype(np.float64)


def border_px(image_width: int) -> int:
    """Width of the border that is left out: it grows with the image, as blur and wrong depth at edges do."""
    return max(1, round(BORDER_AT_640_PX * image_width / 640))


def without_border(mask: NDArray[np.bool_], border: int) -> NDArray[np.bool_]:
    """The mask's pixels that are more than ``border`` from its edge; what lies outside the array counts as outside."""
    side = 2 * border + 1
    kernel = np.ones((side, side), dtype=np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(eroded, dtype=np.bool_)


def near_the_median(z: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which depths are usual: within ``OUTLIER_DEVIATIONS`` of the median. The deviation is estimated from the median
    absolute deviation, which tolerates up to half of the values being outliers."""
    if not len(z):
        return np.zeros(0, dtype=np.bool_)
    away = np.abs(z - np.median(z))
    deviation = max(MAD_TO_DEVIATION * float(np.median(away)), MIN_DEVIATION_M)
    return away <= OUTLIER_DEVIATIONS * deviation


def _principal_axes(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) right-handed axes of the points' spread as columns, widest first.

    The spread does not determine the sign of an axis. The first axis is made to point to the right of the image (down,
    if it is vertical), the last away from the camera, so that axes jump between frames only where an object turns
    through one of these directions.
    """
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    first, last = vectors[:, 2], vectors[:, 0]
    first = first * (np.sign(first[np.abs(first) > 1e-6][0]) or 1)
    last = last if last[2] >= 0 else -last
    return np.stack([first, np.cross(last, first), last], axis=1)


def rotation_to_quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(x, y, z, w) with w >= 0 of a (3, 3) rotation matrix: the eigenvector of Bar-Itzhack's matrix (2000)."""
    r = rotation
    symmetric = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, 3]
    x, y, z, w = (quaternion if quaternion[3] >= 0 else -quaternion).tolist()
    return x, y, z, w


def object_cloud(
    label_image: NDArray[np.uint8] | NDArray[np.uint16],
    image_rgb: NDArray[np.uint8],
    depth_m: NDArray[np.float32],
    intrinsics: Intrinsics,
    keep_out: NDArray[np.bool_] | None = None,
    without_labels: Collection[int] = (),
) -> NDArray[np.void]:
    """The points of all objects, (N,) of ``POINT_DTYPE`` in the image's reading order.

    Left out are pixels without depth, the border of each object (``border_px``: depth there mixes two surfaces; an
    object thinner than two borders has no points), ``keep_out`` and the objects ``without_labels``. All arrays have
    the same (H, W).
    """
    side = 2 * border_px(label_image.shape[1]) + 1
    kernel = np.ones((side, side), dtype=np.uint8)
    one_label = cv2.erode(label_image, kernel) == cv2.dilate(label_image, kernel)
    wanted = (label_image > 0) & one_label & ~np.isnan(depth_m)
    if without_labels:
        wanted &= ~np.isin(label_image, list(without_labels))
    if keep_out is not None:
        wanted &= ~keep_out
    rows, columns = np.nonzero(wanted)
    cloud = np.empty(len(rows), dtype=POINT_DTYPE)
    points = intrinsics.points_at(columns, rows, depth_m[rows, columns])
    cloud["x"], cloud["y"], cloud["z"] = points.T
    cloud["rgb"] = pack_rgb(image_rgb[rows, columns])
    cloud["label"] = label_image[rows, columns]
    return cloud


def pack_rgb(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 3) uint8 -> (N,) floats whose bytes are 0x00RRGGBB."""
    red, green, blue = colours.astype("<u4").T
    return ((red << 16) | (green << 8) | blue).astype("<u4").view("<f4")


def keep_out_mask(masks: Iterable[NDArray[np.bool_]], margin_px: int) -> NDArray[np.bool_] | None:
    """The pixels of all keep-out objects and ``margin_px`` around them; None without objects.

    The margin covers the points that a depth camera invents beside the object, and the pixels that a mask misses.
    """
    union: NDArray[np.bool_] | None = None
    for mask in masks:
        union = mask if union is None else union | mask
    if union is None or margin_px <= 0:
        return union
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return np.asarray(cv2.dilate(union.astype(np.uint8), kernel), dtype=np.bool_)
