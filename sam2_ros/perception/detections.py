"""A detector's boxes as prompts: the detector knows classes, the tracker knows identities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sam2_ros.session.objects import ObjectView, PromptAction, PromptRequest, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.tracking.types import ObjectState

Box = tuple[float, float, float, float]
REFRESH_SCORE, REFRESH_IOU = 0.8, 0.5  # of a detection that may correct an object, and of its box with the object's


@dataclass(frozen=True)
class Detection:
    """One box of a detector."""

    class_id: str
    score: float
    box_xyxy: Box  # px


def boxes_of(view: TrackingView) -> dict[str, Box | None]:
    """The boxes of an image's objects, by id; None for objects that are not visible."""
    return {item.tracked.object_id: item.tracked.box_xyxy for item in view.objects}


def prompts_for(
    detections: Iterable[Detection],
    view: TrackingView,
    parameters: NodeParameters,
    stamp_ns: int,
    then: Mapping[str, Box | None],
    due: Collection[str] = (),
) -> list[PromptRequest]:
    """The prompts that follow from the detections of one image, by ``detection_mode``.

    A box on a visible object is ignored: the tracker's outline is better; but a sure one refreshes an object that is
    due. Any other box is taken for the LOST object of its class, if there is exactly one. Of several, nobody knows
    which it is: with ``add`` the box is a new object, else it is taken for the one that was seen last. With ``add`` a
    box is also new if no object of its class is out of sight; one that is OCCLUDED may be what was detected.

    Args:
        detections: of one image.
        view: the newest image's, which says who is missing now.
        parameters: the node's.
        stamp_ns: of the detections' image, for the prompts.
        then: the boxes of the objects in the detections' image, which may be some images ago; see ``boxes_of``.
        due: objects that a detection may refresh.
    """
    if parameters.detection_mode == "off" or view.image_rgb is None:
        return []
    height, width = view.image_rgb.shape[:2]
    taken: list[Box] = []
    unplaced = (
        set()
    )  # classes of visible objects whose position at that time is not known: each may be the detected object
    for item in view.objects:
        before, now = then.get(item.tracked.object_id), item.tracked.box_xyxy
        if before is None and now is not None:
            unplaced.add(item.class_id)
        if (box := before or now) is not None:
            taken.append(box)
    missing = [item for item in view.objects if item.tracked.state in (ObjectState.OCCLUDED, ObjectState.LOST)]
    prompts = []
    for detection in sorted(wanted(detections, parameters.detection_classes), key=lambda item: -item.score):
        inside = _inside(detection.box_xyxy, width, height)
        if inside is None or not detection.score >= parameters.detection_min_score:  # NaN is not
            continue
        if any(box_iou(inside, other) >= parameters.detection_iou for other in taken):
            prompts += _refresh(detection, inside, view, then, due, stamp_ns)
            continue
        taken.append(inside)
        if detection.class_id in unplaced:
            continue
        candidates = [item for item in missing if item.class_id == detection.class_id]
        found = _the_lost_one(candidates, parameters.detection_mode)
        if found is not None and detection.class_id:
            missing.remove(found)
            prompts.append(_prompt(found.tracked.object_id, detection.class_id, PromptAction.REFINE, inside, stamp_ns))
        elif parameters.detection_mode == "add" and (not candidates or _nobody_knows(candidates, detection)):
            prompts.append(_prompt("", detection.class_id, PromptAction.ADD, inside, stamp_ns))
    return prompts


def wanted(detections: Iterable[Detection], classes: str) -> list[Detection]:
    """The detections of the classes in a comma-separated list; all if it is empty. Case does not matter."""
    names = {name.strip().casefold() for name in classes.split(",") if name.strip()}
    return [detection for detection in detections if not names or detection.class_id.casefold() in names]


def _the_lost_one(candidates: list[ObjectView], mode: str) -> ObjectView | None:
    """The LOST object that a box is taken for; None if there is an OCCLUDED one that may reappear, or nobody knows."""
    if not candidates or not all(_is_lost(item) for item in candidates):
        return None
    if len(candidates) > 1 and mode == "add":
        return None
    return max(candidates, key=lambda item: item.last_seen_ns)


def _nobody_knows(candidates: list[ObjectView], detection: Detection) -> bool:
    """Whether several LOST objects could be meant: waiting for one of them to be the only one would have no end."""
    return len(candidates) > 1 and bool(detection.class_id) and all(_is_lost(item) for item in candidates)


def _is_lost(item: ObjectView) -> bool:
    return item.tracked.state is ObjectState.LOST


def _refresh(
    detection: Detection,
    box: Box,
    view: TrackingView,
    then: Mapping[str, Box | None],
    due: Collection[str],
    stamp_ns: int,
) -> list[PromptRequest]:
    """A correction of the object that a sure detection is on, if it is due (SAM 3 does so every 16th frame)."""
    if not due or not detection.score >= REFRESH_SCORE:
        return []
    ious = {
        item.tracked.object_id: box_iou(box, placed)
        for item in view.objects
        if item.class_id == detection.class_id and (placed := then.get(item.tracked.object_id)) is not None
    }
    best = max(ious, key=lambda object_id: ious[object_id], default="")
    if best not in due or ious[best] < REFRESH_IOU:
        return []
    return [_prompt(best, detection.class_id, PromptAction.REFINE, box, stamp_ns)]


def _prompt(object_id: str, class_id: str, action: PromptAction, box: Box, stamp_ns: int) -> PromptRequest:
    return PromptRequest(
        object_id=object_id,
        class_id=class_id,
        action=action,
        box_xyxy=np.array(box, dtype=np.float32),
        stamp_ns=stamp_ns,
    )


def _inside(box: Box, width: int, height: int) -> Box | None:
    """The part of the box inside the image, which detectors may exceed a little; None when there is none."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    return (x0, y0, x1, y1) if np.isfinite(box).all() and x0 < x1 and y0 < y1 else None


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    shared_x = min(a[2], b[2]) - max(a[0], b[0])
    shared_y = min(a[3], b[3]) - max(a[1], b[1])
    if shared_x <= 0 or shared_y <= 0:
        return 0.0
    shared = shared_x * shared_y
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
