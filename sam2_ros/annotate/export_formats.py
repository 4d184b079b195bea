"""The layouts that a project is exported in: SA-V, DAVIS, COCO of videos, and YOLO.

Every writer gets an empty folder, the sequences, and the names of the classes, and returns its part of the summary of
the data set. Frames are the project's JPEG files, copied.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import Masklet, MaskletFrame
from sam2_ros.annotate.polygons import polygon_of_mask
from sam2_ros.annotate.recordings import Recording
from sam2_ros.data.files.masks import encode_rle, write_index_png
from sam2_ros.data.files.sequences import SAV_FRAMES_PER_ANNOTATION

UNNAMED_CLASS = "object"  # of masklets without a class, where the format wants one
_SAV_FPS = 24.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Piece:
    """A sequence of the data set: a recording, or a part of one."""

    name: str
    split: str  # "train", "val", or "" without a split
    recording: Recording
    frames: range  # of the recording
    masklets: Mapping[int, Masklet]  # by object number from 1; frames counted from 0 in this sequence

    @property
    def annotated(self) -> tuple[int, ...]:
        """Frames that some masklet has, ascending."""
        return tuple(sorted({index for masklet in self.masklets.values() for index in masklet.frames}))

    def visible(self, index: int) -> dict[int, MaskletFrame]:
        """The objects that a frame shows, by number."""
        found = {number: masklet.frames.get(index) for number, masklet in self.masklets.items()}
        return {number: frame for number, frame in found.items() if frame is not None and frame.visible}

    def copy_frame(self, index: int, path: Path) -> None:
        """Write the JPEG file of a frame there; a missing folder is created."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.recording.frame_path(self.frames[index]), path)


def write_sav(out: Path, pieces: Sequence[Piece], _classes: Sequence[str], progress: Progress) -> dict[str, Any]:
    """SA-V: ``JPEGImages_24fps`` and ``Annotations_6fps`` as in its val set, and ``<video>_manual.json`` as in train.

    The project's frame i is SA-V's frame 4 i, of which every fourth is annotated.
    """
    for piece in pieces:
        for index in range(len(piece.frames)):
            name = f"{index * SAV_FRAMES_PER_ANNOTATION:05d}"
            piece.copy_frame(index, out / "JPEGImages_24fps" / piece.name / f"{name}.jpg")
            for number, masklet in piece.masklets.items():
                if (frame := masklet.frames.get(index)) is not None:
                    folder = out / "Annotations_6fps" / piece.name / f"{number - 1:03d}"
                    write_index_png(folder / f"{name}.png", frame.mask().astype(np.uint8) * 255)
            progress(piece.name, index + 1, len(piece.frames))
        (out / f"{piece.name}_manual.json").write_text(json.dumps(sav_annotation(piece)))
    _write_split(out, pieces)
    return {"annotated_frames": sum(len(piece.annotated) for piece in pieces)}


def sav_annotation(piece: Piece) -> dict[str, Any]:
    """The annotation of a video as SA-V's training set has it; absent and not annotated are both an empty mask."""
    height, width = piece.recording.info.size_hw
    empty = encode_rle(np.zeros((height, width), np.bool_))
    masklets = list(piece.masklets.values())
    codes = [
        [masklet.frames[i].rle if i in masklet.frames else empty for masklet in masklets]
        for i in range(len(piece.frames))
    ]
    areas = [[int(f.mask().sum()) for f in masklet.frames.values() if f.visible] for masklet in masklets]
    mean_areas = [float(np.mean(each)) for each in areas]
    count = (len(piece.frames) - 1) * SAV_FRAMES_PER_ANNOTATION + 1
    return {
        "video_id": piece.name,
        "video_duration": count / _SAV_FPS,
        "video_frame_count": float(count),
        "video_height": float(height),
        "video_width": float(width),
        "video_resolution": float(height * width),
        "video_environment": "",
        "video_split": piece.split or "train",
        "masklet": codes,
        "masklet_id": list(range(len(masklets))),
        "masklet_size_rel": [area / (height * width) for area in mean_areas],
        "masklet_size_abs": mean_areas,
        "masklet_first_appeared_frame": [float(min(i for i, f in m.frames.items() if f.visible)) for m in masklets],
        "masklet_frame_count": [len(masklet.frames) for masklet in masklets],
        "masklet_edited_frame_count": [sum(f.source.by_hand for f in m.frames.values()) for m in masklets],
        "masklet_type": "manual",
        "masklet_num": len(masklets),
    }


def write_davis(out: Path, pieces: Sequence[Piece], _classes: Sequence[str], progress: Progress) -> dict[str, Any]:
    """DAVIS 2017, MOSE, YouTube-VOS: ``JPEGImages/<sequence>`` and ``Annotations/<sequence>``, one index PNG a frame.

    A pixel has one object: where masks overlap, that of the smallest.
    """
    overlapping_px = 0
    for piece in pieces:
        annotated = set(piece.annotated)
        for index in range(len(piece.frames)):
            piece.copy_frame(index, out / "JPEGImages" / piece.name / f"{index:05d}.jpg")
            if index in annotated:
                masks = {number: frame.mask() for number, frame in piece.visible(index).items()}
                values, lost = index_image(masks, piece.recording.info.size_hw)
                overlapping_px += lost
                write_index_png(out / "Annotations" / piece.name / f"{index:05d}.png", values)
            progress(piece.name, index + 1, len(piece.frames))
    _write_split(out / "ImageSets", pieces)
    return {"annotated_frames": sum(len(piece.annotated) for piece in pieces), "overlapping_px": overlapping_px}


