"""``sam2-ros dataset report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sam2_ros.commands.shared import add_json_option, print_summary

DESCRIPTION = (
    "What the work on a project cost, by annotation mode: seconds per annotated frame, clicks per masklet, share of "
    "edited frames, and what the verification accepted and rejected."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("project", type=Path, help="folder of the project; it may be open elsewhere")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the report there")
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Report; 0, or 2 where there is no project or the picture cannot be written."""
    return print_summary("dataset report", lambda: _report(args), args.json, (ValueError, OSError))


def _report(args: argparse.Namespace) -> dict[str, Any]:
    from sam2_ros.annotate.project import Project
    from sam2_ros.annotate.report import project_report
    from sam2_ros.annotate.report_picture import write_picture

    with Project.open(args.project, read_only=True) as project:
        report = project_report(project)
    if args.picture is not None:
        write_picture(args.picture, report)
    return report
