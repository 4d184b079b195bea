"""Import a source into a project: its frames as JPEG, its clock, and its masklets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import RecordingWriter
from sam2_ros.annotate.sources import Kept, Source, SourceFrame
from sam2_ros.annotate.storage import damage_named
from sam2_ros.data.files.video import SourceError
from sam2_ros.image_io.encodings import ImageError


@dataclass(frozen=True)
class Imported:
    """A source that became a recording."""

    recording_id: str
    frames: int
    masklets: int
    warning: str = ""  # why it ends early, or which images are left out


def is_imported(project: Project, source: Source) -> bool:
    """Whether a recording of the project is of this source already: the same path, topic and name."""
    path = str(source.path.resolve())
    return any(
        (each.info.source, each.info.topic, each.info.name) == (path, source.topic, source.name)
        for each in project.recordings
    )


def import_source(project: Project, source: Source, progress: Callable[[str, int], None] | None = None) -> Imported:
    """Make a recording of a source. It is in the project when this returns, all of it, and not before.

    A single image that cannot be read is left out. Where a recording or a video turns out to be damaged, the frames
    before that are kept.

    Args:
        project: open for writing.
        source: from ``find_sources``.
        progress: called after each frame with the source's name and the number of frames.

    Raises:
        SourceError, ValueError, OSError: no frame can be read, frames of different sizes, or a full disk. Nothing of
            the source is in the project.
    """
    writer = project.new_recording(source.name)
    try:
        warning = _write_frames(writer, source, progress or (lambda _name, _count: None))
        size_hw = writer.size_hw or (0, 0)
        kept = Kept(tuple(writer.source_indices), tuple(writer.stamps_ns), size_hw)
        with damage_named(f"{source.path}: what it says of its objects"):
            details, masklets = source.details(), source.masklets(kept)
        folder = writer.finish(
            name=source.name,
            kind=source.kind,
            source=str(source.path.resolve()),
            fps=details.get("fps", source.fps),
            topic=source.topic,
            masklets=masklets,
        )
    except BaseException:
        writer.discard()
        raise
    recording = project.add_recording(folder)
    project.log.append("import", recording=recording.recording_id, frames=len(recording), masklets=len(masklets))
    return Imported(recording.recording_id, len(recording), len(masklets), warning)


def _write_frames(writer: RecordingWriter, source: Source, progress: Callable[[str, int], None]) -> str:
    """Write every frame; returns why not all could be read, or nothing."""
    with damage_named(f"{source.path}: what it says of its recording"):
        details = source.details()
    frames = source.frames()
    while True:
        try:
            frame = next(frames, None)
        except (SourceError, ImageError) as error:
            if writer.frame_count == 0:
                raise
            return f"{error}; the {writer.frame_count} frames before are kept"
        if frame is None:
            return _left_out(source, writer.frame_count)
        stamp_ns, frame_id = _clock(frame, details)
        writer.add(
            frame.image_rgb,
            source_index=frame.index,
            jpeg=frame.jpeg,
            stamp_ns=stamp_ns,
            frame_id=frame_id,
            name=frame.name,
        )
        progress(source.name, writer.frame_count)


def _left_out(source: Source, frames: int) -> str:
    """Which images could not be read; SourceError when no other was there."""
    if not source.left_out:
        return ""
    first, count = source.left_out[0], len(source.left_out)
    if not frames:
        raise SourceError(f"{source.path}: no image can be read; {first}")
    return f"{first}; left out" if count == 1 else f"{first}; {count} images are left out"


def _clock(frame: SourceFrame, details: Any) -> tuple[int | None, str | None]:
    """Stamp and frame id of a frame: its own, else those of the recording that a data set was exported from."""
    stamps_ns, frame_ids = details.get("stamps_ns") or [], details.get("frame_ids") or []
    stamp_ns, frame_id = frame.stamp_ns, frame.frame_id
    if stamp_ns is None and frame.index < len(stamps_ns):
        stamp_ns = int(stamps_ns[frame.index])
    if frame_id is None and frame.index < len(frame_ids):
        frame_id = str(frame_ids[frame.index])
    return stamp_ns, frame_id
