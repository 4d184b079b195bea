"""Images and videos with masks on disk. Layouts:

- plain: ``DIR/<sequence>/{images,masks}``; for single images also ``DIR/{images,masks}``
- DAVIS: ``DIR/JPEGImages/480p/<sequence>`` with ``DIR/Annotations/480p/<sequence>``; YouTube-VOS and MOSE are the same
  without ``480p``
- SA-V val and test: ``DIR/JPEGImages_24fps/<video>`` with ``DIR/Annotations_6fps/<video>/<object>/<frame>.png``
- SA-V train: ``<id>.mp4`` with ``<id>_manual.json`` or ``<id>_auto.json``, anywhere under a folder;
  ``masklet[i][k]`` of the JSON is the RLE of object k in video frame 4 i

Masks may be missing for any frame. An object is identified by its value in the masks; in SA-V val and test it is the
number of its folder + 1, because 0 is the background.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import is_hidden, list_images, natural_key, read_image_rgb
from sam2_ros.data.files.masks import decode_rle, read_index_png
from sam2_ros.data.files.video import SourceError, read_frames

SAV_FRAMES_PER_ANNOTATION = 4  # 24 frames and 6 annotations per second


class LayoutError(ValueError):
    """A folder without a known layout; the message says what was expected and where."""


@dataclass(frozen=True)
class VideoSequence:
    """One video: its frames, and masks for some or all of them."""

    name: str
    frame_paths: tuple[Path, ...]
    # Frame index -> its mask files. Key 0: an index image of all objects. Key v > 0: a file of object v alone.
    mask_paths: Mapping[int, Mapping[int, Path]]

    def __len__(self) -> int:
        return len(self.frame_paths)

    @property
    def annotated_frames(self) -> tuple[int, ...]:
        """Indices of the frames that have masks, ascending."""
        return tuple(sorted(self.mask_paths))

    @property
    def objects_may_overlap(self) -> bool:
        """Whether each object has its own mask files, so that masks can overlap."""
        return any(value > 0 for files in self.mask_paths.values() for value in files)

    def is_annotated(self, frame_index: int, value: int) -> bool:
        """Whether the frame is annotated for this object, even if the object is absent."""
        files = self.mask_paths.get(frame_index, {})
        return 0 in files or value in files

    def frame_rgb(self, frame_index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image_rgb(self.frame_paths[frame_index])

    def masks(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Masks of a frame by object value, (H, W) bool; an absent object is missing or has an empty mask.

        Raises:
            KeyError: the frame has no annotation.
        """
        masks: dict[int, NDArray[np.bool_]] = {}
        for value, path in self.mask_paths[frame_index].items():
            stored = read_index_png(path)
            if value == 0:
                masks.update({int(v): stored == v for v in np.unique(stored) if v != 0})
            else:
                masks[value] = stored != 0
        return masks

    def every(self, step: int) -> VideoSequence:
        """The video at a lower rate: frames 0, ``step``, 2 ``step``, ..., numbered anew, with their masks.

        Raises:
            ValueError: a step below 1.
        """
        if step < 1:
            raise ValueError(f"every: expected 1 or more frames, got {step}")
        masks = {index // step: files for index, files in self.mask_paths.items() if index % step == 0}
        return VideoSequence(self.name, self.frame_paths[::step], masks)


def open_sequences(root: Path, names: Iterable[str] | None = None) -> tuple[VideoSequence, ...]:
    """The sequences under a folder in order of name, or those with the given names in the given order.

    Raises:
        LayoutError: no known layout, an unknown sequence, or a mask without its frame.
    """
    root = Path(root)
    image_root, kind = _find_layout(root)
    available = sorted((p.name for p in image_root.iterdir() if _is_sequence(p, kind)), key=natural_key)
    wanted = list(names) if names is not None else available
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise LayoutError(f"no sequence {', '.join(unknown)} in {image_root}; it has: {', '.join(available) or 'none'}")
    if not wanted:
        raise LayoutError(f"no sequence in {image_root}")
    return tuple(_open_one(root, image_root, name, kind) for name in wanted)


def _find_layout(root: Path) -> tuple[Path, str]:
    """The folder of the frame folders, and the kind of layout."""
    if not root.is_dir():
        raise LayoutError(f"expected a folder of sequences, there is none at {root}")
    if (root / "JPEGImages_24fps").is_dir():
        return root / "JPEGImages_24fps", "sav"
    for images in (root / "JPEGImages" / "480p", root / "JPEGImages"):
        if images.is_dir():
            return images, "davis"
    if any(_is_sequence(path, "plain") for path in root.iterdir()):
        return root, "plain"
    raise LayoutError(
        f"{root} has no layout known here; expected <sequence>/images and <sequence>/masks, or JPEGImages with "
        "Annotations (DAVIS, YouTube-VOS), or JPEGImages_24fps with Annotations_6fps (SA-V)"
    )


def _is_sequence(path: Path, kind: str) -> bool:
    return not is_hidden(path) and ((path / "images").is_dir() if kind == "plain" else path.is_dir())


def _open_one(root: Path, image_root: Path, name: str, kind: str) -> VideoSequence:
    if kind == "plain":
        frames, mask_folder = list_images(image_root / name / "images"), image_root / name / "masks"
    elif kind == "davis":
        mask_folder = root / "Annotations" / image_root.relative_to(root / "JPEGImages") / name
        frames = list_images(image_root / name)
    else:
        frames, mask_folder = list_images(image_root / name), root / "Annotations_6fps" / name
    frame_of = {path.stem: index for index, path in enumerate(frames)}
    masks: dict[int, dict[int, Path]] = {}
    if kind == "sav":
        for folder in sorted(p for p in mask_folder.glob("*") if p.is_dir() and p.name.isdecimal()):
            _collect(folder, int(folder.name) + 1, frame_of, masks)
    else:
        _collect(mask_folder, 0, frame_of, masks)
    return VideoSequence(name, frames, masks)


def _collect(folder: Path, value: int, frame_of: Mapping[str, int], masks: dict[int, dict[int, Path]]) -> None:
    """Add the mask files of a folder to ``masks``, by frame."""
    for path in sorted(path for path in folder.glob("*.png") if not is_hidden(path)):
        if path.stem not in frame_of:
            raise LayoutError(f"{path} has no frame of that name; masks are matched to frames by file name")
        masks.setdefault(frame_of[path.stem], {})[value] = path


@dataclass(frozen=True)
class LabelledImage:
    """One image whose instances are known."""

    name: str  # file name without its suffix, behind the name of its sequence if there is one: "bear/00005"
    sequence: VideoSequence
    frame_index: int

    def read(self) -> tuple[NDArray[np.uint8], dict[int, NDArray[np.bool_]]]:
        """The image, (H, W, 3) uint8 RGB, and the masks of its instances by value, (H, W) bool.

        Raises:
            ValueError: image and mask differ in size, or one of them cannot be read.
        """
        image_rgb, masks = self.sequence.frame_rgb(self.frame_index), self.sequence.masks(self.frame_index)
        for mask in masks.values():
            if mask.shape != image_rgb.shape[:2]:
                raise ValueError(
                    f"{self.name}: expected masks of the image's size {image_rgb.shape[:2]}, got {mask.shape}"
                )
        return image_rgb, masks


def open_labelled_images(
    root: Path, every: int = 1, sequences: Sequence[str] | None = None
) -> tuple[LabelledImage, ...]:
    """The images under a folder that have masks.

    Args:
        root: a folder with ``images`` and ``masks``, or one that ``open_sequences`` takes.
        every: take every n-th annotated image of each sequence; 1 takes all.
        sequences: names of the sequences to take; None takes all.

    Raises:
        LayoutError: no known layout, no image with a mask, an unknown sequence, or a mask without its image.
    """
    if every < 1:
        raise ValueError(f"every: expected 1 or more, got {every}")
    root = Path(root)
    if (root / "images").is_dir():
        if sequences is not None:
            raise LayoutError(f"{root} holds images, not sequences; leave out {', '.join(sequences)}")
        videos: tuple[VideoSequence, ...] = (_open_one(root, root, "", "plain"),)
    else:
        videos = open_sequences(root, sequences)
    found = tuple(
        LabelledImage("/".join(filter(None, (video.name, video.frame_paths[index].stem))), video, index)
        for video in videos
        for index in video.annotated_frames[::every]
    )
    if not found:
        raise LayoutError(f"no image with a mask in {root}; expected images/NAME.jpg with masks/NAME.png")
    return found


class SavVideo:
    """One video of SA-V's training set. Its JSON is read on demand, because the set has tens of thousands of them."""

    def __init__(self, video_path: Path, annotation_path: Path) -> None:
        self.name = video_path.stem
        self._video_path, self._annotation_path = video_path, annotation_path

    def __len__(self) -> int:
        """Number of annotated frames."""
        return len(_masklets(self._annotation_path))

    def masks(self, index: int) -> dict[int, NDArray[np.bool_]]:
        """(H, W) masks by object number; empty where an object is absent."""
        return {number: decode_rle(code) for number, code in enumerate(_masklets(self._annotation_path)[index])}

    def frames_rgb(self, start: int, count: int) -> list[NDArray[np.uint8]]:
        """``count`` annotated frames from ``start`` on, (H, W, 3) uint8 RGB each.

        Raises:
            ValueError: the video cannot be opened or ends too early.
        """
        numbers = range(
            start * SAV_FRAMES_PER_ANNOTATION, (start + count) * SAV_FRAMES_PER_ANNOTATION, SAV_FRAMES_PER_ANNOTATION
        )
        try:
            frames = read_frames(self._video_path, numbers)
        except SourceError as error:
            raise ValueError(str(error)) from error
        if len(frames) < count:
            raise ValueError(
                f"{self._video_path}: expected frames {start * SAV_FRAMES_PER_ANNOTATION} to "
                f"{(start + count - 1) * SAV_FRAMES_PER_ANNOTATION}, of which every fourth is annotated, "
                f"got {len(frames)} of {count}; is it the video of {self._annotation_path.name}?"
            )
        return frames


def find_sav_videos(root: Path) -> list[SavVideo]:
    """Every annotated video under a folder in order of name; manual annotations take precedence over automatic ones."""
    videos = []
    for path in sorted(path for path in root.rglob("*.mp4") if not is_hidden(path)):
        for kind in ("manual", "auto"):
            annotation = path.with_name(f"{path.stem}_{kind}.json")
            if annotation.is_file():
                videos.append(SavVideo(path, annotation))
                break
    return videos


@lru_cache(maxsize=64)
def _masklets(path: Path) -> list[list[Any]]:
    """The RLEs of a file by annotated frame and object.

    Raises:
        ValueError: not an SA-V annotation.
    """
    try:
        masklets = json.loads(path.read_text(encoding="utf-8"))["masklet"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: expected an SA-V annotation, JSON with the key masklet ({error})") from error
    if not isinstance(masklets, list):
        raise ValueError(f"{path}: expected masklet to be a list by annotated frame, got {type(masklets).__name__}")
    return masklets
