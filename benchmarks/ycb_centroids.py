"""How far the places we give of objects are from their true poses, on real tabletop scenes with depth (YCB-Video).

    python benchmarks/ycb_centroids.py --root DIR             # the data set's own masks: what the geometry can do
    python benchmarks/ycb_centroids.py --root DIR --tracked   # masks that nano tracks from each scene's first frame

A true pose's origin is the middle of the object's model; depth shows only the surface that faces the camera. So the
difference is taken apart along the viewing direction (from the camera to the true origin): its part along it, the
offset, should be negative by about half of the object's thickness, and is no error. The part across it, the lateral
error, should be near zero while the object is whole in view, and grows with what hides it or lies outside the image.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_ros.data.files.images import read_image_rgb
from sam2_ros.data.files.masks import read_index_png
from sam2_ros.perception.camera import Intrinsics
from sam2_ros.perception.depth import depth_to_metres
from sam2_ros.perception.object_geometry import ObjectGeometry, measure_object

# The classes of YCB-Video by number.
NAMES = (
    *("master_chef_can", "cracker_box", "sugar_box", "tomato_soup_can", "mustard_bottle", "tuna_fish_can"),
    *("pudding_box", "gelatin_box", "potted_meat_can", "banana", "pitcher_base", "bleach_cleanser", "bowl", "mug"),
    *("power_drill", "wood_block", "scissors", "large_marker", "large_clamp", "extra_large_clamp", "foam_brick"),
)
POINTS = ("centroid", "box_center")


@dataclass(frozen=True)
class Difference:
    """Measured less true position [m]."""

    lateral_m: float  # across the viewing direction
    offset_m: float  # along it; negative is nearer to the camera


@dataclass(frozen=True)
class Frame:
    number: str
    truth: dict[int, np.ndarray]  # class -> (3,) true position [m]
    intrinsics: Intrinsics
    factor_depth: float  # units of depth in a metre


def compare(measured: np.ndarray, true: np.ndarray) -> Difference:
    """The difference across and along the direction in which the camera sees the true position."""
    view = true / np.linalg.norm(true)
    difference = measured - true
    along = float(difference @ view)
    return Difference(float(np.linalg.norm(difference - along * view)), along)


def read_frames(scene: Path) -> list[Frame]:
    frames = []
    for number, meta in sorted(json.loads((scene / "meta.json").read_text()).items()):
        k = meta["K"]
        height, width = read_index_png(scene / "masks" / f"{number}.png").shape
        intrinsics = Intrinsics(k[0][0], k[1][1], k[0][2], k[1][2], width, height)
        truth = {cls: np.array(pose)[:, 3] for cls, pose in zip(meta["cls"], meta["poses"], strict=True)}
        frames.append(Frame(number, truth, intrinsics, meta["factor_depth"]))
    return frames


def true_masks(scene: Path, frames: list[Frame]) -> Iterator[dict[int, np.ndarray]]:
    """Of each frame: class -> mask, as annotated."""
    for frame in frames:
        index = read_index_png(scene / "masks" / f"{frame.number}.png")
        yield {cls: index == cls for cls in frame.truth}


def tracked_masks(scene: Path, frames: list[Frame]) -> Iterator[dict[int, np.ndarray]]:
    """Of each frame: class -> mask, tracked from the first frame's annotation."""
    from sam2_ros import load_tracker

    tracker = load_tracker("nano")
    for cls, mask in next(true_masks(scene, frames)).items():
        if mask.any():
            tracker.add_prompt(str(cls), mask=mask)
    for frame in frames:
        result = tracker.step(read_image_rgb(scene / "images" / f"{frame.number}.jpg"))
        yield {int(tracked.object_id): tracked.mask for tracked in result}


def measure_scene(scene: Path, tracked: bool) -> Iterator[tuple[int, np.ndarray, ObjectGeometry | None]]:
    """Class, true position and what we measure, for each object in each frame."""
    frames = read_frames(scene)
    masks_of = tracked_masks if tracked else true_masks
    for frame, masks in zip(frames, masks_of(scene, frames), strict=True):
        depth_m = depth_to_metres(read_index_png(scene / "depth" / f"{frame.number}.png"), 1 / frame.factor_depth)
        for cls, mask in masks.items():
            yield cls, frame.truth[cls], measure_object(mask, depth_m, frame.intrinsics)


def table(root: Path, tracked: bool) -> str:
    scenes = sorted(path.parent for path in root.glob("*/meta.json"))
    if not scenes:
        raise SystemExit(f"expected folders with a meta.json in {root}, found none")
    rows: dict[tuple[str, int], list[tuple[Difference, ...]]] = defaultdict(list)
    missed: dict[tuple[str, int], int] = defaultdict(int)
    for scene in scenes:
        for cls, true, geometry in measure_scene(scene, tracked):
            key = (scene.name, cls)
            if geometry is None:
                missed[key] += 1
            else:
                rows[key].append(tuple(compare(getattr(geometry, point), true) for point in POINTS))
    heads = [f"{point} {part}" for point in POINTS for part in ("lateral", "worst", "offset")]
    lines = [f"| scene | object | {' | '.join(heads)} | frames | without |", "|---" * (len(heads) + 4) + "|"]
    for scene_name, cls in sorted({*rows, *missed}):
        found = rows[scene_name, cls]
        lines.append(_line(scene_name, NAMES[cls - 1], found, missed[scene_name, cls]))
    everything = [differences for found in rows.values() for differences in found]
    lines.append(_line("all", "", everything, sum(missed.values())))
    return "\n".join(lines)


def _line(scene: str, name: str, found: list[tuple[Difference, ...]], missed: int) -> str:
    """One row of the table, in mm: median and largest lateral error, median offset."""
    cells = []
    for differences in zip(*found, strict=True) if found else []:
        lateral = [1000 * difference.lateral_m for difference in differences]
        offset = [1000 * difference.offset_m for difference in differences]
        cells += [f"{np.median(lateral):.0f}", f"{max(lateral):.0f}", f"{np.median(offset):+.0f}"]
    cells = cells or ["-"] * 3 * len(POINTS)
    return f"| {scene} | {name} | {' | '.join(cells)} | {len(found)} | {missed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of scenes: images/ masks/ depth/ meta.json")
    parser.add_argument("--tracked", action="store_true", help="masks tracked by nano instead of the annotated ones")
    arguments = parser.parse_args()
    print("Measured less true position [mm]: median and worst across the view, median along it (- is nearer).\n")
    print(table(arguments.root, arguments.tracked))


if __name__ == "__main__":
    main()
