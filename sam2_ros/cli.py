"""The ``sam2-ros`` command: a table of subcommands, each a module that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2_ros.heap import keep_heap

_COMMANDS = {
    "demo": "track a rendered tabletop or a video through real ROS 2 processes",
    "track": "track objects in a video, a camera, a folder of images or a recording, without ROS",
    "segment": "segment one image, from prompts or everything in it",
    "annotate": "annotate the recordings of a project in a browser: clicks, propagation, verification",
    "eval": "measure accuracy on masked videos",
    "train": "train a model",
    "bench": "measure how fast a model is here, beside the official code",
    "models": "list all models: size, cost, licence, and whether the weights are here",
    "dataset": "make a project of recordings, label it, and export a data set",
    "export": "write a model as ONNX files, for other runtimes",
}


def version() -> str:
    """The package's version: as installed, or as package.xml of the checkout or workspace has it."""
    from importlib import metadata

    from sam2_ros.resources import share_path

    try:
        return metadata.version("sam2_ros")
    except metadata.PackageNotFoundError:  # colcon installs no metadata
        found = re.search(r"<version>(.+?)</version>", share_path("package.xml").read_text(encoding="utf-8"))
        return found[1] if found else "unknown"


def join_prompts(arguments: Sequence[str]) -> list[str]:
    """``--prompt -5,10`` as ``--prompt=-5,10``: argparse takes a text that begins with a minus for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--prompt" and re.match(r"-[\d.]", word):
            joined[-1] = f"--prompt={word}"
        else:
            joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    arguments = join_prompts(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="sam2-ros", description="Find, hold and follow anything in camera images.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if arguments[:1] == [name]:  # only the chosen command's module is imported
            module = importlib.import_module(f"sam2_ros.commands.{name}")
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    for name, value in vars(args).items():
        if isinstance(value, Path):  # a shell expands the ~ of `--out ~/x`, and not that of `--out=~/x`
            setattr(args, name, value.expanduser())
    keep_heap()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
