"""SA-V's training layout: ``<id>.mp4`` beside ``<id>_manual.json`` or ``<id>_auto.json``, anywhere under a folder.

``masklet[i][k]`` of the JSON is object k in annotation i, as run-length code; annotation i is of video frame 4 i.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.masks import decode_rle

FRAMES_PER_ANNOTATION = 4  # 24 frames and 6 annotations a second


class SavVideo:
    """One video. Its JSON is read when it is needed: there are tens of thousands of them."""

    def __init__(self, video_path: Path, annotation_path: Path) -> None:
        self.name = video_path.stem
        self._video_path, self._annotation_path = video_path, annotation_path

    def __len__(self) -> int:
        """Number of annotated frames."""
        return len(_masklets(self._annotation_path))

    def masks(self, index: int) -> dict[int, NDArray[np.bool_]]:
        """(H, W) masks by object number; empty where an object is absent."""
        return {number: decode_rle(code) for number, code in enumerate(_masklets(self._annotation_path)[index])}

    def frames_rgb(self, start: int, count: int) -> list[NDArray[np.uint8]]:
        """The pictures of ``count`` annotated frames, (H, W, 3) each.

        Raises:
            ValueError: the video cannot be opened or ends too early.
        """
        capture = cv2.VideoCapture(str(self._video_path))
        frames: list[NDArray[np.uint8]] = []
        try:
            capture.set(cv2.CAP_PROP_POS_FRAMES, start * FRAMES_PER_ANNOTATION)
            for index in range((count - 1) * FRAMES_PER_ANNOTATION + 1):
                if not capture.grab():
                    break
                if index % FRAMES_PER_ANNOTATION == 0:
                    frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        finally:
            capture.release()
        if len(frames) < count:
            raise ValueError(
                f"{self._video_path}: expected frames {start * FRAMES_PER_ANNOTATION} to "
                f"{(start + count - 1) * FRAMES_PER_ANNOTATION}, of which every fourth is annotated, "
                f"got {len(frames)} of {count}; is it the video of {self._annotation_path.name}?"
            )
        return frames


def find_sav_videos(root: Path) -> list[SavVideo]:
    """Every video under a folder that has annotations beside it, in order of name; the manual ones before the auto."""
    videos = []
    for path in sorted(root.rglob("*.mp4")):
        for kind in ("manual", "auto"):
            annotation = path.with_name(f"{path.stem}_{kind}.json")
            if annotation.is_file():
                videos.append(SavVideo(path, annotation))
                break
    return videos


@lru_cache(maxsize=64)
def _masklets(path: Path) -> list[list[Any]]:
    """The codes of a file by annotation and object.

    Raises:
        ValueError: not an SA-V annotation.
    """
    try:
        masklets = json.loads(path.read_text(encoding="utf-8"))["masklet"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected an SA-V annotation, JSON with the key masklet ({error})") from error
    if not isinstance(masklets, list):
        raise ValueError(f"{path}: expected masklet to be a list by annotated frame, got {type(masklets).__name__}")
    return masklets
