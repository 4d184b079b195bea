"""A detector's boxes from a file, by recording and frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam2_ros.annotate.masklets import ProjectError
from sam2_ros.annotate.storage import read_json


@dataclass(frozen=True)
class FrameDetection:
    """One box in one frame of a recording."""

    box_xyxy: tuple[float, float, float, float]  # px
    class_name: str = ""
    score: float = 1.0


FrameDetections = Mapping[int, list[FrameDetection]]  # by frame


def read_detections(path: Path) -> dict[str, dict[int, list[FrameDetection]]]:
    """By recording id and frame, the boxes of a JSON list like
    ``[{"recording": "kitchen", "frame": 0, "box_xyxy": [4, 5, 60, 70], "class": "cup", "score": 0.9}, ...]``.

    ``bbox`` (x, y, width, height, as in COCO's results) may stand in place of ``box_xyxy``; class and score may be left
    out.

    Raises:
        ProjectError: it is no such file; which entry, and what is wrong.
    """
    values = read_json(path)
    if not isinstance(values, list):
        raise ProjectError(f"{path}: expected a JSON list of detections, got {type(values).__name__}")
    found: dict[str, dict[int, list[FrameDetection]]] = {}
    for number, entry in enumerate(values):
        try:
            recording, frame, detection = _detection(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise ProjectError(
                f"{path}: entry {number}: expected recording, frame, and box_xyxy or bbox "
                f"({type(error).__name__}: {error})"
            ) from error
        found.setdefault(recording, {}).setdefault(frame, []).append(detection)
    return found


def _detection(entry: Mapping[str, Any]) -> tuple[str, int, FrameDetection]:
    if "box_xyxy" in entry:
        x0, y0, x1, y1 = (float(value) for value in entry["box_xyxy"])
    else:
        x0, y0, width, height = (float(value) for value in entry["bbox"])
        x1, y1 = x0 + width, y0 + height
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box {[x0, y0, x1, y1]} has no area")
    detection = FrameDetection((x0, y0, x1, y1), str(entry.get("class", "")), float(entry.get("score", 1.0)))
    return str(entry["recording"]), int(entry["frame"]), detection
