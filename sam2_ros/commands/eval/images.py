"""``sam2-ros eval images``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sam2_ros.commands.eval.options import add_model_options, add_sequences_option, model_settings, sequence_names
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

DESCRIPTION = (
    "Click each instance of at least 1024 px in its middle, then in the middle of what is wrong, and give the IoU "
    "after every click, at the image's size. The model's own score chooses between masks."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        help="folder with images/NAME.jpg and masks/NAME.png, whose values are the instances (8 or 16 bit); or with "
        "such folders, as for sequences",
    )
    parser.add_argument("--clicks", type=int, default=5, metavar="N", help="per instance (default: 5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th image (default: all)")
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="columns image,group: scores for each group of images as well; an image may have several rows",
    )
    add_sequences_option(parser)
    add_model_options(parser, 'the floor "disc"', with_memory=False)


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write the JSON."""
    from sam2_ros.data.files.sequences import open_labelled_images
    from sam2_ros.evaluation.images import (
        check_groups,
        evaluate_images,
        image_predictor_by_name,
        image_report,
        read_groups,
    )

    images = open_labelled_images(args.root, args.every, sequence_names(args.sequences))
    groups = None if args.groups is None else read_groups(args.groups)
    if groups is not None:
        check_groups(images, groups)  # before the long work, not after it
    predictor = image_predictor_by_name(**network_arguments(args))
    with Progress("image") as progress:
        results = evaluate_images(
            predictor,
            images,
            args.clicks,
            lambda done, total, instances: progress(f"{instances} instances", done, total),
        )
    settings = {**model_settings(args), "clicks": args.clicks, "root": str(args.root), "every": args.every}
    summary = image_report(results, images, settings, groups)
    for name, row in summary.get("groups", {}).items():
        print(f"{name:<20} {_ious(row['miou'])}  {row['n_instances']} instances in {row['n_images']} images")
    print(f"{'mean IoU':<20} {_ious(summary['miou'])}  {len(results)} instances in {len(images)} images")
    report_summary(summary, args.json, left_out="instances")


def _ious(values: list[float] | None) -> str:
    return "  ".join(f"{value:.3f}" for value in values) if values is not None else "no instance"
