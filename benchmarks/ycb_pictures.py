"""Draw how `nano` follows the objects of real tabletop scenes (YCB-Video, MIT) after one click on each.

    python benchmarks/ycb_pictures.py --root DIR --out docs/images/ycb.jpg

One row a scene: the first image with its clicks answered, one from the middle and the last. README and the model card
show the picture; nothing in it was chosen but the scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros import load_tracker
from sam2_ros.data.files.sequences import VideoSequence, open_sequences
from sam2_ros.evaluation.prompt_sampling import center_click
from sam2_ros.tracking.overlay import draw_overlay

WIDTH_PX = 480  # of each image in the picture
MIN_AREA_PX = 1024  # of an object that is clicked, as in `eval images`
JPEG_QUALITY = 82


def draw_scene(scene: VideoSequence, checkpoint: Path | None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: three images of a scene side by side."""
    tracker = load_tracker("nano", checkpoint)
    first_masks = scene.masks(0)
    for value, mask in sorted(first_masks.items()):
        if np.count_nonzero(mask) >= MIN_AREA_PX:
            click = center_click(mask)
            tracker.add_prompt(str(value), points=[(click.x, click.y)], labels=[click.label])
    shown, last = [], len(scene) - 1
    for number in range(len(scene)):
        image_rgb = scene.frame_rgb(number)
        result = tracker.step(image_rgb)
        if number in (0, last // 2, last):
            overlay = draw_overlay(image_rgb, result, tag=None)
            height_px = round(WIDTH_PX * overlay.shape[0] / overlay.shape[1])
            shown.append(cv2.resize(overlay, (WIDTH_PX, height_px), interpolation=cv2.INTER_AREA))
    return np.hstack(shown)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of scenes with images/ and masks/")
    parser.add_argument("--scenes", type=lambda text: text.split(","), help="their names (default: all)")
    parser.add_argument("--checkpoint", type=Path, help="other weights than those that the package brings")
    parser.add_argument("--out", type=Path, required=True, metavar="JPEG")
    args = parser.parse_args()
    picture_rgb = np.vstack([draw_scene(scene, args.checkpoint) for scene in open_sequences(args.root, args.scenes)])
    if not cv2.imwrite(str(args.out), picture_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
        parser.error(f"--out {args.out}: expected a file that can be written, with the ending .jpg")


if __name__ == "__main__":
    main()
