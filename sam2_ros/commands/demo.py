"""``sam2-ros demo``: a camera, the real node and a client, as separate processes that talk over ROS 2.

The last line on standard output is one JSON object with the result; everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from sam2_ros.commands.processes import ProcessError, Program, free_domain, running
from sam2_ros.data.files.video import open_source
from sam2_ros.data.prompt_text import PromptSyntaxError, parse_prompts
from sam2_ros.demo.stream import TABLETOP_FRAMES, add_stream_options, stream_arguments
from sam2_ros.resources import share_path

# Loading torch, rendering the scene, discovery, and drawing the video at the end.
OVERHEAD_S = 300.0
UNKNOWN_LENGTH_FRAMES = 3000
SLOWEST_RATE_HZ = 0.3  # the lowest that the client chooses
LIVE_FRAMES = 300  # a camera has no end
CAMERA_TOPICS = {"image": "/camera/image_raw", "camera_info": "/camera/camera_info", "depth": "/camera/depth"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_stream_options(parser)
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        type=_prompt,
        help="what to track: x,y (click) or x0,y0,x1,y1 (box) in pixels, one for each object; default: the tabletop's "
        "objects, or the middle of the image",
    )
    parser.add_argument("--model", help="which network to run; default: the one the checkpoint is for, else nano")
    parser.add_argument("--checkpoint", type=Path, help="its weights file; default: those that ship with the package")
    parser.add_argument(
        "--weights",
        choices=("embedded", "random"),
        default="embedded",
        help="random: a dry run whose masks mean nothing",
    )
    parser.add_argument("--zoom", action="store_true", help="look for one or two objects in windows of the image")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for the results, default demo_out")
    parser.add_argument("--domain-id", type=int, help="ROS_DOMAIN_ID, to watch with other tools; default: a free one")
    parser.add_argument("--timeout-s", type=float, help="give up after this long; default: by the number of frames")


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when it went through and the report is printed."""
    try:
        print(json.dumps(_demo(args)), flush=True)
    except (ProcessError, OSError, RuntimeError) as error:
        print(f"sam2-ros demo: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("sam2-ros demo: interrupted", file=sys.stderr, flush=True)
        return 130
    return 0


def _demo(args: argparse.Namespace) -> dict[str, object]:
    if args.source.isdecimal():
        args.frames = args.frames or LIVE_FRAMES
    elif args.source:
        open_source(args.source).close()  # reports a bad source before anything starts
    args.out.mkdir(parents=True, exist_ok=True)
    report = args.out / "report.json"
    report.unlink(missing_ok=True)  # a report of an earlier run must not be taken for this one's
    with contextlib.ExitStack() as held:
        domain = args.domain_id if args.domain_id is not None else held.enter_context(free_domain())
        print(f"three processes in ROS_DOMAIN_ID {domain}: camera, node, client", file=sys.stderr, flush=True)
        group = held.enter_context(running(programs(args), ros_environment(domain)))
        group.wait_for("client", args.timeout_s or default_timeout_s(args))
    return dict(json.loads(report.read_text(encoding="utf-8")))


def programs(args: argparse.Namespace) -> list[Program]:
    """The three processes with their arguments."""
    camera_remaps = [f"{name}:={topic}" for name, topic in CAMERA_TOPICS.items()]
    stream = stream_arguments(args)
    # The camera starts late, because it renders first, and ends early: the node should not warn about that.
    parameters = [f"weights:={args.weights}", "image_timeout_s:=60.0"]
    if args.zoom:
        parameters.append("zoom:=true")
    reported_model = args.model or "nano"
    if args.model is not None:
        parameters.append(f"model:={args.model}")
    if args.checkpoint is not None:
        reported_model = args.model or args.checkpoint.name  # the node infers the model from the checkpoint
        parameters.append(f"checkpoint:={args.checkpoint.absolute()}")
    client = [*stream, "--out", str(args.out), "--model", reported_model, *(f"--prompt={text}" for text in args.prompt)]
    return [
        Program("camera", _ros_program("sam2_ros.demo.camera", stream, camera_remaps), may_end=True),
        Program("node", _ros_program("sam2_ros.node.sam2_node", [], camera_remaps, parameters)),
        Program("client", _ros_program("sam2_ros.demo.client", client, camera_remaps)),
    ]


def _ros_program(
    module: str, options: list[str], remaps: list[str], parameters: list[str] | None = None
) -> tuple[str, ...]:
    ros_options = [part for remap in remaps for part in ("-r", remap)]
    ros_options += [part for parameter in parameters or [] for part in ("-p", parameter)]
    return (sys.executable, "-m", module, *options, "--ros-args", *ros_options)


def ros_environment(domain: int) -> dict[str, str]:
    """The environment for ROS: its own domain, localhost only, with shared memory large enough for images."""
    profile = str(share_path("config/fastdds.xml"))
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,  # Fast DDS 2
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,  # Fast DDS 3
        "PYTHONUNBUFFERED": "1",
    }


def default_timeout_s(args: argparse.Namespace) -> float:
    """Three times as long as the camera runs, plus the overhead."""
    frames = args.frames or (UNKNOWN_LENGTH_FRAMES if args.source else TABLETOP_FRAMES)
    return OVERHEAD_S + 3 * frames / (args.rate_hz or SLOWEST_RATE_HZ)


def _prompt(text: str) -> str:
    """Validate a prompt before the node is started; the client parses it again."""
    try:
        parse_prompts(text)
    except PromptSyntaxError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
