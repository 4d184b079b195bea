"""What several commands have in common: options that choose the network, and the summary as the last line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def add_subcommands(parser: argparse.ArgumentParser, kind: str, modules: Mapping[str, tuple[ModuleType, str]]) -> None:
    """Add the commands below a command, such as the protocols of ``sam2-ros eval``.

    Args:
        parser: of the command.
        kind: what they are, such as "protocol"; ``args.run_<kind>`` is then the ``run`` of the chosen module.
        modules: by name, each with its summary; a module has ``DESCRIPTION``, ``configure`` and ``run``.
    """
    commands = parser.add_subparsers(dest=kind, required=True, metavar=kind.upper())
    for name, (module, summary) in modules.items():
        command = commands.add_parser(name, help=summary, description=module.DESCRIPTION)
        module.configure(command)
        command.set_defaults(**{f"run_{kind}": module.run})


def add_network_options(parser: argparse.ArgumentParser, floors: str = "") -> None:
    """Add the options that select a network and how it runs; ``floors`` describes other values of --model."""
    name = f"name of a model, or {floors}" if floors else "name of a model"
    parser.add_argument("--model", help=f"{name} (default: the one the checkpoint is for, else nano)")
    parser.add_argument("--checkpoint", type=Path, help="weights to use in place of the package's own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: cpu)")
    parser.add_argument(
        "--precision",
        default="auto",
        help="auto, float32 or bfloat16, of the heavy parts (default: auto, what is fast with nearly the same masks)",
    )
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the model's input (default: its own)")
    parser.add_argument(
        "--encoder-engine",
        default="auto",
        metavar="NAME",
        help="of the image encoder: auto, torch, onnxruntime or openvino (default: auto, the fastest installed)",
    )


def add_memory_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that reduce the memory a tracker attends to; docs/speed.md measures cost and benefit."""
    parser.add_argument(
        "--memory-pooling", type=int, default=1, metavar="N", help="attend to N x N memory tokens as one (default: 1)"
    )
    parser.add_argument(
        "--recent-memories",
        type=int,
        metavar="N",
        help="spatial memories of earlier frames to attend to (default: the model's)",
    )


def add_zoom_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--zoom``; docs/speed.md measures cost and benefit."""
    parser.add_argument(
        "--zoom",
        action="store_true",
        help="look for one or two objects in a window round each one's last mask, not in the whole image",
    )


RULE_NAMES = ("memory_selection", "crowd_suppression", "lookalike_doubt", "scene_changes")


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add the rules beyond SAM 2; docs/tracking.md has what they bring."""
    parser.add_argument(
        "--memory-selection",
        choices=("auto", "recent", "confident", "distractor"),
        default="auto",
        help="which frames memories are made of: those just before, as SAM 2 does; those in which the object was "
        "surely seen; or some further apart, and those that told it from something similar (default: auto, the last "
        "for nano, the first for all others)",
    )
    parser.add_argument(
        "--crowd-suppression", action="store_true", help="of two objects with nearly the same mask one loses it"
    )
    parser.add_argument(
        "--lookalike-doubt",
        action="store_true",
        help="two look-alikes that met or were away keep their identities by how they moved, or are in doubt",
    )
    parser.add_argument(
        "--scene-changes", action="store_true", help="notice cuts and covered cameras; no memory reaches across a cut"
    )


def network_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The values of ``add_network_options``, and of the options of trackers if present, for ``load_tracker``."""
    names = ("model", "checkpoint", "device", "precision", "image_size", "encoder_engine")
    arguments: dict[str, Any] = {name: getattr(args, name) for name in names}
    if "memory_pooling" in args:
        from sam2_ros.model.config import Approximations

        arguments["approximations"] = Approximations(args.memory_pooling, args.recent_memories)
    arguments |= {name: getattr(args, name) for name in ("zoom", *RULE_NAMES) if name in args}
    return arguments


def add_json_option(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--json``, whose value is validated before the work starts."""
    parser.add_argument("--json", type=_new_file, metavar="FILE", help=help_text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file to write, got the folder {text}")
    return path


def report_summary(summary: Mapping[str, Any], path: Path | None, left_out: str = "") -> None:
    """Print a summary as one line of JSON, without the key ``left_out``, and write all of it to ``path`` if given."""
    try:  # do both even if one fails: a full disk or a closed pipe must not lose the result of hours
        print(json.dumps({key: value for key, value in summary.items() if key != left_out}), flush=True)
    finally:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(summary, indent=2) + "\n")


def print_summary(
    name: str, make: Callable[[], dict[str, Any]], path: Path | None, errors: tuple[type[Exception], ...]
) -> int:
    """Print the result of ``make`` as one line of JSON, and write it to ``path`` if given.

    Args:
        name: of the command, for messages.
        make: does the command's work.
        path: a file for the summary, or None.
        errors: exceptions for bad input, reported in one line with exit status 2.

    Returns:
        The exit status.
    """
    try:
        report_summary(make(), path)
    except errors as error:
        print(f"sam2-ros {name}: {error}", file=sys.stderr)
        return 2
    return 0
