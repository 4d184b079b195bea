"""Clouds of coloured, labelled points of the objects, and the keep-out objects whose pixels no cloud may hold.

ROS-free; ``geometry_messages`` makes messages of them. Points are in the camera's optical frame, metres.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.perception.camera import Intrinsics
from sam2_ros.perception.object_geometry import border_px

# `rgb` as RViz and PCL take it: 0x00RRGGBB in the bytes of a float.
POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("label", "<u4")])


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
    object thinner than two borders has no points), ``keep_out`` and the objects ``without_labels``. All (H, W) alike.
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

    The margin takes the points that a depth camera invents beside the object, and what a mask misses.
    """
    union: NDArray[np.bool_] | None = None
    for mask in masks:
        union = mask if union is None else union | mask
    if union is None or margin_px <= 0:
        return union
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return np.asarray(cv2.dilate(union.astype(np.uint8), kernel), dtype=np.bool_)


def outside_keep_out(
    points: NDArray[np.floating], keep_out: NDArray[np.bool_], intrinsics: Intrinsics
) -> NDArray[np.bool_]:
    """Which of any (N, 3) points in the camera's optical frame stay: those that it does not see in a keep-out pixel.

    For whole clouds of the same camera, organised or not. Points behind the camera, outside the image or NaN stay.
    """
    height, width = keep_out.shape
    pixels_xy = np.floor(intrinsics.project(points) + 0.5)
    x, y = pixels_xy.T
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # False for NaN
    stays = np.ones(len(points), dtype=np.bool_)
    stays[seen] = ~keep_out[y[seen].astype(np.intp), x[seen].astype(np.intp)]
    return stays
