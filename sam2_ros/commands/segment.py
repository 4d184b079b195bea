"""``sam2-ros segment``: masks in one image, of prompted objects or of everything."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import add_json_option, add_network_options, network_arguments, print_summary

if TYPE_CHECKING:
    from sam2_ros.data.prompt_text import PromptSpec
    from sam2_ros.tracking.image_predictor import ImagePredictor


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sam2-ros segment``."""
    parser.add_argument("image", type=Path, help="image file")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help='an object, in pixels: "x,y" a click; "x0,y0,x1,y1" a box; "x,y;x,y;-x,y" several clicks, with a minus '
        'for what does not belong; "name:..." gives it a name. Once per object.',
    )
    parser.add_argument("--everything", action="store_true", help="find the things in the image without prompts")
    parser.add_argument(
        "--points-per-side",
        type=int,
        metavar="N",
        help="with --everything: prompt with a grid of N x N points (default: the model's)",
    )
    parser.add_argument(
        "--crop-layers", type=int, default=0, metavar="N", help="with --everything: look again at crops (default: 0)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    parser.add_argument(
        "--masks",
        choices=("png", "rle", "none"),
        default="png",
        help="masks.png with numbers 1.., smaller masks over larger ones, or masks.json in COCO RLE (default: png)",
    )
    add_network_options(parser)
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay.png")
    add_json_option(parser, "write the last line's JSON to FILE, too")


def run(args: argparse.Namespace) -> int:
    """Segment; 0, or 2 if the arguments, the image or a prompt cannot be used."""
    return print_summary("segment", lambda: _segment(args), args.json, (ValueError, OSError))


@dataclass(frozen=True)
class _Thing:
    """One mask of the result."""

    name: str
    score: float  # predicted IoU
    mask: NDArray[np.bool_]  # (H, W)
    more: dict[str, Any]  # for the JSON file


def _segment(args: argparse.Namespace) -> dict[str, Any]:
    from sam2_ros.data.files.images import read_image_rgb
    from sam2_ros.data.prompt_text import names_of, parse_prompt

    specs = [parse_prompt(text) for text in args.prompt]
    if args.everything == bool(specs):
        raise ValueError('say what to segment: either --prompt "x,y" or --prompt "x0,y0,x1,y1", or --everything')
    if not args.everything and (args.points_per_side is not None or args.crop_layers):
        raise ValueError("--points-per-side and --crop-layers belong to --everything")
    names = names_of(specs)
    image_rgb = read_image_rgb(args.image)
    from sam2_ros import load_image_predictor  # after the cheap checks: torch takes seconds to import

    predictor = load_image_predictor(**network_arguments(args))
    started_s = time.perf_counter()
    if args.everything:
        things = _everything(predictor, image_rgb, args.points_per_side, args.crop_layers)
    else:
        things = _prompted(predictor, image_rgb, specs, names)
    seconds = time.perf_counter() - started_s
    return {
        "image": str(args.image),
        "model": predictor.model.config.name,
        "masks_found": len(things),
        "scores": [round(thing.score, 4) for thing in things],
        "areas_px": [int(thing.mask.sum()) for thing in things],
        "seconds": round(seconds, 2),
        **_write(args, image_rgb, things),
    }


def _prompted(
    predictor: ImagePredictor, image_rgb: NDArray[np.uint8], specs: list[PromptSpec], names: list[str]
) -> list[_Thing]:
    """One mask per prompt."""
    from sam2_ros.tracking.prompts import clipping_note, fit_to_image, make_prompt

    prompts = [make_prompt(spec.points, spec.labels, spec.box) for spec in specs]
    for name, prompt in zip(names, prompts, strict=True):
        if note := clipping_note(prompt, fit_to_image(prompt, *image_rgb.shape[:2])):
            print(f"sam2-ros segment: {name}: {note}", file=sys.stderr)
    predictor.set_image(image_rgb)
    return [
        _Thing(name, float(found.scores[0]), found.masks[0], {})
        for name, found in zip(names, predictor.predict_best(prompts), strict=True)
    ]


