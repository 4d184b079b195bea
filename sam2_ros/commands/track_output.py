"""The output of ``sam2-ros track``: masks as index PNGs or as one COCO RLE file, and an overlay video."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.masks import encode_rle, write_index_png
from sam2_ros.data.files.video import SourceInfo, VideoWriter
from sam2_ros.tracking.overlay import draw_overlay
from sam2_ros.tracking.types import FrameResult, ObjectState


class TrackOutput(Protocol):
    """Receives every frame once, in order."""

    @property
    def path(self) -> Path:
        """The file or folder that is written."""
        ...

    def write(self, image_rgb: NDArray[np.uint8], result: FrameResult, fps: float) -> None:
        """Add one frame, (H, W, 3) uint8 RGB, with its result and the mean frames per second so far."""
        ...

    def close(self) -> None:
        """Finish the files, which are incomplete before."""
        ...


class IndexPngOutput:
    """``masks/00000.png`` and so on: pixel values are the objects' labels."""

    def __init__(self, folder: Path):
        self.path = folder
        self._written = 0

    def write(self, image_rgb: NDArray[np.uint8], result: FrameResult, fps: float) -> None:
        """One file."""
        write_index_png(self.path / f"{result.frame_index:05d}.png", result.label_image)
        self._written = result.frame_index + 1

    def close(self) -> None:
        """Report masks of an earlier, longer run in the same folder, which are not deleted."""
        found = self.path.glob("*.png") if self._written else ()
        later = sorted(p.name for p in found if p.stem.isdecimal() and int(p.stem) >= self._written)
        if later:
            print(f"{self.path}: {later[0]} to {later[-1]} are of an earlier run", file=sys.stderr)


class RleOutput:
    """One JSON file with the mask of every object in every frame, overlaps included; empty masks are empty RLEs."""

    def __init__(self, path: Path, info: SourceInfo):
        self.path = path
        self._info = info
        self._size_hw: list[int] = [0, 0]
        self._frames: list[dict[str, Any]] = []

    def write(self, image_rgb: NDArray[np.uint8], result: FrameResult, fps: float) -> None:
        """Add one entry, compressed, which is kept in memory until ``close``."""
        self._size_hw = [int(size) for size in image_rgb.shape[:2]]
        objects = [
            {
                "object_id": tracked.object_id,
                "label": tracked.label,
                "state": ObjectState(tracked.state).name,
                "score": round(float(tracked.score), 4),
                "mask_quality": round(float(tracked.mask_quality), 4),
                "box_xyxy": None if tracked.box_xyxy is None else [int(edge) for edge in tracked.box_xyxy],
                "segmentation": encode_rle(tracked.mask),
            }
            for tracked in result
        ]
        self._frames.append({"frame": result.frame_index, "objects": objects})

    def close(self) -> None:
        """Write the file; without any frame, the file of an earlier run is kept."""
        if not self._frames:
            return
        height, width = self._size_hw
        header = {"source": self._info.name, "fps": self._info.fps, "height": height, "width": width}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**header, "frames": self._frames}) + "\n")


class OverlayOutput:
    """``overlay.mp4``: masks, outlines and tags on the images."""

    def __init__(self, path: Path, info: SourceInfo):
        self.path = path
        self._writer = VideoWriter(path, info.fps)

    def write(self, image_rgb: NDArray[np.uint8], result: FrameResult, fps: float) -> None:
        """One frame of the video."""
        self._writer.write(draw_overlay(image_rgb, result, status=f"{fps:.1f} fps"))

    def close(self) -> None:
        """Finish the video."""
        self._writer.close()