def index_image(masks: Mapping[int, NDArray[np.bool_]], size_hw: tuple[int, int]) -> tuple[NDArray[np.uint16], int]:
    """(H, W) object numbers, smaller masks over larger ones, and how many pixels of masks are covered by others."""
    values = np.zeros(size_hw, np.uint16)
    for number in sorted(masks, key=lambda n: -int(masks[n].sum())):
        values[masks[number]] = number
    return values, sum(int((mask & (values != number)).sum()) for number, mask in masks.items())


def write_coco(out: Path, pieces: Sequence[Piece], classes: Sequence[str], progress: Progress) -> dict[str, Any]:
    """COCO with videos: ``images/<sequence>/000000.jpg`` and ``annotations/instances.json``, or one file a split.

    Images have ``video_id`` and ``frame_index``; annotations have RLE masks and ``track_id``. Only annotated frames.
    """
    categories = {name: number for number, name in enumerate(class_names(pieces, classes), 1)}
    count = 0
    for split in sorted({piece.split for piece in pieces}):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        videos = []
        for video_id, piece in enumerate((each for each in pieces if each.split == split), 1):
            height, width = piece.recording.info.size_hw
            videos.append({"id": video_id, "name": piece.name, "height": height, "width": width})
            for index in piece.annotated:
                name = f"{piece.name}/{index:06d}.jpg"
                piece.copy_frame(index, out / "images" / name)
                image = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
                images.append({**image, "video_id": video_id, "frame_index": index})
                for number, frame in piece.visible(index).items():
                    category = categories[piece.masklets[number].class_name or UNNAMED_CLASS]
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": len(images),
                            "video_id": video_id,
                            "category_id": category,
                            "track_id": number,
                            "iscrowd": 0,
                            **_coco_shape(frame),
                        }
                    )
                progress(piece.name, index + 1, len(piece.frames))
        values = {
            "info": {"description": "exported by sam2_ros"},
            "videos": videos,
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
        }
        path = out / "annotations" / f"{split or 'instances'}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
        count += len(images)
    return {"annotated_frames": count, "classes": list(categories)}


def _coco_shape(frame: MaskletFrame) -> dict[str, Any]:
    ys, xs = np.nonzero(frame.mask())
    x0, y0 = int(xs.min()), int(ys.min())
    box_xywh = [x0, y0, int(xs.max()) + 1 - x0, int(ys.max()) + 1 - y0]
    return {"segmentation": frame.rle, "area": len(xs), "bbox": box_xywh}


def write_yolo(out: Path, pieces: Sequence[Piece], classes: Sequence[str], progress: Progress) -> dict[str, Any]:
    """YOLO segmentation: ``images/train``, ``labels/train`` (and ``val``), ``data.yaml``. Only annotated frames.

    A label is one polygon; see ``polygons`` for what that does to masks of several parts. Lines are in the order of the
    object numbers.
    """
    names = class_names(pieces, classes)
    for piece in pieces:
        height, width = piece.recording.info.size_hw
        for index in piece.annotated:
            stem, split = f"{piece.name}_{index:06d}", piece.split or "train"
            piece.copy_frame(index, out / "images" / split / f"{stem}.jpg")
            lines = []
            for number, frame in piece.visible(index).items():
                polygon = polygon_of_mask(frame.mask()) / (width, height)
                place = names.index(piece.masklets[number].class_name or UNNAMED_CLASS)
                lines.append(" ".join([str(place), *(f"{value:.6f}" for value in polygon.ravel())]))
            label = out / "labels" / split / f"{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(f"{line}\n" for line in lines))
            progress(piece.name, index + 1, len(piece.frames))
    val = "val" if any(piece.split == "val" for piece in pieces) else "train"
    described = {"train": "images/train", "val": f"images/{val}", "names": dict(enumerate(names))}
    (out / "data.yaml").write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    return {"annotated_frames": sum(len(piece.annotated) for piece in pieces), "classes": names}


def class_names(pieces: Sequence[Piece], classes: Sequence[str]) -> list[str]:
    """The project's classes, and one for masklets without a class if there are such."""
    unnamed = any(not masklet.class_name for piece in pieces for masklet in piece.masklets.values())
    return [*classes, *([UNNAMED_CLASS] if unnamed and UNNAMED_CLASS not in classes else [])]


def _write_split(folder: Path, pieces: Sequence[Piece]) -> None:
    """``train.txt`` and ``val.txt``, which ``eval vos --sequences`` takes; nothing without a split."""
    for split in sorted({piece.split for piece in pieces} - {""}):
        folder.mkdir(exist_ok=True)
        (folder / f"{split}.txt").write_text("".join(f"{piece.name}\n" for piece in pieces if piece.split == split))


WRITERS = {"sav": write_sav, "davis": write_davis, "coco": write_coco, "yolo": write_yolo}
