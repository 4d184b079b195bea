"""The results of ``Sam2Client``, with numpy masks, and how they are assembled from messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from sam2_ros.msg import PromptResult, TrackedObject, TrackedObjectArray
from sam2_ros.node.conversions import image_to_labels, place_mask, roi_to_box, stamp_to_ns
from sam2_ros.tracking.types import ObjectState, TrackedMask

RESULTS_KEPT = 5  # per reader: a reader slower than the camera gets the newest ones
UNPAIRED_KEPT = 8  # label images, and objects, that wait for the other message of the same image


class Sam2Error(RuntimeError):
    """The node rejected a request or did not answer in time; the message says why."""


@dataclass(frozen=True)
class Sam2Result:
    """The objects of one image: ``result["mug"].mask``."""

    message: TrackedObjectArray  # as received, with header, ages, poses and sizes
    objects: tuple[TrackedMask, ...]  # ordered by label; masks are (H, W), or (0, 0) if they were not asked for

    @property
    def stamp_ns(self) -> int:
        return stamp_to_ns(self.message.header.stamp)

    def __iter__(self) -> Iterator[TrackedMask]:
        return iter(self.objects)

    def __contains__(self, object_id: object) -> bool:
        return any(each.object_id == object_id for each in self.objects)

    def __getitem__(self, object_id: str) -> TrackedMask:
        for each in self.objects:
            if each.object_id == object_id:
                return each
        known = ", ".join(each.object_id for each in self.objects) or "none"
        raise KeyError(f"no object {object_id!r} in this image; known: {known}")


@dataclass(frozen=True)
class PromptReply:
    """An accepted prompt."""

    object_id: str
    label: int
    state: ObjectState  # in the first image with the prompt; PENDING without ``wait``, or without an image in time
    box_xyxy: tuple[int, int, int, int] | None  # px, half open; None when it is not visible
    mask: NDArray[np.bool_] | None  # cropped to the box
    stamp_ns: int  # of that image


@dataclass(frozen=True)
class SegmentedImageMask:
    """One mask of a single image."""

    prompt_index: int
    score: float  # predicted IoU, 0..1
    mask: NDArray[np.bool_]  # (H, W)


class ResultStream:
    """The latest results that a reader has not read yet."""

    def __init__(self, with_masks: bool, on_close: Callable[[ResultStream], None]) -> None:
        self.with_masks = with_masks
        self._on_close = on_close
        self._changed = threading.Condition()
        self._results: deque[Sam2Result] = deque(maxlen=RESULTS_KEPT)
        self._closed = False

    def put(self, result: Sam2Result) -> None:
        with self._changed:
            self._results.append(result)
            self._changed.notify_all()

    def next(self, timeout_s: float | None) -> Sam2Result | None:
        """The next result; None if there was none in time or the stream was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._closed, timeout_s)
            return self._results.popleft() if self._results and not self._closed else None

    def read(self, timeout_s: float | None) -> Iterator[Sam2Result]:
        try:
            while (result := self.next(timeout_s)) is not None:
                yield result
            if not self._closed:
                raise Sam2Error(f"no result came for {timeout_s:g} s: does the camera run, and the node?")
        finally:
            self.close()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._on_close(self)


class ResultStreams:
    """Pairs objects with the label image of their image and hands the result to every reader. One thread calls it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: tuple[ResultStream, ...] = ()
        self._label_images: dict[int, NDArray[Any]] = {}  # by stamp
        self._unpaired: dict[int, TrackedObjectArray] = {}  # by stamp

    def open(self, with_masks: bool) -> ResultStream:
        """A new reader. From any thread."""
        stream = ResultStream(with_masks, self._drop)
        with self._lock:
            self._streams = (*self._streams, stream)
        return stream

    def close(self) -> None:
        """End all readers. From any thread."""
        for stream in self._streams:
            stream.close()

    def _drop(self, stream: ResultStream) -> None:
        with self._lock:
            self._streams = tuple(each for each in self._streams if each is not stream)

    def put_label_image(self, message: Image) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        _keep(self._label_images, stamp_ns, image_to_labels(message))
        objects = self._unpaired.pop(stamp_ns, None)
        if objects is not None:
            self._deliver(objects, with_masks=True)

    def put_objects(self, message: TrackedObjectArray) -> None:
        self._deliver(message, with_masks=False)
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns in self._label_images:
            self._deliver(message, with_masks=True)
        else:
            _keep(self._unpaired, stamp_ns, message)

    def _deliver(self, message: TrackedObjectArray, *, with_masks: bool) -> None:
        streams = [stream for stream in self._streams if stream.with_masks == with_masks]
        if streams:
            labels = self._label_images.get(stamp_to_ns(message.header.stamp)) if with_masks else None
            result = make_result(message, labels)
            for stream in streams:
                stream.put(result)


def make_result(message: TrackedObjectArray, label_image: NDArray[Any] | None = None) -> Sam2Result:
    """The objects of a message, with masks if the (H, W) ``label_image`` of the same image is given."""
    return Sam2Result(message, tuple(_read_object(item, label_image) for item in message.objects))


def _read_object(item: TrackedObject, label_image: NDArray[Any] | None) -> TrackedMask:
    roi = item.roi
    if label_image is None:
        mask = np.zeros((0, 0), dtype=np.bool_)
    elif item.mask.data:  # exact, also where objects overlap
        mask = place_mask(item.mask, roi, *label_image.shape)
    else:
        mask = label_image == item.label
    return TrackedMask(
        object_id=item.object_id,
        label=item.label,
        state=ObjectState(item.state),
        score=item.score,
        mask_quality=item.mask_quality,
        mask=mask,
        area_px=item.area,
        box_xyxy=roi_to_box(roi),
        centroid_xy=(item.centroid.x, item.centroid.y) if roi.width else None,
    )


def read_reply(result: PromptResult, objects: TrackedObjectArray) -> PromptReply:
    for item in objects.objects:
        if item.object_id == result.object_id:
            mask = image_to_labels(item.mask) != 0 if item.mask.data else None
            stamp_ns = stamp_to_ns(objects.header.stamp)
            state = ObjectState(item.state)
            return PromptReply(result.object_id, result.label, state, roi_to_box(item.roi), mask, stamp_ns)
    return PromptReply(result.object_id, result.label, ObjectState.PENDING, None, None, 0)


def read_segmentation(answer: Any) -> tuple[SegmentedImageMask, ...]:
    return tuple(
        SegmentedImageMask(item.prompt_index, item.score, place_mask(item.mask, item.roi, answer.height, answer.width))
        for item in answer.masks
    )


def _keep(kept: dict[int, Any], stamp_ns: int, value: Any) -> None:
    """Add the value; beyond ``UNPAIRED_KEPT`` the oldest is dropped."""
    kept[stamp_ns] = value
    while len(kept) > UNPAIRED_KEPT:
        del kept[next(iter(kept))]
