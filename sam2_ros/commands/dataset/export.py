"""``sam2-ros dataset export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_json_option, print_summary

DESCRIPTION = (
    "Write the masklets of a project as a data set that training and evaluation take, and that `dataset create` makes "
    "the same masklets of again. Rejected masklets, and those that are not trackable, are left out."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("project", type=Path, help="folder of the project")
    parser.add_argument("--format", required=True, choices=("sav", "davis", "coco", "yolo"), help="layout to write")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the data set")
    parser.add_argument("--accepted-only", action="store_true", help="leave out what nobody has verified yet")
    parser.add_argument(
        "--split",
        type=float,
        metavar="SHARE",
        help="share of the frames for training, the rest for validation; by recordings, or in time with only one",
    )
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Export; 0, or 2 where there is nothing to export or it cannot be written."""
    return print_summary("dataset export", lambda: _export(args), args.json, (ValueError, OSError))


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from sam2_ros.annotate.exports import ExportSettings, export_project
    from sam2_ros.annotate.project import Project

    settings = ExportSettings(args.format, args.accepted_only, args.split)
    with Project.open(args.project, "sam2-ros dataset export") as project, Progress("frame") as progress:
        return export_project(project, args.out, settings, progress)
