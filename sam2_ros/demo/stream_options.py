"""The command-line options that say what a demo's camera shows: the same ones for each of its processes."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from sam2_ros.demo.camera_stream import StreamSpec

MAX_RATE_HZ = 15.0
MIN_SIDE_PX = 48


@dataclass(frozen=True)
class Size:
    """An image's size."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


def parse_size(text: str) -> Size:
    """``"640x480"``. Raises ArgumentTypeError with what was expected."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    size = Size(int(match[1]), int(match[2])) if match else None
    if size is None or min(size.width_px, size.height_px) < MIN_SIDE_PX:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT such as 640x480, {MIN_SIDE_PX} or more each, got {text!r}"
        )
    return size


def positive_rate(text: str) -> float:
    """A rate in Hz."""
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz <= 1000:
        raise argparse.ArgumentTypeError(f"expected a rate of more than 0 and at most 1000 Hz, got {text!r}")
    return rate_hz


def frame_limit(text: str) -> int:
    """A number of frames, 0 for all of them."""
    if not text.isdecimal() or int(text) >= 100_000:
        raise argparse.ArgumentTypeError(f"expected a number of frames, 0 (all) to 99999, got {text!r}")
    return int(text)


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add --source, --frames, --size and --rate-hz."""
    parser.add_argument(
        "--source",
        default="",
        help="a video file, a camera's index or a folder of images; default: the rendered tabletop",
    )
    parser.add_argument(
        "--frames",
        type=frame_limit,
        default=0,
        help="show no more frames than this; default: all (tabletop: 150, a camera in the demo: 300)",
    )
    parser.add_argument(
        "--size", type=parse_size, default=Size(640, 480), help="size of the rendered tabletop, default 640x480"
    )
    parser.add_argument(
        "--rate-hz",
        type=positive_rate,
        help=f"camera frames per second; default: what the node keeps up with, at most {MAX_RATE_HZ:g}",
    )


def stream_spec(args: argparse.Namespace) -> StreamSpec:
    """What the options mean."""
    return StreamSpec(args.source, args.frames, args.size.height_px, args.size.width_px)


def stream_arguments(args: argparse.Namespace) -> list[str]:
    """The options again, for another process."""
    chosen = ["--frames", str(args.frames), "--size", str(args.size)]
    chosen += ["--rate-hz", repr(args.rate_hz)] if args.rate_hz is not None else []
    chosen += ["--source", args.source] if args.source else []
    return chosen
