"""``sam2-ros export``: the network as ONNX files, checked against PyTorch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_memory_options, print_summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--model", help="name of a model (default: the one the checkpoint is for, else nano)")
    parser.add_argument("--checkpoint", type=Path, help="weights to use in place of the package's own")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the model's input (default: its own)")
    parser.add_argument("--weights", default="embedded", help="embedded, or random for a try")
    add_memory_options(parser)
    parser.add_argument(
        "--conditioning-frames",
        type=int,
        default=1,
        metavar="N",
        help="slots for conditioning frames per object (default: 1)",
    )
    parser.add_argument(
        "--check-frames",
        type=int,
        default=24,
        metavar="N",
        help="track objects through this many images with ONNX Runtime and compare (default: 24; 0: do not)",
    )


def run(args: argparse.Namespace) -> int:
    """Write, check, and print the JSON as the last line."""
    agrees: list[bool] = []

    def make() -> dict[str, Any]:
        from sam2_ros.export.check import check_export
        from sam2_ros.export.onnx_files import export_onnx
        from sam2_ros.model.config import Approximations
        from sam2_ros.tracking.loading import load_network

        if args.check_frames < 0:
            raise ValueError(f"--check-frames: expected 0 or more, got {args.check_frames}")
        network = load_network(
            args.model,
            args.checkpoint,
            weights=args.weights,
            image_size=args.image_size,
            precision="float32",
            approximations=Approximations(args.memory_pooling, args.recent_memories),
        )
        written = export_onnx(network, args.out, args.conditioning_frames, progress)
        summary: dict[str, Any] = {"model": network.config.name, "files": [str(path) for path in written]}
        if args.check_frames:
            agreement = check_export(network, args.out, args.check_frames, progress)
            agrees.append(agreement.is_good)
            summary |= {
                "frames": args.check_frames,
                "worst_logit_difference": agreement.worst_logit,
                "min_iou": agreement.min_iou,
            }
        return summary

    with Progress() as progress:
        status = print_summary("export", make, None, (ValueError, ImportError, OSError))
    if status == 0 and not all(agrees):
        print("sam2-ros export: the files give other masks than PyTorch; do not use them", file=sys.stderr)
        return 1
    return status
