"""``sam2-ros eval presence``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_ros.commands.eval.options import add_model_options, model_settings
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

if TYPE_CHECKING:
    from sam2_ros.data.clips.photos import PhotoLibrary
    from sam2_ros.data.files.photo_folders import PhotoFolder
    from sam2_ros.evaluation.presence import PresenceCounts, PresenceScene

DESCRIPTION = (
    "Follow objects that are hidden, leave, or are gone after a cut, and count the frames in which the tracker's state "
    "is wrong about them; and give negative clicks where the masks include too much."
)
PHOTO_FOLDERS = ("coco_permissive", "everyday")
HELD_OUT_EVERY = 4
NUM_CLIPS = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        metavar="DIR",
        help=f"folder with videos/ (the four real clips) and with photographs in {' and '.join(PHOTO_FOLDERS)}, of "
        f"which one scene in {HELD_OUT_EVERY} is used (default: %(default)s); what is not there is left out",
    )
    parser.add_argument("--config", type=Path, metavar="YAML", help="a run whose held-out photographs to use instead")
    parser.add_argument(
        "--clips",
        type=int,
        default=NUM_CLIPS,
        metavar="N",
        help="made of held-out photographs, and half as many cuts between such clips (default: %(default)s)",
    )
    add_model_options(parser, "none of the floors, which cannot be clicked")


def run(args: argparse.Namespace) -> None:
    """Measure, print a table, and write the JSON."""
    from sam2_ros.data.clips.photos import PhotoLibrary
    from sam2_ros.evaluation.presence import PresenceCounts, evaluate_presence, presence_report
    from sam2_ros.evaluation.presence_scenes import REAL_CLIPS
    from sam2_ros.evaluation.trackers import FLOORS, tracker_by_name

    if args.clips < 0:
        raise ValueError(f"--clips: expected 0 or more, got {args.clips}")
    if args.model in FLOORS:
        raise ValueError(f"--model {args.model}: a floor takes no clicks; expected a model")
    folders = _photo_folders(args)
    left_out = []
    if missing := [name for name in REAL_CLIPS if not (args.data / "videos" / f"{name}.mp4").is_file()]:
        left_out.append(f"cut: {args.data / 'videos'} has no {', '.join(missing)} (.mp4)")
    if not folders:
        left_out.append(f"synthetic: {args.data} has none of {', '.join(PHOTO_FOLDERS)}, and there is no --config")
    for what in left_out:
        print(f"left out: {what}", file=sys.stderr)
    library = PhotoLibrary.held_out(folders) if folders and args.clips else None
    tracker = tracker_by_name(**network_arguments(args))
    with Progress() as progress:
        table = evaluate_presence(tracker, _scenes(args, library, with_cuts=not missing), progress)
    settings = {**model_settings(args), "data": str(args.data), "clips": args.clips, "left_out": left_out}
    summary = presence_report(table, settings)
    print(f"{'':<14}{'false_tracked':>22}{'false_absent':>22}{'negative_excluded':>22}")
    for kind, counts in table.items():
        print(f"{kind:<14}{_cells(counts)}")
    print(f"{'all':<14}{_cells(sum(table.values(), PresenceCounts()))}")
    report_summary(summary, args.json)


def _photo_folders(args: argparse.Namespace) -> list[PhotoFolder]:
    """The folders with the photographs to make clips of."""
    from sam2_ros.data.files.photo_folders import PhotoFolder
    from sam2_ros.training.config import load_config

    if args.config is not None:
        return list(load_config(args.config).photo_roots)
    paths = [args.data / name for name in PHOTO_FOLDERS]
    return [PhotoFolder(str(path), held_out_every=HELD_OUT_EVERY) for path in paths if path.is_dir()]


def _scenes(args: argparse.Namespace, library: PhotoLibrary | None, with_cuts: bool) -> Iterator[PresenceScene]:
    from sam2_ros.evaluation.presence_scenes import (
        cut_scenes,
        hidden_ball_scenes,
        plain_scenes,
        synthetic_cut_scenes,
        synthetic_scenes,
    )

    yield from hidden_ball_scenes()
    yield from plain_scenes()
    if with_cuts:
        yield from cut_scenes(args.data / "videos")
    if library is not None:
        yield from synthetic_scenes(library, args.clips)
        yield from synthetic_cut_scenes(library, args.clips // 2)


def _cells(counts: PresenceCounts) -> str:
    def cell(share: float | None, total: int) -> str:
        return f"{'-' if share is None else f'{share:.1%} of {total}':>22}"

    return (
        cell(counts.false_tracked, counts.without)
        + cell(counts.false_absent, counts.shown)
        + cell(counts.negative_excluded, counts.clicks)
    )
