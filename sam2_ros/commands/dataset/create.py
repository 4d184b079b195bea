"""``sam2-ros dataset create``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_json_option, report_summary

if TYPE_CHECKING:
    from sam2_ros.annotate.project import Project
    from sam2_ros.annotate.sources import Source

DESCRIPTION = (
    "Make a project folder of the frames of recordings, videos and folders of images, and of the masks of data sets in "
    "the layouts of SA-V, DAVIS, COCO (of videos) and those that `dataset export` writes. With a project that is there "
    "already, add to it. What our node published beside the images of a recording becomes masklets to verify."
)
COMMAND = "sam2-ros dataset create"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("project", type=Path, help="folder of the project")
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="recording, video, or folder")
    parser.add_argument(
        "--fps",
        type=float,
        default=6.0,
        help="frames per second to take of recordings and videos, as SA-V (default: 6; 0 takes all)",
    )
    # The second name is that of `track`, which the reader of recordings speaks of.
    parser.add_argument(
        "--topic", "--image-topic", default="", help="image topic of a recording (default: its only one)"
    )
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Import; 0, 1 where a source failed and others did not, or 2 where nothing could be imported."""
    from sam2_ros.annotate.project import Project

    try:
        if not 0 <= args.fps < float("inf"):
            raise ValueError(f"--fps: expected a number of 0 or more, got {args.fps}")
        is_new = not (args.project / "project.json").is_file()
        project = Project.create(args.project, COMMAND) if is_new else Project.open(args.project, COMMAND)
    except (ValueError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 2
    with project:
        recordings, failed = _import_all(project, args)
        summary = {"project": str(args.project), "recordings": recordings, "failed": failed}
        if is_new and not project.recordings:
            shutil.rmtree(args.project, ignore_errors=True)
    report_summary(summary, args.json)
    return 0 if not failed else 1 if recordings else 2


def _import_all(project: Project, args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """What each source became, and the sources that failed: one does not stop the others."""
    from sam2_ros.annotate.sources import find_sources

    recordings: list[dict[str, Any]] = []
    failed: list[str] = []
    with Progress("frame") as progress:
        for path in args.sources:
            try:
                sources = find_sources(path.expanduser(), args.fps, args.topic)
            except _unusable() as error:
                failed.append(str(path))
                _say(str(error), progress)
                continue
            for source in sources:
                try:
                    recordings += _import_one(project, source, progress)
                except _unusable() as error:
                    failed.append(str(path) if len(sources) == 1 else f"{path}: {source.name}")
                    _say(_reason(source.name, error), progress)
    return recordings, failed


def _reason(name: str, error: Exception) -> str:
    from sam2_ros.annotate.storage import is_full_disk

    if is_full_disk(error):
        return f"{name}: the disk is full: make room and give the same command again; the project is as it was before"
    return str(error)


def _unusable() -> tuple[type[Exception], ...]:
    """What is raised for a source that cannot be read, or a project that cannot be written."""
    from sam2_ros.data.files.video import SourceError
    from sam2_ros.image_io.encodings import ImageError

    return (SourceError, ImageError, ValueError, OSError)


def _import_one(project: Project, source: Source, progress: Progress) -> list[dict[str, Any]]:
    """The recording that was made; none where the project has it already."""
    from sam2_ros.annotate.imports import import_source, is_imported

    if is_imported(project, source):
        _say(f"{source.name} is in the project already", progress)
        return []
    done = import_source(project, source, progress)
    if done.warning:
        _say(done.warning, progress)
    return [{"id": done.recording_id, "frames": done.frames, "masklets": done.masklets}]


def _say(text: str, progress: Progress) -> None:
    progress.clear()
    print(f"{COMMAND}: {text}", file=sys.stderr)
