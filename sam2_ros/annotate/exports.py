"""Export a project as a data set: which masklets and frames are exported, how they are split, and into which layout.

The formats themselves are in ``export_formats``. Beside the data set stands ``masklets.json`` (``sidecar``), with which
``dataset create`` makes the same masklets of it again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_ros.annotate.export_formats import WRITERS, Piece
from sam2_ros.annotate.masklets import Masklet, ProjectError, Verdict
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.sidecar import Sidecar
from sam2_ros.annotate.storage import PARTIAL_PREFIX

NEVER_EXPORTED = (Verdict.REJECTED, Verdict.NOT_TRACKABLE)


@dataclass(frozen=True)
class ExportSettings:
    """What to export."""

    format: str  # a key of ``WRITERS``
    accepted_only: bool = False  # else unverified masklets too; rejected and not trackable ones in no case
    split: float | None = None  # share of the frames for training; None: no split


def export_project(
    project: Project, out: Path, settings: ExportSettings, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, Any]:
    """Write a data set into a new folder, which appears when all of it is written; returns a summary.

    A split parts recordings, never neighbouring frames: the recordings are added to the training part in order of id
    while it stays within its share. A project with one recording is cut in time.

    Args:
        project: may be open for reading only.
        out: a folder that does not exist, or is empty.
        settings: what to export.
        progress: called with the recording's name, frames done and frames in all.

    Raises:
        ProjectError: an unknown format, nothing to export, a share outside 0..1, or something at ``out``.
        OSError: it cannot be written.
    """
    if settings.format not in WRITERS:
        raise ProjectError(f"format: expected one of {', '.join(WRITERS)}, got {settings.format!r}")
    if settings.split is not None and not 0 < settings.split < 1:
        raise ProjectError(f"split: expected a share between 0 and 1, got {settings.split}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProjectError(f"{out} exists already and is not an empty folder: choose another, or remove it")
    skipped: Counter[str] = Counter()
    chosen = [(each, _chosen(each, settings, skipped)) for each in project.recordings]
    pieces = _pieces([(recording, masklets) for recording, masklets in chosen if masklets], settings.split)
    if not pieces:
        left_out = ", ".join(f"{count} {verdict}" for verdict, count in sorted(skipped.items())) or "there is none"
        raise ProjectError(f"{project.path}: no masklet to export ({left_out})")
    partial = out.parent / f"{PARTIAL_PREFIX}{out.name}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        details = WRITERS[settings.format](partial, pieces, project.classes, progress or (lambda *_: None))
        _sidecar(pieces).write(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if not project.read_only:
        project.log.append("export", format=settings.format, out=str(out))
    return {
        "format": settings.format,
        "out": str(out),
        "sequences": {piece.name: piece.split or "all" for piece in pieces},
        "masklets": sum(len(piece.masklets) for piece in pieces),
        "skipped": dict(sorted(skipped.items())),
        **details,
    }


def _chosen(recording: Recording, settings: ExportSettings, skipped: Counter[str]) -> list[Masklet]:
    """The masklets of a recording to export; the others are counted by their verdict."""
    chosen = []
    for masklet in recording.masklets.all():
        wanted = masklet.verdict is Verdict.ACCEPTED if settings.accepted_only else True
        if not wanted or masklet.verdict in NEVER_EXPORTED:
            skipped[masklet.verdict.value] += 1
        elif not any(frame.visible for frame in masklet.frames.values()):
            skipped["empty"] += 1
        else:
            chosen.append(masklet)
    return chosen


def _pieces(chosen: Sequence[tuple[Recording, list[Masklet]]], split: float | None) -> list[Piece]:
    """The sequences of the data set."""
    if split is None:
        return [_piece(recording, masklets, "", range(len(recording))) for recording, masklets in chosen]
    if len(chosen) == 1:
        ((recording, masklets),) = chosen
        cut = round(split * len(recording))
        parts = (("train", range(cut)), ("val", range(cut, len(recording))))
        return [_piece(recording, masklets, part, frames, f"_{part}") for part, frames in parts if len(frames)]
    pieces, total, taken = [], sum(len(recording) for recording, _ in chosen), 0
    for number, (recording, masklets) in enumerate(chosen):
        # At least one on each side.
        fits = (taken + len(recording) <= split * total or number == 0) and number < len(chosen) - 1
        taken += len(recording) if fits else 0
        pieces.append(_piece(recording, masklets, "train" if fits else "val", range(len(recording))))
    return pieces


def _piece(recording: Recording, masklets: Sequence[Masklet], split: str, frames: range, suffix: str = "") -> Piece:
    """A part of a recording, frames counted from its beginning; masklets that show nothing in it are left out."""
    cut = [
        replace(each, frames={i - frames.start: each.frames[i] for i in each.frame_indices if i in frames})
        for each in masklets
    ]
    seen = [each for each in cut if any(frame.visible for frame in each.frames.values())]
    return Piece(f"{recording.recording_id}{suffix}", split, recording, frames, dict(enumerate(seen, 1)))


def _sidecar(pieces: Sequence[Piece]) -> Sidecar:
    sidecar = Sidecar()
    for piece in pieces:
        info, frames = piece.recording.info, piece.frames
        values = {
            "name": info.name,
            "fps": info.fps,
            "topic": info.topic,
            "stamps_ns": list(info.stamps_ns[frames.start : frames.stop]),
            "frame_ids": list(info.frame_ids[frames.start : frames.stop]),
        }
        sidecar.add(piece.name, values, piece.masklets)
    return sidecar
