"""The ``sam2-ros`` command: a table of subcommands, each a module that is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from sam2_ros.tracking.heap import keep_heap

_COMMANDS = {
    "demo": "track a rendered tabletop or a video through real ROS 2 processes",
    "track": "track objects in a video, a camera, a folder of images or a recording, without ROS",
    "segment": "segment one image, from prompts or everything in it",
    "eval": "measure accuracy on masked videos",
    "train": "train a model",
    "bench": "measure how fast a model is here, beside the official code",
    "export": "write a model as ONNX files, for other runtimes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="sam2-ros", description="Find, hold and follow anything in camera images.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if arguments[:1] == [name]:  # only the chosen command's module is imported
            module = importlib.import_module(f"sam2_ros.commands.{name}")
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    keep_heap()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
