"""Automatic masklets of one recording: masks on key frames, tracked both ways, merged where they are of one object.

As in the SAM 2 paper (section 5.2, "Auto masklet generation"): the mask generator is prompted on some frames, the masks
become masklets, and people verify them. Here a key frame adds what no masklet covers yet. One pass forward tracks all
objects from where they were found; one pass backward completes them; what then turns out to be the same object is one
masklet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.detections import FrameDetection
from sam2_ros.annotate.label_jobs import LabelSettings
from sam2_ros.annotate.masklets import Masklet, MaskletFrame, MaskSource, Origin
from sam2_ros.annotate.recordings import Recording
from sam2_ros.data.files.masks import encode_rle
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator
from sam2_ros.tracking.prompts import make_prompt
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptError

SAME_OBJECT_IOU = 0.5  # from which a mask on a key frame, or a masklet over common frames, is one that is known


@dataclass(frozen=True)
class _Found:
    """A mask on a key frame."""

    mask: NDArray[np.bool_]  # (H, W)
    quality: float  # predicted IoU
    class_name: str = ""


@dataclass
class _Object:
    """An object on its way through the recording."""

    found_at: int
    found: _Found
    frames: dict[int, MaskletFrame] = field(default_factory=dict)


def label_recording(
    network: SAM2,
    recording: Recording,
    settings: LabelSettings,
    detections: Mapping[int, Sequence[FrameDetection]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Masklet]:
    """The automatic masklets of a recording, to be verified; ids are not final. Nothing is stored.

    Args:
        network: in eval mode, on the device to use.
        recording: what masklets it has already is known and not found again.
        settings: what to look for.
        detections: boxes by frame, which are then the objects to look for; None: everything.
        progress: called with the frames done and in all, each frame counted once a pass.
    """
    labeller = _Labeller(network, recording, settings, detections)
    total = 2 * len(recording)
    report = progress or (lambda _done, _total: None)
    for done, _ in enumerate(labeller.forward(), 1):
        report(done, total)
    for done, _ in enumerate(labeller.backward(), len(recording) + 1):
        report(done, total)
    return labeller.masklets()


class _Labeller:
    """The two passes over one recording."""

    def __init__(
        self,
        network: SAM2,
        recording: Recording,
        settings: LabelSettings,
        detections: Mapping[int, Sequence[FrameDetection]] | None,
    ) -> None:
        self._network, self._recording, self._settings = network, recording, settings
        self._detections = detections
        self._key_frames = set(key_frames(len(recording), settings.every, detections))
        self._known = recording.masklets.all()
        self._objects: dict[str, _Object] = {}

    def forward(self) -> Iterator[None]:
        """Find objects on key frames, and track all of them to the end."""
        tracker = Tracker(self._network, buffer_frames=1)  # a key frame is prompted after it was tracked into
        for index in range(len(self._recording)):
            image_rgb = self._recording.frame_rgb(index)
            self._step(tracker, index, image_rgb)
            if index in self._key_frames:
                self._find(tracker, index, image_rgb)
            yield

    def backward(self) -> Iterator[None]:
        """Track every object from where it was found to the beginning."""
        tracker = Tracker(self._network)
        starting: dict[int, list[str]] = {}
        for name, each in self._objects.items():
            starting.setdefault(each.found_at, []).append(name)
        for index in reversed(range(len(self._recording))):
            names = starting.get(index, [])
            if names or tracker.object_ids:
                for name in names:
                    tracker.add_prompt(name, mask=self._objects[name].found.mask)
                self._step(tracker, index, self._recording.frame_rgb(index))
            yield

    def masklets(self) -> list[Masklet]:
        """Those that are seen often enough, the longest first; parts of one object are merged."""
        made = [self._masklet(each) for each in self._objects.values()]
        return merge_masklets([each for each in made if _visible_count(each) >= self._settings.min_frames])

    def _step(self, tracker: Tracker, index: int, image_rgb: NDArray[np.uint8]) -> None:
        """Track into a frame; an object that is LOST is not looked for any longer."""
        for tracked in tracker.step(image_rgb):
            each = self._objects[tracked.object_id]
            if index != each.found_at:
                each.frames[index] = MaskletFrame.of_tracked(tracked)
            if tracked.state is ObjectState.LOST:
                tracker.remove(tracked.object_id)

    def _find(self, tracker: Tracker, index: int, image_rgb: NDArray[np.uint8]) -> None:
        """Add the objects of a key frame that are not known yet; they are tracked from the next frame on."""
        known = [m.frames[index].mask() for m in self._known if index in m.frames and m.frames[index].visible]
        known += [
            frame.mask() for each in self._objects.values() if (frame := each.frames.get(index)) and frame.visible
        ]
        new: list[_Found] = []
        for found in self._candidates(index, image_rgb):
            if len(tracker.object_ids) + len(new) >= self._settings.max_objects:
                break
            if all(mask_iou(found.mask, other) < SAME_OBJECT_IOU for other in known):
                known.append(found.mask)
                new.append(found)
        for found in new:
            name = f"{len(self._objects)}"
            frame = MaskletFrame(encode_rle(found.mask), MaskSource.AUTOMATIC, quality=found.quality)
            self._objects[name] = _Object(index, found, {index: frame})
            tracker.add_prompt(name, mask=found.mask, frame_index=index)

    def _candidates(self, index: int, image_rgb: NDArray[np.uint8]) -> Iterable[_Found]:
        """Masks of a key frame, best first, without those that are too small or too large."""
        area = image_rgb.shape[0] * image_rgb.shape[1]
        if self._detections is None:
            masks = AutomaticMaskGenerator(self._network).generate(image_rgb)
            found = [_Found(each.mask, each.predicted_iou) for each in masks]
        else:
            found = self._detected(self._detections[index], image_rgb)
        low, high = self._settings.min_area_share * area, self._settings.max_area_share * area
        return [each for each in found if low <= np.count_nonzero(each.mask) <= high]

    def _detected(self, detections: Sequence[FrameDetection], image_rgb: NDArray[np.uint8]) -> list[_Found]:
        """The masks in a detector's boxes, best box first."""
        predictor = ImagePredictor(self._network)
        predictor.set_image(image_rgb)
        found = []
        for each in sorted(detections, key=lambda detection: -detection.score):
            if each.score < self._settings.min_detection_score:
                continue
            try:
                (best,) = predictor.predict_best([make_prompt(box=each.box_xyxy)])
            except PromptError:  # a box outside the image
                continue
            found.append(_Found(best.masks[0], float(np.clip(best.scores[0], 0, 1)), each.class_name))
        return found

    @staticmethod
    def _masklet(each: _Object) -> Masklet:
        frames = dict(sorted(each.frames.items()))
        return Masklet("m0000", "", each.found.class_name, origin=Origin.AUTOMATIC, frames=frames)


