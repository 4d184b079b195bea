"""``sam2-ros eval``: accuracy on data with known masks. One module per protocol."""

from __future__ import annotations

import argparse
import logging
import sys

from sam2_ros.commands.eval import engine as eval_engine
from sam2_ros.commands.eval import images as eval_images
from sam2_ros.commands.eval import interactive as eval_interactive
from sam2_ros.commands.eval import limits as eval_limits
from sam2_ros.commands.eval import presence as eval_presence
from sam2_ros.commands.eval import vos as eval_vos
from sam2_ros.commands.shared import add_subcommands

_PROTOCOLS = {
    "vos": (eval_vos, "prompt each object once, follow it to the end of the video"),
    "interactive": (eval_interactive, "correct the tracker as a user would, and count the clicks"),
    "engine": (eval_engine, "make masklets in the three phases of the data engine, and count what they cost"),
    "images": (eval_images, "click objects in single images, once and again"),
    "presence": (eval_presence, "whether the tracker knows that an object is gone, and what a negative click does"),
    "limits": (eval_limits, "shot changes, look-alikes, occlusions and so on, in drawn clips"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros eval``."""
    add_subcommands(parser, "protocol", _PROTOCOLS)


def run(args: argparse.Namespace) -> int:
    """Run the chosen protocol; 0, or 2 for unusable arguments or data."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        args.run_protocol(args)
    except (ValueError, OSError) as error:
        print(f"sam2-ros eval: {error}", file=sys.stderr)
        return 2
    return 0
