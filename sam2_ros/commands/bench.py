"""``sam2-ros bench``: how fast a model is here, beside the official code where that is installed."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_json_option, add_memory_options, add_zoom_option, print_summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--model", default="nano", help="name of a model (default: nano)")
    parser.add_argument("--objects", type=int, default=1, metavar="N", help="objects at once (default: 1)")
    parser.add_argument("--frames", type=int, default=5, metavar="N", help="timed, after a steady state (default: 5)")
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the model's input (default: its own)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)")
    parser.add_argument("--width", type=int, default=640, help="of the camera image, px (default: 640)")
    parser.add_argument("--height", type=int, default=480, help="of the camera image, px (default: 480)")
    add_memory_options(parser)
    add_zoom_option(parser)
    parser.add_argument(
        "--compile", action="store_true", help="time ours compiled as well, which takes minutes; on a GPU it always is"
    )
    parser.add_argument(
        "--compile-backend",
        default="inductor",
        metavar="NAME",
        help="of torch.compile for ours (default: inductor); eager needs no compiler, and is no faster",
    )
    parser.add_argument(
        "--encoder-engine",
        default="auto",
        metavar="NAME",
        help="of our default: auto, torch, onnxruntime or openvino; all: time every one that is installed",
    )
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="time ours again beside a process with N busy threads"
    )
    parser.add_argument(
        "--busy-frames", type=int, default=60, metavar="N", help="timed beside that process (default: 60)"
    )
    parser.add_argument("--without-official", action="store_true", help="time our own code alone")
    parser.add_argument(
        "--emulated", action="store_true", help="time bfloat16 also where it is emulated, a hundred times slower"
    )
    add_json_option(parser, "write the result to FILE, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="append the rows of the table to FILE")


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and the JSON as the last line."""
    return print_summary("bench", lambda: _measure(args), args.json, (ValueError, ImportError, OSError))


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from sam2_ros.evaluation.compare_latency import Variants, compare_latency
    from sam2_ros.model.config import Approximations

    variants = Variants(
        official=_has_official(args),
        emulated=args.emulated,
        approximations=Approximations(args.memory_pooling, args.recent_memories),
        compiled=args.compile,
        compile_backend=args.compile_backend,
        zoom=args.zoom,
        encoder_engine=args.encoder_engine,
        busy_threads=args.busy,
        busy_frames=args.busy_frames,
    )
    with Progress() as progress:
        comparison = compare_latency(
            model=args.model,
            num_objects=args.objects,
            timed_frames=args.frames,
            image_size=args.image_size,
            device=args.device,
            threads=args.threads,
            size_hw=(args.height, args.width),
            variants=variants,
            progress=progress,
        )
    print(comparison.table())
    if args.csv is not None:
        _append(args.csv, comparison.rows())
    return comparison.summary()


def _has_official(args: argparse.Namespace) -> bool:
    """Whether the official code can take part; says why not."""
    from sam2_ros.evaluation.official import NOT_INSTALLED, import_official_builder
    from sam2_ros.evaluation.official_relatives import environment, family_of

    if args.without_official or args.model == "nano":
        return False
    reason = None
    if (family := family_of(args.model)) is not None:
        try:
            environment(family)
        except ImportError as error:
            reason = str(error)
        if args.objects > 1:
            reason = f"the official code of {family} fails with more than one object"
    elif import_official_builder() is None:
        reason = NOT_INSTALLED
    if reason is not None:
        print(f"sam2-ros bench: {reason}; ours is timed alone", file=sys.stderr)
    return reason is None


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