def key_frames(
    count: int, every: int, detections: Mapping[int, Sequence[FrameDetection]] | None = None
) -> tuple[int, ...]:
    """The frames to look for objects in: every n-th, or with detections those that have some, at least n apart."""
    if detections is None:
        return tuple(range(0, count, every))
    chosen: list[int] = []
    for index in sorted(index for index in detections if 0 <= index < count):
        if not chosen or index >= chosen[-1] + every:
            chosen.append(index)
    return tuple(chosen)


def merge_masklets(masklets: Sequence[Masklet]) -> list[Masklet]:
    """The same object is one masklet: longest first, each takes up those that overlap it in the frames of both.

    A frame of the longer one stays where the object is visible in it; the other one's fills in.
    """
    merged: list[Masklet] = []
    for each in sorted(masklets, key=_visible_count, reverse=True):
        place = next((n for n, other in enumerate(merged) if is_same_object(each, other)), None)
        if place is None:
            merged.append(each)
        else:
            kept = {i: frame for i, frame in merged[place].frames.items() if frame.visible or i not in each.frames}
            merged[place] = replace(merged[place], frames=dict(sorted({**each.frames, **kept}.items())))
    return merged


def is_same_object(a: Masklet, b: Masklet) -> bool:
    """Whether two masklets overlap by ``SAME_OBJECT_IOU`` over the frames in which both are visible; no if none is."""
    common = [i for i, frame in a.frames.items() if frame.visible and i in b.frames and b.frames[i].visible]
    if not common:
        return False
    sampled = common[:: max(1, len(common) // 16)]
    return float(np.mean([mask_iou(a.frames[i].mask(), b.frames[i].mask()) for i in sampled])) >= SAME_OBJECT_IOU


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two (H, W) masks; 0 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 0.0


def _visible_count(masklet: Masklet) -> int:
    return sum(frame.visible for frame in masklet.frames.values())
