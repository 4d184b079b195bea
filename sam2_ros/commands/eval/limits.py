"""``sam2-ros eval limits``."""

from __future__ import annotations

import argparse

from sam2_ros.commands.eval.options import add_model_options, model_label, model_settings
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

DESCRIPTION = (
    "Track drawn clips that each hold one thing that SAM 2 names as a limit: a shot change, look-alikes, a long "
    "occlusion, thin and fast objects, many objects. Gives J beside that of the floors; needs no data."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="clips of each kind (default: 2)")
    add_model_options(parser, 'the floors "hold" and "flow", which are measured beside any model')


def run(args: argparse.Namespace) -> None:
    """Measure, print a table, and write the JSON."""
    from sam2_ros.evaluation.limit_clips import LIMIT_KINDS
    from sam2_ros.evaluation.limits import LimitScore, evaluate_limits, limits_report
    from sam2_ros.evaluation.trackers import FLOORS, tracker_by_name

    trackers = {model_label(args): tracker_by_name(**network_arguments(args))}
    trackers |= {name: tracker_by_name(name) for name in FLOORS if name != args.model}
    with Progress() as progress:
        table = evaluate_limits(
            trackers, LIMIT_KINDS, args.seeds, lambda kind, seed: progress(f"{kind}, clip {seed + 1} of {args.seeds}")
        )

    def cell(score: LimitScore) -> str:
        return f"{score.region:.3f}" + ("" if score.region_after is None else f" (after: {score.region_after:.3f})")

    print(f"{'J':<16}" + "".join(f"{name:<24}" for name in trackers))
    for kind, row in table.items():
        print(f"{kind:<16}" + "".join(f"{cell(score):<24}" for score in row.values()))
    settings = {**model_settings(args), "seeds": args.seeds}
    report_summary(limits_report(table, settings), args.json)
