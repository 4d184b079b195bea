"""``sam2-ros eval``: accuracy on data with known masks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam2_ros.evaluation.vos import SequenceResult


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros eval``."""
    protocols = parser.add_subparsers(dest="protocol", required=True, metavar="PROTOCOL")
    vos = protocols.add_parser(
        "vos",
        help="prompt each object once, follow it to the end of the video",
        description="Prompt each object on its first masked frame, follow it to the end, write one index PNG per frame "
        "to OUT/<sequence>/, and score J, F and J&F by the rules of DAVIS and SA-V where more frames have masks.",
    )
    vos.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder with <sequence>/{images,masks}, or in the layout of DAVIS, YouTube-VOS, or SA-V val",
    )
    vos.add_argument("--model", default="nano", help='name of a model, or the floors "hold" and "flow" (default: nano)')
    vos.add_argument("--checkpoint", type=Path, help="weights to use in place of the model's own")
    vos.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    vos.add_argument("--prompt", default="mask", choices=("mask", "box", "click1", "click3"), help="(default: mask)")
    vos.add_argument("--out", type=Path, required=True, help="folder for the predicted masks")
    vos.add_argument("--sequences", help="names, separated by commas, or a text file with one per line (default: all)")
    vos.add_argument("--json", type=Path, metavar="FILE", help="write the scores there")


def run(args: argparse.Namespace) -> int:
    """Run the protocol that was asked for; 0, or 2 if the arguments or the data do not fit."""
    try:
        return _run_vos(args)
    except (ValueError, OSError) as error:
        print(f"sam2-ros eval: {error}", file=sys.stderr)
        return 2


def _run_vos(args: argparse.Namespace) -> int:
    from sam2_ros.data.sequences import open_sequences
    from sam2_ros.evaluation.trackers import tracker_by_name
    from sam2_ros.evaluation.vos import VosEvaluator, report

    sequences = open_sequences(args.root, _sequence_names(args.sequences))
    evaluator = VosEvaluator(
        lambda: tracker_by_name(args.model, args.checkpoint, args.device), args.prompt, args.out, _progress_line()
    )
    results = []
    for number, sequence in enumerate(sequences, 1):
        result = evaluator.evaluate(sequence)
        results.append(result)
        print(f"[{number}/{len(sequences)}] {_row(result)}", flush=True)
    settings = {
        "model": args.model,
        "checkpoint": None if args.checkpoint is None else str(args.checkpoint),
        "prompt": args.prompt,
        "root": str(args.root),
    }
    summary = report(results, settings)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps({key: value for key, value in summary.items() if key != "sequences"}))
    return 0


def _row(result: SequenceResult) -> str:
    scores = "not scored"
    if result.score is not None:
        scores = f"J {result.score.region:.3f}  F {result.score.boundary:.3f}  J&F {result.score.mean:.3f}"
    return f"{result.name:<20} {scores}  {result.frame_count} frames, {result.fps:.1f} fps"


def _sequence_names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    separated = Path(text).read_text().split() if text.endswith(".txt") else text.split(",")
    names = [name.strip() for name in separated if name.strip()]
    if not names:
        raise ValueError(f"--sequences {text!r} names no sequence; leave it out for all")
    return names


def _progress_line() -> Callable[[str, int, int, float], None] | None:
    """A line on a terminal that is written over; nothing where the output is a file, which has a line per sequence."""
    if not sys.stderr.isatty():
        return None

    def show(name: str, done: int, total: int, fps: float) -> None:
        print(f"\r{name} {done}/{total}, {fps:.1f} fps \x1b[K", end="\r" if done == total else "", file=sys.stderr)
        sys.stderr.flush()

    return show
