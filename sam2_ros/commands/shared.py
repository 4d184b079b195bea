"""What several commands have in common: options that choose the network, and the summary as the last line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_network_options(parser: argparse.ArgumentParser, floors: str = "") -> None:
    """Add ``--model``, ``--checkpoint`` and ``--device``; ``floors`` is how the help names other choices of a model."""
    name = f"name of a model, or {floors}" if floors else "name of a model"
    parser.add_argument("--model", help=f"{name} (default: the one the checkpoint is for, else nano)")
    parser.add_argument("--checkpoint", type=Path, help="weights to use in place of the package's own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument(
        "--precision",
        default="auto",
        help="auto, float32 or bfloat16, of the heavy parts (default: auto, what is fast with the same masks)",
    )


def print_summary(
    name: str, make: Callable[[], dict[str, Any]], path: Path | None, errors: tuple[type[Exception], ...]
) -> int:
    """Print what ``make`` returns as one line of JSON, and write it to ``path`` if there is one.

    Args:
        name: of the command, for messages.
        make: does the command's work.
        path: a file for the summary, or None.
        errors: bad input; they are told in one line, with exit status 2.

    Returns:
        The exit status.
    """
    try:
        summary = make()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(summary, indent=2) + "\n")
    except errors as error:
        print(f"sam2-ros {name}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary))
    return 0
