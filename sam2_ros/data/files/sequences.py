"""Video sequences with masks on disk, in the layouts that users have:

- plain: ``DIR/<sequence>/{images,masks}``
- DAVIS: ``DIR/JPEGImages/480p/<sequence>`` with ``DIR/Annotations/480p/<sequence>``; YouTube-VOS and MOSE are the same
  without ``480p``
- SA-V val and test: ``DIR/JPEGImages_24fps/<video>`` with ``DIR/Annotations_6fps/<video>/<object>/<frame>.png``

Masks may be missing for any frame. An object is known by its value in the masks; SA-V has one folder per object, whose
number + 1 is the value here, because 0 is the background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import list_images, natural_key, read_image_rgb
from sam2_ros.data.files.index_png import read_index_png


class LayoutError(ValueError):
    """A folder that is not laid out as expected; the message says what was looked for and where."""


@dataclass(frozen=True)
class VideoSequence:
    """One video: its frames, and the masks of some or all of them."""

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
        """True where each object has mask files of its own, so that a pixel can belong to more than one."""
        return any(value > 0 for files in self.mask_paths.values() for value in files)

    def is_annotated(self, frame_index: int, value: int) -> bool:
        """Whether it is known where this object is in a frame, be it nowhere."""
        files = self.mask_paths.get(frame_index, {})
        return 0 in files or value in files

    def frame_rgb(self, frame_index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return read_image_rgb(self.frame_paths[frame_index])

    def masks(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Masks of a frame by object value, (H, W) bool each; an object that is not there may be missing or empty.

        KeyError if the frame has no annotation.
        """
        masks: dict[int, NDArray[np.bool_]] = {}
        for value, path in self.mask_paths[frame_index].items():
            stored = read_index_png(path)
            if value == 0:
                masks.update({int(v): stored == v for v in np.unique(stored) if v != 0})
            else:
                masks[value] = stored != 0
        return masks


def open_sequences(root: Path, names: Iterable[str] | None = None) -> tuple[VideoSequence, ...]:
    """The sequences under a folder, in order of name, or those asked for in the order asked.

    Raises:
        LayoutError: no known layout, a sequence that is not there, a mask without its frame.
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
    """Where the folders of frames are, and which layout it is."""
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
    return (path / "images").is_dir() if kind == "plain" else path.is_dir()


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
    """Enter the mask files of a folder into ``masks`` under their frame."""
    for path in sorted(folder.glob("*.png")):
        if path.stem not in frame_of:
            raise LayoutError(f"{path} has no frame of that name; masks are matched to frames by file name")
        masks.setdefault(frame_of[path.stem], {})[value] = path
