"""COCO and YOLO data sets of video frames as sources: those of ``dataset export``, and others with identities.

Both formats are lists of images. They become recordings where the images say which video they are of: COCO's by
``video_id`` (as in YouTube-VIS and TAO), ours of YOLO by the ``masklets.json`` beside it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import Masklet, ProjectError
from sam2_ros.annotate.polygons import mask_of_polygon
from sam2_ros.annotate.sidecar import FILE_NAME, AnnotatedFrame, Sidecar
from sam2_ros.annotate.sources import Kept, Source, SourceFrame
from sam2_ros.annotate.storage import damage_named, read_json
from sam2_ros.data.files.masks import decode_rle


@dataclass(frozen=True)
class LabelledFile:
    """One image, and how to read its masks."""

    path: Path
    labels: Any  # COCO: its annotations; YOLO: the path of its label file


class LabelledImagesSource(Source):
    """The images of one video of such a data set."""

    def __init__(self, root: Path, name: str, files: Mapping[int, LabelledFile], sidecar: Sidecar, kind: str) -> None:
        super().__init__(root, name)
        self.kind, self._files, self._sidecar = kind, files, sidecar

    def frames(self) -> Iterator[SourceFrame]:
        """In order of their numbers."""
        for index in sorted(self._files):
            yield from self._of_file(index, self._files[index].path)

    def masklets(self, kept: Kept) -> list[Masklet]:
        """By track id (COCO), or by the order of the lines (YOLO)."""
        visible = self._sidecar.visible_objects(self.name)
        read = self._coco_masks if self.kind == "coco" else self._yolo_masks
        frames = (AnnotatedFrame(n, i, read(i, visible.get(i, []), kept.size_hw)) for n, i in enumerate(kept.indices))
        return self._sidecar.masklets(self.name, frames, False)

    def details(self) -> Mapping[str, Any]:
        """Of the recording that it was exported from."""
        return self._sidecar.info(self.name)

    def _coco_masks(self, index: int, _visible: list[int], size_hw: tuple[int, int]) -> dict[int, NDArray[np.bool_]]:
        masks: dict[int, NDArray[np.bool_]] = {}
        for each in self._files[index].labels:
            code = each["segmentation"]
            if isinstance(code, dict):
                mask = decode_rle(code)  # type: ignore[arg-type]
            else:
                mask = np.zeros(size_hw, np.bool_)
                for polygon in code:
                    mask |= mask_of_polygon(np.array(polygon, np.float64).reshape(-1, 2), size_hw)
            masks[int(each["track_id"])] = mask
        return masks

    def _yolo_masks(self, index: int, visible: list[int], size_hw: tuple[int, int]) -> dict[int, NDArray[np.bool_]]:
        path: Path = self._files[index].labels
        lines = path.read_text().split("\n") if path.is_file() else []
        rows = [line.split() for line in lines if line.strip()]
        if len(rows) != len(visible):
            raise ProjectError(f"{path}: expected {len(visible)} objects, as {FILE_NAME} says, got {len(rows)}")
        scale = np.array([size_hw[1], size_hw[0]], np.float64)
        return {
            number: mask_of_polygon(np.array(row[1:], np.float64).reshape(-1, 2) * scale, size_hw)
            for number, row in zip(visible, rows, strict=True)
        }


def open_coco(root: Path) -> list[LabelledImagesSource]:
    """A source a video of ``root/annotations/*.json`` with ``root/images``; none where that is no COCO data set.

    Raises:
        ProjectError: its images do not say of which video they are, or its annotations of which object.
    """
    sidecar = Sidecar.read(root)
    sources = []
    for path in sorted((root / "annotations").glob("*.json")):
        values = read_json(path)
        if not isinstance(values, dict) or not {"images", "annotations"} <= set(values):
            continue
        with damage_named(f"{path}: expected COCO's images and annotations"):
            sources += _coco_videos(root, path, values, sidecar)
    return sources


def _coco_videos(root: Path, path: Path, values: Any, sidecar: Sidecar) -> list[LabelledImagesSource]:
    """The videos of one annotation file."""
    annotations: dict[int, list[Any]] = defaultdict(list)
    for each in values["annotations"]:
        annotations[each["image_id"]].append(each)
    if any("video_id" not in image for image in values["images"]) or any(
        "track_id" not in each for each in values["annotations"]
    ):
        raise ProjectError(
            f"{path}: expected images with video_id and annotations with track_id, as videos have them; single "
            "images make no masklets: open their folder instead"
        )
    names = {video["id"]: str(video.get("name", video["id"])) for video in values.get("videos", [])}
    files: dict[str, dict[int, LabelledFile]] = defaultdict(dict)
    for image in values["images"]:
        name = names.get(image["video_id"], str(image["video_id"]))
        number = int(image.get("frame_index", len(files[name])))
        files[name][number] = LabelledFile(_inside(root / "images", image["file_name"]), annotations[image["id"]])
    return [LabelledImagesSource(root, name, found, sidecar, "coco") for name, found in files.items()]


def _inside(folder: Path, name: str) -> Path:
    """A file in a folder; ProjectError where its name leads out of it."""
    inside = Path(os.path.normpath(name))  # links are followed: data sets are often made of them
    if inside.is_absolute() or inside.parts[:1] == ("..",):
        raise ProjectError(f"{name!r} leads out of {folder}")
    return folder / inside


def open_yolo(root: Path) -> list[LabelledImagesSource]:
    """A source a recording of a YOLO data set that ``dataset export`` wrote; none where there is no ``data.yaml``.

    Raises:
        ProjectError: without ``masklets.json`` nobody knows which lines are one object.
    """
    if not (root / "data.yaml").is_file() or not (root / "labels").is_dir():
        return []
    sidecar = Sidecar.read(root)
    if not sidecar.sequences:
        raise ProjectError(f"{root}: expected {FILE_NAME} beside data.yaml: YOLO's labels alone have no identities")
    files: dict[str, dict[int, LabelledFile]] = defaultdict(dict)
    for path in sorted((root / "images").rglob("*.jpg")):
        name, _, number = path.stem.rpartition("_")
        if not name or not number.isdecimal():
            raise ProjectError(f"{path}: expected a name such as kitchen_000012, as `dataset export` writes them")
        label = root / "labels" / path.parent.relative_to(root / "images") / f"{path.stem}.txt"
        files[name][int(number)] = LabelledFile(path, label)
    return [LabelledImagesSource(root, name, found, sidecar, "yolo") for name, found in files.items()]
