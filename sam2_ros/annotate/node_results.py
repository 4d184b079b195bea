"""Masklets of what our node published, recorded beside the images: ``~/objects`` and ``~/label_image``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import Masklet, MaskletFrame, MaskSource, Origin
from sam2_ros.data.files.masks import encode_rle
from sam2_ros.data.files.rosbag import TRACKED_OBJECTS
from sam2_ros.tracking.types import ObjectState


@dataclass
class _Seen:
    """The results for one object of the node."""

    name: str
    class_name: str = ""
    frames: dict[int, MaskletFrame] = field(default_factory=dict)


def header_stamp_ns(message: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def masklets_of_results(
    messages: Iterable[tuple[str, Any]],
    types: Mapping[str, str],
    frame_of: Mapping[int, int],
    size_hw: tuple[int, int],
) -> list[Masklet]:
    """The node's objects as masklets to verify.

    An object's mask is that of its ``TrackedObject``, or its label in the label image of the same stamp; its state,
    score and predicted IoU are the node's. With label images alone, every label is an object.

    Args:
        messages: topic and message, of the topics in ``types``.
        types: topic -> type.
        frame_of: stamp in ns -> frame of the recording; messages of other stamps are skipped.
        size_hw: of the frames, px; results of another size are skipped.
    """
    label_images: dict[int, NDArray[Any]] = {}
    object_lists: dict[int, Any] = {}
    for topic, message in messages:
        frame = frame_of.get(header_stamp_ns(message))
        if frame is None:
            continue
        if types[topic] == TRACKED_OBJECTS:
            object_lists[frame] = message
        elif (message.height, message.width) == size_hw:
            label_images[frame] = _label_image(message)
    seen: dict[int, _Seen] = {}
    for frame in sorted({*label_images, *object_lists}):
        labels = label_images.get(frame)
        if frame in object_lists:
            for item in object_lists[frame].objects:
                _take_object(seen, frame, item, _object_mask(item, labels, size_hw))
        elif labels is not None:
            for label in np.unique(labels[labels > 0]):
                known = seen.setdefault(int(label), _Seen(f"object {label}"))
                known.frames[frame] = MaskletFrame.of_mask(labels == label, MaskSource.IMPORTED)
    return [
        Masklet(f"m{n:04d}", each.name, each.class_name, origin=Origin.IMPORTED, frames=each.frames)
        for n, each in enumerate((seen[label] for label in sorted(seen)), 1)
        if each.frames
    ]


def _take_object(seen: dict[int, _Seen], frame: int, item: Any, mask: NDArray[np.bool_] | None) -> None:
    state = ObjectState(int(item.state))
    if mask is None or state is ObjectState.PENDING:
        return
    known = seen.setdefault(int(item.label), _Seen(str(item.object_id)))
    known.class_name = str(item.class_id) or known.class_name
    if state is ObjectState.TRACKED and not mask.any():  # hidden by others in the label image
        state = ObjectState.OCCLUDED
    known.frames[frame] = MaskletFrame(
        encode_rle(mask), MaskSource.IMPORTED, state, float(item.score), float(item.mask_quality)
    )


def _object_mask(item: Any, labels: NDArray[Any] | None, size_hw: tuple[int, int]) -> NDArray[np.bool_] | None:
    """(H, W); None for a visible object without a mask and without a label image of this stamp."""
    height, width = int(item.mask.height), int(item.mask.width)
    if height and width:
        mask = np.zeros(size_hw, np.bool_)
        rows = np.frombuffer(bytes(item.mask.data), np.uint8).reshape(height, item.mask.step)
        x, y = int(item.roi.x_offset), int(item.roi.y_offset)
        target = mask[y : y + height, x : x + width]
        target[:] = rows[: target.shape[0], : target.shape[1]] > 0
        return mask
    if labels is not None:
        return labels == int(item.label)
    return np.zeros(size_hw, np.bool_) if int(item.state) != ObjectState.TRACKED else None


def _label_image(message: Any) -> NDArray[Any]:
    """(H, W) uint8 or uint16 of a mono8 or mono16 image."""
    dtype = np.dtype("u1") if message.encoding == "mono8" else np.dtype(">u2" if message.is_bigendian else "<u2")
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
    return np.ascontiguousarray(rows[:, : message.width * dtype.itemsize]).view(dtype)
