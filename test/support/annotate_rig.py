"""A small project with a rendered clip, for tests of what annotators do with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from synthetic_frames import synthetic_frames

from sam2_ros.annotate.masklets import FramePrompt
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording

SIZE_HW = (48, 80)


def make_project(path: Path, frames: int = 8, name: str = "disc") -> Project:
    """A project, open, with one recording: a disc that crosses the picture."""
    project = Project.create(path, "a test")
    add_recording(project, synthetic_frames(frames, SIZE_HW[0], 3, SIZE_HW[1]), name)
    return project


def add_recording(project: Project, frames_rgb: list[NDArray[np.uint8]], name: str) -> Recording:
    writer = project.new_recording(name)
    for number, image_rgb in enumerate(frames_rgb):
        writer.add(image_rgb, source_index=number)
    return project.add_recording(writer.finish(name=name, kind="images", source=f"/{name}", fps=6.0))


def a_click(x: float, y: float, label: int = 1) -> FramePrompt:
    return FramePrompt(((x, y),), (label,))


def a_square(x0: int, y0: int, side: int = 10) -> NDArray[np.bool_]:
    """(H, W) mask."""
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask
