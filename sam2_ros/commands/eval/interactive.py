"""``sam2-ros eval interactive``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
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
    from sam2_ros.data.files.sequences import VideoSequence
    from sam2_ros.evaluation.interactive import InteractiveResult

DESCRIPTION = (
    "Correct the tracker with three clicks a frame, as the SAM 2 paper does: offline, in the worst frame of the pass "
    "before, and online, wherever the IoU falls below 0.75. Where an object was lost, count the clicks that bring it "
    "back, with its memory and from scratch."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of sequences with masks, in a layout that `eval vos` takes"
    )
    parser.add_argument("--passes", type=int, default=8, metavar="N", help="offline, at most (default: 8)")
    add_sequences_option(parser)
    add_model_options(parser, "nothing else: the floors take no clicks")


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write the JSON."""
    from sam2_ros.data.files.sequences import open_sequences
    from sam2_ros.evaluation.interactive import (
        MAX_FRAMES,
        InteractiveEvaluator,
        InteractiveResult,
        interactive_report,
    )
    from sam2_ros.evaluation.trackers import tracker_by_name

    if not 1 <= args.passes <= MAX_FRAMES:  # each pass clicks in one more frame
        raise ValueError(f"--passes: expected 1 to {MAX_FRAMES}, got {args.passes}")
    sequences = open_sequences(args.root, sequence_names(args.sequences))
    tracker = tracker_by_name(**network_arguments(args))
    results, left_out = [], LeftOut()
    with Progress("frame") as progress:
        for sequence, value in _objects(sequences, left_out):
            name = f"{sequence.name} object {value}"
            evaluator = InteractiveEvaluator(tracker, partial(progress, name))
            with left_out.unless_read(name):
                offline = evaluator.offline(sequence, value, args.passes)
                result = InteractiveResult(sequence.name, value, offline, evaluator.online(sequence, value))
                results.append(result)
                progress.clear()
                print(_row(name, result), flush=True)
    if not results:
        left_out.check_that_not_all(len(left_out.reasons))
    settings = {**model_settings(args), "root": str(args.root), **left_out.for_summary}
    report_summary(interactive_report(results, settings), args.json, left_out="rows")


def _objects(sequences: Iterable[VideoSequence], left_out: LeftOut) -> Iterator[tuple[VideoSequence, int]]:
    """Every object of every sequence whose masks can be read."""
    from sam2_ros.evaluation.interactive import objects_of

    for sequence in sequences:
        values: Sequence[int] = ()
        with left_out.unless_read(sequence.name):
            values = objects_of(sequence)
        yield from ((sequence, value) for value in values)


def _row(name: str, result: InteractiveResult) -> str:
    from sam2_ros.evaluation.interactive import interactive_report

    row = interactive_report([result], {})
    return (
        f"{name:<28} offline {_text(row['offline_J&F'][0])} -> {_text(row['offline_J&F'][-1])} in "
        f"{len(result.offline)} passes, online {_text(row['online_J&F'])} with {row['online_clicks']} clicks"
    )


def _text(score: float | None) -> str:
    return "not scored" if score is None else f"{score:.3f}"
