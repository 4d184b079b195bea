"""A camera for benchmarks, as a process: the demo's camera, showing a few scaled images of its scene over and over.

Nothing is rendered while it runs, whatever the size; its parameter ``rate_hz`` may change at any time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from rclpy.utilities import remove_ros_args

from sam2_ros.demo.camera import WAITING_RATE_HZ, run
from sam2_ros.demo.stream import Size, StreamFrame, StreamInfo, parse_size
from sam2_ros.demo.tabletop.scene import Tabletop

START_TIMEOUT_S = 3600.0  # it shows its first image until then; a large model takes a while to be tried
RENDERED_FRAMES = 24
RENDERED_WIDTH_PX = 640


class LoopedScene:
    """The rendered tabletop, scaled to a size, forward and back without an end. Rendered once, when it is made."""

    def __init__(self, size: Size) -> None:
        scene = _scene_for(size)
        rendered = [scene.render(index).image_rgb for index in range(RENDERED_FRAMES)]
        wanted = (size.width_px, size.height_px)
        self.images_rgb = [np.ascontiguousarray(cv2.resize(image, wanted)) for image in rendered]  # (H, W, 3) each
        self.info = StreamInfo("tabletop, looped", None, False, None)

    def image_rgb(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3), the same every so many frames; never a jump."""
        return self.images_rgb[there_and_back(index, len(self.images_rgb))]

    def __iter__(self) -> Iterator[StreamFrame]:
        index = 0
        while True:
            yield StreamFrame(index, self.image_rgb(index), None)
            index += 1


def there_and_back(index: int, count: int) -> int:
    """0, 1, ... count - 1, count - 2, ... 0, 1, ..."""
    phase = index % max(2 * (count - 1), 1)
    return min(phase, 2 * (count - 1) - phase)


def _scene_for(size: Size) -> Tabletop:
    """The scene in this size's proportions, but no larger than takes a moment to render."""
    width_px = min(size.width_px, RENDERED_WIDTH_PX)
    return Tabletop(width_px=width_px, height_px=round(size.height_px * width_px / size.width_px))


def scene_clicks(size: Size) -> tuple[Point, ...]:
    """A click on each thing of the scene's first image, in 0..1 of its width and height."""
    scene = _scene_for(size)
    height_px, width_px = scene.render(0).image_rgb.shape[:2]
    return tuple(Point(x=click.x_px / width_px, y=click.y_px / height_px) for click in scene.click_points(0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default=Size(640, 480), help="of the images, default 640x480")
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])

    def make_stream() -> Any:
        return LoopedScene(args.size)

    return run(make_stream, sys.argv, rate_hz=WAITING_RATE_HZ, start_timeout_s=START_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
