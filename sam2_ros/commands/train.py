"""``sam2-ros train``: train a model as a YAML file says."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="YAML file of the run, see config/train_nano.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log; resumes from it")


def run(args: argparse.Namespace) -> int:
    from sam2_ros.training.config import load_config
    from sam2_ros.training.train import train

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        weights = train(load_config(args.config), args.out)
    except (ValueError, OSError) as error:  # a config, folder or weights file that cannot be used
        print(f"sam2-ros train: {error}", file=sys.stderr)
        return 1
    print(weights)
    return 0