def _everything(
    predictor: ImagePredictor, image_rgb: NDArray[np.uint8], points_per_side: int | None, crop_layers: int
) -> list[_Thing]:
    from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator, settings_for

    settings = replace(settings_for(predictor.model.config.name), crop_n_layers=crop_layers)
    if points_per_side is not None:
        settings = replace(settings, points_per_side=points_per_side)

    generator = AutomaticMaskGenerator(predictor.model, settings)
    with Progress("point") as progress:
        found = generator.generate(image_rgb, lambda points: progress("", points.done, points.total))
    return [
        _Thing(
            f"thing{number}",
            each.predicted_iou,
            each.mask,
            {"stability_score": round(each.stability_score, 4), "point_xy": each.point_xy, "crop_xyxy": each.crop_xyxy},
        )
        for number, each in enumerate(found, 1)
    ]


def _write(args: argparse.Namespace, image_rgb: NDArray[np.uint8], things: list[_Thing]) -> dict[str, str]:
    """Write the requested files; their paths by their name in the summary."""
    from sam2_ros.data.files.images import write_image_rgb
    from sam2_ros.data.files.masks import write_index_png

    written: dict[str, str] = {}
    numbers_hw = np.zeros(image_rgb.shape[:2], np.uint16)
    for number, thing in sorted(enumerate(things, 1), key=lambda pair: -int(pair[1].mask.sum())):
        numbers_hw[thing.mask] = number
    if args.masks == "png":
        write_index_png(args.out / "masks.png", numbers_hw)
        written["masks"] = str(args.out / "masks.png")
    elif args.masks == "rle":
        _write_rle(args.out / "masks.json", args.image, image_rgb, things)
        written["masks"] = str(args.out / "masks.json")
    if not args.no_overlay:
        write_image_rgb(args.out / "overlay.png", _overlay(image_rgb, things, numbers_hw, not args.everything))
        written["overlay"] = str(args.out / "overlay.png")
    return written


def _write_rle(path: Path, image: Path, image_rgb: NDArray[np.uint8], things: list[_Thing]) -> None:
    from sam2_ros.data.files.masks import encode_rle
    from sam2_ros.tracking.transforms import tight_box_xyxy

    masks = [
        {
            "object_id": thing.name,
            "label": number,
            "score": round(thing.score, 4),
            "area_px": int(thing.mask.sum()),
            "box_xyxy": tight_box_xyxy(thing.mask),
            **thing.more,
            "segmentation": encode_rle(thing.mask),
        }
        for number, thing in enumerate(things, 1)
    ]
    header = {"image": image.name, "height": image_rgb.shape[0], "width": image_rgb.shape[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**header, "masks": masks}) + "\n")


def _overlay(
    image_rgb: NDArray[np.uint8], things: list[_Thing], numbers_hw: NDArray[np.uint16], with_tags: bool
) -> NDArray[np.uint8]:
    from sam2_ros.tracking.overlay import draw_overlay, short_name
    from sam2_ros.tracking.transforms import centroid_xy, tight_box_xyxy
    from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

    shown = []
    for number, thing in enumerate(things, 1):
        mask = numbers_hw == number  # the part that smaller masks do not cover
        box, centre = tight_box_xyxy(mask), centroid_xy(mask)
        state = ObjectState.TRACKED if box else ObjectState.LOST
        shown.append(
            TrackedMask(thing.name, number, state, thing.score, thing.score, mask, int(mask.sum()), box, centre)
        )

    def tag(thing: TrackedMask) -> str:
        return f"{short_name(thing)} {thing.score:.2f}" + ("" if thing.box_xyxy else " covered")  # nothing is tracked

    return draw_overlay(image_rgb, FrameResult(0, tuple(shown), numbers_hw, 0.0), tag=tag if with_tags else None)
