"""``sam2-ros eval limits``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_ros.commands.eval.options import (
    add_model_options,
    add_sequences_option,
    model_label,
    model_settings,
    sequence_names,
)
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

if TYPE_CHECKING:
    from sam2_ros.evaluation.limits import LimitScore
    from sam2_ros.evaluation.trackers import VideoTracker

DESCRIPTION = (
    "Track drawn clips that each hold one thing that SAM 2 names as a limit: a shot change, look-alikes, a long "
    "occlusion, thin and fast objects, many objects. Gives J beside that of the floors; needs no data."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="clips of each kind (default: 2)")
    parser.add_argument("--kinds", metavar="A,B", help="kinds of clips, with commas; none: only --root (default: all)")
    parser.add_argument(
        "--root", type=Path, help="real videos too, all of whose frames have masks, in a layout of eval vos"
    )
    parser.add_argument(
        "--fit-quality",
        action="store_true",
        help="fit what the model's mask quality is worth on these clips, and write it beside the weights",
    )
    add_sequences_option(parser)
    add_model_options(parser, 'the floors "hold" and "flow", which are measured beside any model')


def run(args: argparse.Namespace) -> None:
    """Measure, print a table, and write the JSON."""
    from sam2_ros.data.files.sequences import open_sequences
    from sam2_ros.evaluation.limit_clips import LIMIT_KINDS
    from sam2_ros.evaluation.limits import evaluate_limits, limits_report
    from sam2_ros.evaluation.trackers import FLOORS, tracker_by_name

    if args.sequences is not None and args.root is None:
        raise ValueError("--sequences names real videos: say with --root where they are")
    sequences = () if args.root is None else open_sequences(args.root, sequence_names(args.sequences))
    kinds = _kinds(args.kinds, LIMIT_KINDS)
    if args.fit_quality and args.model in FLOORS:
        raise ValueError(f"--fit-quality: expected a model with weights, got {args.model}")
    plain: dict[str, Any] = {"calibrated": False} if args.fit_quality else {}
    measured = tracker_by_name(**{**network_arguments(args), **plain})
    trackers = {model_label(args): measured}
    if not args.fit_quality:  # which they tell nothing about
        trackers |= {name: tracker_by_name(name) for name in FLOORS if name != args.model}
    shown: list[tuple[float, float]] = []
    with Progress() as progress:
        table = evaluate_limits(
            trackers,
            kinds,
            args.seeds,
            lambda kind, seed: progress(f"{kind}, clip {seed + 1} of {args.seeds}"),
            sequences,
            shown,
        )
    _print_table(table, list(trackers))
    settings = {**model_settings(args), "seeds": args.seeds}
    if args.fit_quality:
        print(f"the mask quality's meaning is in {_fit_quality(measured, shown, args.checkpoint)}")
    report_summary(limits_report(table, settings), args.json)


def _fit_quality(tracker: VideoTracker, shown: list[tuple[float, float]], checkpoint: Path | None) -> Path:
    from sam2_ros.tracking.loading import EMBEDDED_WEIGHTS
    from sam2_ros.tracking.rules.quality import calibration_file, fit_calibration, write_calibration
    from sam2_ros.tracking.state_io import fingerprint
    from sam2_ros.tracking.tracker import Tracker

    assert isinstance(tracker, Tracker), "floors were rejected"
    path = calibration_file(checkpoint or EMBEDDED_WEIGHTS)
    calibration = fit_calibration([quality for quality, _ in shown], [iou for _, iou in shown])
    write_calibration(path, calibration, fingerprint(tracker.network))
    return path


def _kinds(text: str | None, known: Sequence[str]) -> list[str]:
    if text is None:
        return list(known)
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--kinds: expected some of {', '.join(known)}, or none; got {', '.join(unknown)}")
    return names


def _print_table(table: Mapping[str, Mapping[str, LimitScore]], names: list[str]) -> None:
    """J of all, then how the clips ended for each tracker."""

    def cell(score: LimitScore) -> str:
        return f"{score.region:.3f}" + ("" if score.region_after is None else f" (after: {score.region_after:.3f})")

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    print(f"{'J':<16}" + "".join(f"{name:<24}" for name in names))
    for kind, row in table.items():
        print(f"{kind:<16}" + "".join(f"{cell(score):<24}" for score in row.values()))
    columns = ("recovered", "swapped", "wrong_tracked", "wrong_sure")
    print(f"\n{names[0]:<16}" + "".join(f"{column:<15}" for column in columns) + "ms per frame")
    for kind, row in table.items():
        score = row[names[0]]
        cells = "".join(f"{share(getattr(score, column)):<15}" for column in columns)
        print(f"{kind:<16}{cells}{score.ms_per_frame:.1f}")
