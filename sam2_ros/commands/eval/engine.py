"""``sam2-ros eval engine``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from sam2_ros.commands.eval.options import add_model_options, add_sequences_option, model_settings, sequence_names
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

DESCRIPTION = (
    "Let a simulated annotator make masklets in the three phases of the SAM 2 paper's data engine: each frame for "
    "itself, a mask that is propagated and made anew where it is bad, and clicks with the full memory. Counts clicks "
    "and edited frames until the IoU is 0.75 everywhere, and gives the J that a number of clicks brings."
)

_ENCODED_FRAMES = 128  # that are kept, as every phase needs them again; 4 MB each with nano


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of sequences with masks, in a layout that `eval vos` takes"
    )
    parser.add_argument(
        "--clicks", type=int, default=10, metavar="N", help="for the J at equal effort, per masklet (default: 10)"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="take every Nth frame; 4 makes the paper's six a second of 24 (default: 1)",
    )
    add_sequences_option(parser)
    add_model_options(parser, "", with_memory=False)


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write the JSON."""
    from sam2_ros.annotate.segmenter import PHASES, Segmenter
    from sam2_ros.data.files.sequences import open_sequences
    from sam2_ros.evaluation.engine import EngineResult, annotate, engine_report
    from sam2_ros.evaluation.interactive import objects_of
    from sam2_ros.tracking.loading import load_network

    if args.clicks < 1:
        raise ValueError(f"--clicks: expected 1 or more, got {args.clicks}")
    sequences = [each.every(args.every) for each in open_sequences(args.root, sequence_names(args.sequences))]
    network = load_network(**network_arguments(args))
    results = []
    with Progress("frame") as progress:
        for sequence, value in ((each, value) for each in sequences for value in objects_of(each)):
            segmenter = Segmenter(network, sequence, cached_frames=min(len(sequence), _ENCODED_FRAMES))
            for phase in PHASES:
                show = partial(progress, f"{sequence.name} object {value} phase {phase}")
                until_good = annotate(segmenter, sequence, value, phase, None, show)
                at_budget = annotate(segmenter, sequence, value, phase, args.clicks, show)
                results.append(EngineResult(sequence.name, value, until_good, at_budget))
                progress.clear()
                print(
                    f"{sequence.name:<20} object {value} phase {phase}: {until_good.clicks} clicks, "
                    f"{until_good.edited_frames} of {len(until_good.regions)} frames edited, "
                    f"{until_good.painted_frames} painted; J {at_budget.region:.3f} at {at_budget.clicks} clicks",
                    flush=True,
                )
    settings = {**model_settings(args), "root": str(args.root), "clicks": args.clicks, "every": args.every}
    report_summary(engine_report(results, settings), args.json, left_out="rows")
