"""Options that the protocols of ``sam2-ros eval`` share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sam2_ros.commands.shared import (
    RULE_NAMES,
    add_json_option,
    add_memory_options,
    add_network_options,
    add_rule_options,
    add_zoom_option,
)
from sam2_ros.model.config import MODELS


class LeftOut:
    """Data that cannot be measured on: one bad file must not end a run of hours without its summary."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}  # by name

    @contextmanager
    def unless_read(self, name: str) -> Iterator[None]:
        """Read and measure ``name`` within; what its data raise leaves it out, and is said."""
        try:
            yield
        except (ValueError, FileNotFoundError) as error:
            self.reasons[name] = str(error)
            print(f"left out: {name}: {error}", file=sys.stderr)

    def check_that_not_all(self, count: int) -> None:
        """ValueError with the first reason when nothing of ``count`` was measured."""
        if count and len(self.reasons) == count:
            raise ValueError(f"nothing could be measured: {next(iter(self.reasons.values()))}")

    @property
    def for_summary(self) -> dict[str, Any]:
        """What the summary says about it; empty when nothing was left out."""
        return {"left_out": self.reasons} if self.reasons else {}


def add_model_options(parser: argparse.ArgumentParser, floors: str, with_memory: bool = True) -> None:
    """Add the options of the network and ``--json``; ``floors`` describes the floors in the help."""
    add_network_options(parser, floors)
    if with_memory:
        add_memory_options(parser)
        add_zoom_option(parser)
        add_rule_options(parser)
    add_json_option(parser, "write the scores to FILE, too")


def add_sequences_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sequences", help="names, separated by commas, or a text file with one per line (default: all)"
    )


def sequence_names(text: str | None) -> list[str] | None:
    """The value of ``--sequences`` as names; None for all."""
    if text is None:
        return None
    separated = Path(text).read_text().split() if text.endswith(".txt") else text.split(",")
    names = [name.strip() for name in separated if name.strip()]
    if not names:
        raise ValueError(f"--sequences {text!r} names no sequence; leave it out for all")
    return names


def model_label(args: argparse.Namespace) -> str:
    """The model's name in a report; without --model, the name of the checkpoint file."""
    return str(args.model or ("nano" if args.checkpoint is None else args.checkpoint.name))


def model_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The measured model and its settings, for the JSON."""
    checkpoint = None if args.checkpoint is None else str(args.checkpoint)
    settings: dict[str, Any] = {"model": model_label(args), "checkpoint": checkpoint}
    if args.model is not None and args.model not in MODELS:
        return settings  # a floor, which the other options do not affect
    settings["precision"] = args.precision
    others = ("image_size", "encoder_engine", "memory_pooling", "recent_memories", "zoom", *RULE_NAMES)
    return settings | {name: getattr(args, name) for name in others if name in args}
