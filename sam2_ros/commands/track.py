"""``sam2-ros track``: follow objects through a video, a camera, a folder of images or a ROS recording, without ROS."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import (
    add_json_option,
    add_memory_options,
    add_network_options,
    add_rule_options,
    add_zoom_option,
    network_arguments,
    print_summary,
)

if TYPE_CHECKING:
    from sam2_ros.commands.track_bag import BagSource
    from sam2_ros.commands.track_output import TrackOutput
    from sam2_ros.data.files.video import FrameSource
    from sam2_ros.tracking.tracker import Tracker
    from sam2_ros.tracking.types import FrameResult


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros track``."""
    parser.add_argument(
        "source", help="video file, folder of images, camera (0, 1, ... or rtsp://...), or rosbag2 recording"
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help='an object in the first frame, in pixels: "x,y" a click; "x0,y0,x1,y1" a box; "x,y;x,y;-x,y" several '
        'clicks, with a minus for what does not belong; "name:..." gives it a name. Once per object.',
    )
    parser.add_argument(
        "--prompt-mask", type=Path, metavar="PNG", help="masks in the first frame: one object per value in an index PNG"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    parser.add_argument(
        "--image-topic", default="", metavar="NAME", help="image topic of a recording (default: its only one)"
    )
    parser.add_argument(
        "--bag-out", type=Path, metavar="PATH", help="recording of what the node would publish (default: OUT/bag)"
    )
    parser.add_argument(
        "--masks",
        choices=("png", "rle", "none"),
        default="png",
        help="masks/00000.png ... with the objects' labels, or masks.json in COCO RLE (default: png)",
    )
    add_network_options(parser)
    add_memory_options(parser)
    add_zoom_option(parser)
    add_rule_options(parser)
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after so many frames")
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay.mp4")
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Track; 0, or 2 if the arguments, the source or a prompt cannot be used."""
    from sam2_ros.data.files.video import SourceError

    summary: dict[str, Any] = {}

    def track() -> dict[str, Any]:
        summary.update(_track(args))
        return summary

    status = print_summary("track", track, args.json, (ValueError, OSError, SourceError))
    return 2 if "ended_early" in summary else status


@dataclass
class _Tally:
    """Statistics so far."""

    inference_ms: list[float] = field(default_factory=list)
    visible_frames: dict[str, int] = field(default_factory=dict)
    started_s: float = field(default_factory=time.perf_counter)

    def add(self, result: FrameResult) -> None:
        self.inference_ms.append(result.inference_ms)
        for tracked in result:
            seen = self.visible_frames.setdefault(tracked.object_id, 0)
            self.visible_frames[tracked.object_id] = seen + (tracked.area_px > 0)

    @property
    def fps(self) -> float:
        """Frames per second since the first one was asked for, with all that is read and written."""
        return len(self.inference_ms) / max(time.perf_counter() - self.started_s, 1e-9)


def _track(args: argparse.Namespace) -> dict[str, Any]:
    from sam2_ros.data.files.video import FrameSource, SourceError
    from sam2_ros.data.prompt_text import parse_prompt

    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f"--max-frames must be 1 or more, got {args.max_frames}")
    specs = [parse_prompt(text) for text in args.prompt]
    if not specs and args.prompt_mask is None:
        raise ValueError('nothing to track; say what with --prompt "x,y", --prompt "x0,y0,x1,y1" or --prompt-mask')
    started_s = time.perf_counter()
    with ExitStack() as stack:
        source = _open(args)
        stack.callback(source.close)
        from sam2_ros import load_tracker  # after the cheap checks: torch takes seconds to import

        settings: dict[str, Any] = {} if isinstance(source, FrameSource) else source.tracker_settings
        tracker = load_tracker(**network_arguments(args), **settings)
        _add_prompts(tracker, specs, args.prompt_mask)
        outputs = _outputs(args, source)
        for output in outputs.values():
            stack.callback(output.close)
        tally = _Tally()
        ended_early = ""
        try:
            with suppress(KeyboardInterrupt), Progress("frame") as progress:  # Ctrl-C ends a camera
                _loop(source, tracker, list(outputs.values()), args.max_frames, tally, progress)
        except SourceError as error:  # a camera that was unplugged: the results until then are kept
            if not tally.inference_ms:
                raise
            ended_early = str(error)
            print(f"sam2-ros track: {error}", file=sys.stderr)
    if not tally.inference_ms:
        raise ValueError(f"{args.source}: no frame was tracked")
    return {
        "source": source.info.name,
        "model": tracker.model_name,
        "frames": len(tally.inference_ms),
        "objects": len(tally.visible_frames),
        "fps": round(tally.fps, 2),
        "latency_ms_p50": round(float(np.percentile(tally.inference_ms, 50)), 2),
        "latency_ms_p95": round(float(np.percentile(tally.inference_ms, 95)), 2),
        "seconds": round(time.perf_counter() - started_s, 2),
        "visible_frames": tally.visible_frames,
        **{name: str(output.path) for name, output in outputs.items()},
        **({"left_out": list(source.left_out.values())} if source.left_out else {}),
        **({"ended_early": ended_early} if ended_early else {}),
    }


def _open(args: argparse.Namespace) -> FrameSource | BagSource:
    from sam2_ros.data.files.rosbag import is_bag
    from sam2_ros.data.files.video import open_source

    if is_bag(args.source):
        from sam2_ros.commands.track_bag import BagSource

        return BagSource(args.source, args.image_topic)
    if args.image_topic or args.bag_out:
        raise ValueError(f"--image-topic and --bag-out are for rosbag2 recordings; {args.source} is none")
    return open_source(args.source)


def _loop(
    source: FrameSource | BagSource,
    tracker: Tracker,
    outputs: list[TrackOutput],
    max_frames: int | None,
    tally: _Tally,
    progress: Progress,
) -> None:
    from sam2_ros.tracking.concurrency import prefetch_images

    known = source.info.frame_count
    total = min(known, max_frames) if known and max_frames else max_frames or known
    position = -1  # of the image among all of the source, which numbers the masks
    for count, image in enumerate(prefetch_images(tracker, source), 1):
        position += 1
        while position in source.left_out:
            position += 1
        result = replace(tracker.step(image), frame_index=position)
        tally.add(result)
        if result.rejected:
            raise ValueError("; ".join(f"prompt of {object_id}: {why}" for object_id, why in result.rejected))
        for object_id, note in result.notes:
            progress.clear()
            print(f"sam2-ros track: {object_id}: {note}", file=sys.stderr)
        for output in outputs:
            output.write(image.image_rgb, result, tally.fps)
        progress("", count, total)
        if count == max_frames:
            return


def _add_prompts(tracker: Tracker, specs: list[Any], mask_path: Path | None) -> None:
    """Add the prompts of the command line, then those of a mask; unnamed objects are named by position."""
    from sam2_ros.data.files.masks import read_index_png
    from sam2_ros.data.prompt_text import check_new, names_of

    names = names_of(specs)
    for object_id, spec in zip(names, specs, strict=True):
        points = np.array(spec.points, np.float32) if spec.points else None
        labels = np.array(spec.labels, np.int32) if spec.points else None
        box = None if spec.box is None else np.array(spec.box, np.float32)
        tracker.add_prompt(object_id, points=points, labels=labels, box=box)
    if mask_path is None:
        return
    stored = read_index_png(mask_path)
    values = [int(value) for value in np.unique(stored) if value != 0]
    if not values:
        raise ValueError(f"{mask_path} has no object: all its values are 0")
    for value in values:
        object_id = mask_path.stem if len(values) == 1 else f"{mask_path.stem}_{value}"
        check_new(object_id, names)
        tracker.add_prompt(object_id, mask=stored == value)


def _outputs(args: argparse.Namespace, source: FrameSource | BagSource) -> dict[str, TrackOutput]:
    """The outputs by their name in the summary."""
    from sam2_ros.commands.track_output import IndexPngOutput, OverlayOutput, RleOutput
    from sam2_ros.data.files.video import FrameSource

    info = source.info
    outputs: dict[str, TrackOutput] = {}
    if not isinstance(source, FrameSource):
        from sam2_ros.commands.track_bag import BagOutput

        outputs["bag"] = BagOutput(args.bag_out or args.out / "bag", source)
    if args.masks == "png":
        outputs["masks"] = IndexPngOutput(args.out / "masks")
    elif args.masks == "rle":
        outputs["masks"] = RleOutput(args.out / "masks.json", info)
    if not args.no_overlay:
        outputs["overlay"] = OverlayOutput(args.out / "overlay.mp4", info)
    return outputs
