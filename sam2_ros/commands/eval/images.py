"""``sam2-ros eval images``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sam2_ros.commands.eval.options import (
    LeftOut,
    add_model_options,
    add_sequences_option,
    model_settings,
    sequence_names,
)
from sam2_ros.commands.progress import Progress
from sam2_ros.commands.shared import network_arguments, report_summary

DESCRIPTION = (
    "Click each instance of at least 1024 px in its middle, then in the middle of the largest error, and give the IoU "
    "after every click, at the image's size. The model's own score chooses between masks."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="of a training run: the photographs that it holds out, with scores for each folder",
    )
    what.add_argument(
        "--root",
        type=Path,
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
    from sam2_ros.training.config import load_config
    from sam2_ros.training.held_out import held_out_of_run

    groups = None if args.groups is None else read_groups(args.groups)
    if args.config is not None:
        if args.sequences is not None:
            raise ValueError("--sequences: goes with --root; a run's photographs have none")
        if args.every < 1:
            raise ValueError(f"--every: expected 1 or more, got {args.every}")
        images = held_out_of_run(load_config(args.config))[:: args.every]
        groups = groups or {image.name: (image.name.partition("/")[0],) for image in images}
    else:
        images = open_labelled_images(args.root, args.every, sequence_names(args.sequences))
    if groups is not None:
        check_groups(images, groups)  # before the long work, not after it
    predictor, left_out = image_predictor_by_name(**network_arguments(args)), LeftOut()
    with Progress("image") as progress:
        results = evaluate_images(
            predictor,
            images,
            args.clicks,
            lambda done, total, instances: progress(f"{instances} instances", done, total),
            left_out.unless_read,
        )
    left_out.check_that_not_all(len(images))
    images = tuple(image for image in images if image.name not in left_out.reasons)
    settings = {
        **model_settings(args),
        "clicks": args.clicks,
        "root": str(args.root or args.config),
        "every": args.every,
        **left_out.for_summary,
    }
    summary = image_report(results, images, settings, groups)
    for name, row in summary.get("groups", {}).items():
        print(f"{name:<20} {_ious(row['miou'])}  {row['n_instances']} instances in {row['n_images']} images")
    print(f"{'mean IoU':<20} {_ious(summary['miou'])}  {len(results)} instances in {len(images)} images")
    report_summary(summary, args.json, left_out="instances")


def _ious(values: list[float] | None) -> str:
    return "  ".join(f"{value:.3f}" for value in values) if values is not None else "no instance"
