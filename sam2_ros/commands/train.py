"""``sam2-ros train``: train a model as a YAML file says."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from sam2_ros.commands.progress import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="YAML file of the run, see config/train_nano.yaml")
    parser.add_argument(
        "--measure",
        nargs="?",
        const="weights.pt",
        metavar="WEIGHTS",
        help="do not train; measure weights in --out (default: weights.pt; or embedded) on held-out photographs and "
        "clips, in about a minute, and append the point to curve.csv there",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="folder for checkpoints and the log; resumes from it")
    what.add_argument(
        "--export-held-out",
        type=Path,
        metavar="DIR",
        help="do not train; link the photographs that this config keeps for evaluation into DIR/images and DIR/masks",
    )


def run(args: argparse.Namespace) -> int:
    from sam2_ros.training.config import load_config
    from sam2_ros.training.curve import measure_run
    from sam2_ros.training.held_out import export_held_out
    from sam2_ros.training.run_state import TrainingFailedError
    from sam2_ros.training.train import train

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        config = load_config(args.config)
    except (ValueError, OSError) as error:
        print(f"sam2-ros train: {error}", file=sys.stderr)
        return 2
    try:
        if args.measure is not None:
            if args.out is None:
                raise ValueError("--measure: expected the run's folder as --out")
            with Progress() as progress:
                point = measure_run(config, args.out, args.measure, progress)
            print(f"step {point.step}, {point.hours:.2f} h:", *(f"{k} {v:.3f}" for k, v in point.scores.items()))
        elif args.export_held_out is not None:
            print(f"{export_held_out(config, args.export_held_out)} photographs in {args.export_held_out}")
        else:
            print(train(config, args.out))
    except (ValueError, OSError, TrainingFailedError) as error:  # a folder or weights file that cannot be used
        print(f"sam2-ros train: {error}", file=sys.stderr)
        return 1
    return 0
