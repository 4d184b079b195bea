"""``sam2-ros dataset label``."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_json_option, add_network_options, network_arguments, report_summary

if TYPE_CHECKING:
    from sam2_ros.annotate.label_jobs import LabelJob
    from sam2_ros.annotate.project import Project

DESCRIPTION = (
    "Find objects on key frames, everything or what a detector found, track them both ways, and put the masklets into "
    "the queue to be verified. A recording that was labelled in this way before is left out; one that fails does not "
    "stop the others."
)
COMMAND = "sam2-ros dataset label"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("projects", nargs="+", type=Path, metavar="PROJECT", help="folder of a project")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--everything", action="store_true", help="look for everything (default)")
    what.add_argument(
        "--detections",
        type=Path,
        metavar="FILE",
        help='look for what a detector found: a list of {"recording", "frame", "bbox" or "box_xyxy", "class", "score"}',
    )
    parser.add_argument("--every", type=int, default=16, metavar="N", help="frames between key frames (default: 16)")
    parser.add_argument("--max-objects", type=int, default=24, metavar="N", help="at a time (default: 24)")
    parser.add_argument("--again", action="store_true", help="label recordings again that were labelled before")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="recordings at a time, here (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each (default: 1)")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help='run on a cluster of Ray that sees the projects at the same paths: "auto", host:6379, or "local"',
    )
    add_network_options(parser)
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Label; 0, 1 where some recordings failed, 2 for unusable arguments, or 130 when it was stopped by Ctrl-C."""
    from sam2_ros.annotate.project import Project

    started_s = time.perf_counter()
    try:
        if min(args.jobs, args.threads) < 1:
            raise ValueError(f"--jobs and --threads: expected 1 or more, got {args.jobs} and {args.threads}")
        with ExitStack() as stack:
            projects = [stack.enter_context(Project.open(path, COMMAND)) for path in args.projects]
            rows, failed, skipped = _label(projects, args)
    except (ValueError, OSError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"{COMMAND}: stopped; what was finished is stored, and the same command goes on from there", file=sys.stderr
        )
        return 130
    seconds = round(time.perf_counter() - started_s, 1)
    report_summary({"recordings": rows, "failed": failed, "done_before": skipped, "seconds": seconds}, args.json)
    return 1 if failed else 0


def _label(projects: list[Project], args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """What was labelled, what failed, and what was labelled before."""
    from sam2_ros.annotate.label_jobs import is_done, run_here, run_on_ray, store_outcome

    every_job = _jobs(projects, args)
    jobs = [job for job in every_job if args.again or not is_done(job)]
    skipped = [job.name for job in every_job if job not in jobs]
    project_of = {recording.folder.resolve(): project for project in projects for recording in project.recordings}
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    with Progress("frame" if args.ray is None else "recording") as progress:
        outcomes = run_here(jobs, args.jobs, progress) if args.ray is None else run_on_ray(jobs, args.ray, progress)
        for outcome in outcomes:
            progress.clear()
            if outcome.error:
                failed.append(outcome.job.name)
                print(f"{COMMAND}: {outcome.job.name}: {outcome.error}", file=sys.stderr)
                continue
            stored = store_outcome(project_of[outcome.job.folder], outcome)
            rows.append({"recording": outcome.job.name, "masklets": len(stored)})
            count = len(rows) + len(failed)
            print(f"[{count}/{len(jobs)}] {outcome.job.name}: {len(stored)} masklets", file=sys.stderr)
    return rows, failed, skipped


def _jobs(projects: list[Project], args: argparse.Namespace) -> list[LabelJob]:
    """One for each recording; with detections, for each that has some."""
    from sam2_ros.annotate.detections import read_detections
    from sam2_ros.annotate.label_jobs import LabelJob, LabelSettings

    settings = LabelSettings(every=args.every, max_objects=args.max_objects)
    detections = None if args.detections is None else read_detections(args.detections)
    recordings = [recording for project in projects for recording in project.recordings]
    if detections is not None:
        unknown = sorted(set(detections) - {recording.recording_id for recording in recordings})
        if unknown:
            raise ValueError(f"{args.detections}: no recording {unknown[0]!r} in the projects")
        recordings = [recording for recording in recordings if recording.recording_id in detections]
    network = network_arguments(args)
    return [
        LabelJob(
            recording.folder.resolve(),
            settings,
            network,
            None if detections is None else detections[recording.recording_id],
            args.threads,
        )
        for recording in recordings
    ]
