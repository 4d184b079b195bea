"""``sam2-ros dataset``: make a project of recordings, label it, measure the work, and export a data set."""

from __future__ import annotations

import argparse

from sam2_ros.commands.dataset import create as dataset_create
from sam2_ros.commands.dataset import export as dataset_export
from sam2_ros.commands.dataset import label as dataset_label
from sam2_ros.commands.dataset import report as dataset_report
from sam2_ros.commands.shared import add_subcommands

_TASKS = {
    "create": (dataset_create, "make a project of recordings, videos, folders of images or data sets"),
    "label": (dataset_label, "find objects by itself and track them, for people to verify"),
    "report": (dataset_report, "what the work cost: seconds, clicks, edited frames and verdicts"),
    "export": (dataset_export, "write the masklets as a data set of SA-V, DAVIS, COCO or YOLO"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros dataset``."""
    add_subcommands(parser, "task", _TASKS)


def run(args: argparse.Namespace) -> int:
    """Run the chosen task; 0, 1 where a part of the work failed, or 2 for unusable arguments or data."""
    return int(args.run_task(args))
