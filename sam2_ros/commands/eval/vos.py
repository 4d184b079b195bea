"""``sam2-ros eval vos``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_ros.commands.eval.options import (
    LeftOut,
    add_model_options,
    add_sequences_option,
    model_settings,
    sequence_names,
)
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

if TYPE_CHECKING:
    from sam2_ros.evaluation.vos import SequenceResult

DESCRIPTION = (
    "Prompt each object on its first masked frame, follow it to the end, write one index PNG per frame to "
    "OUT/<sequence>/, and score J, F and J&F by the rules of DAVIS and SA-V where more frames have masks."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder with <sequence>/{images,masks}, or in the layout of DAVIS, YouTube-VOS, or SA-V val",
    )
    parser.add_argument("--prompt", default="mask", choices=("mask", "box", "click1", "click3"), help="(default: mask)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the predicted masks")
    add_sequences_option(parser)
    add_model_options(parser, 'the floors "hold" and "flow"')


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write the JSON."""
    from sam2_ros.data.files.sequences import open_sequences
    from sam2_ros.evaluation.trackers import tracker_by_name
    from sam2_ros.evaluation.vos import VosEvaluator, report

    sequences = open_sequences(args.root, sequence_names(args.sequences))
    results, left_out = [], LeftOut()
    with Progress("frame") as progress:
        evaluator = VosEvaluator(lambda: tracker_by_name(**network_arguments(args)), args.prompt, args.out, progress)
        for number, sequence in enumerate(sequences, 1):
            with left_out.unless_read(sequence.name):
                result = evaluator.evaluate(sequence)
                results.append(result)
                progress.clear()
                print(f"[{number}/{len(sequences)}] {_row(result)}", flush=True)
    left_out.check_that_not_all(len(sequences))
    settings = {**model_settings(args), "prompt": args.prompt, "root": str(args.root), **left_out.for_summary}
    report_summary(report(results, settings), args.json, left_out="sequences")


def _row(result: SequenceResult) -> str:
    scores = "not scored"
    if result.score is not None:
        scores = f"J {result.score.region:.3f}  F {result.score.boundary:.3f}  J&F {result.score.mean:.3f}"
    return f"{result.name:<20} {scores}  {result.frame_count} frames, {result.fps:.1f} fps"
