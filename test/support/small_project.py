"""Projects of a few small frames, for tests of the data engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import MaskletFrame, MaskSource
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording

SIZE_HW = (48, 80)


def make_project(path: Path, frames: int = 6, recordings: tuple[str, ...] = ("clip",)) -> Project:
    """A new project, open for writing, whose frames are noise."""
    project = Project.create(path, "test")
    for name in recordings:
        add_recording(project, frames, name)
    return project


def add_recording(project: Project, frames: int, name: str) -> Recording:
    rng = np.random.default_rng(len(name))
    writer = project.new_recording(name)
    for index in range(frames):
        image_rgb = rng.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
        writer.add(image_rgb, source_index=index, stamp_ns=10**9 + index * 10**8, frame_id="camera")
    return project.add_recording(writer.finish(name=name, kind="video", source=f"{name}.mp4", fps=10.0))


def block(index: int, x0: int = 10, y0: int = 8) -> NDArray[np.bool_]:
    """A rectangle that moves to the right by two pixels a frame."""
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y0 : y0 + 12, x0 + 2 * index : x0 + 2 * index + 16] = True
    return mask


def painted(mask: NDArray[np.bool_]) -> MaskletFrame:
    return MaskletFrame.of_mask(mask, MaskSource.BRUSH)


def add_block(recording: Recording, count: int, name: str = "block", class_name: str = "", y0: int = 8) -> str:
    """A masklet over the first ``count`` frames; its id."""
    frames = {index: painted(block(index, y0=y0)) for index in range(count)}
    return recording.masklets.add(name=name, class_name=class_name, frames=frames).masklet_id
