"""Folders of photographs with index masks: what is in them, and which photographs training never sees."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from sam2_ros.data.files.images import IMAGE_SUFFIXES, is_hidden
from sam2_ros.regular_files import check_regular_file

_COUNTED = re.compile(r"(?P<source>.+)_(?P<number>\d{1,6})")  # longer numbers are ids, whose order says nothing
_COUNTED_TOGETHER = 10
_UPLOADED = re.compile(r"/(\d+)_[0-9a-f]+(?:_\w)?\.\w+$")
_LARGEST_BYTES = 256 << 20  # of sources.json
_UPLOADED_TOGETHER = 10_000  # a range of Flickr's photo numbers: at most two minutes of uploads


@dataclass(frozen=True)
class PhotoFolder:
    """A folder with ``images/NAME.jpg`` and ``masks/NAME.png``, and how training draws from it."""

    root: str
    weight: float = 1.0  # share of draws, beside the other folders'
    held_out_every: int = 0  # about one scene in this many is kept for evaluation; 0 = none
    one_scene: tuple[str, ...] = ()  # sources (names up to the last "_") whose pictures all show one scene


@dataclass(frozen=True)
class PhotoFile:
    """One photograph and its mask on disk."""

    image: Path
    mask: Path

    @property
    def name(self) -> str:
        return self.image.stem


@dataclass(frozen=True)
class SplitFolder:
    """The photographs of one folder, in order of name."""

    training: tuple[PhotoFile, ...]
    held_out: tuple[PhotoFile, ...]


def list_photos(root: Path) -> tuple[PhotoFile, ...]:
    """Every image of ``root/images`` that has a mask in ``root/masks``, in order of name.

    Raises:
        FileNotFoundError: there is none.
    """
    masks = {path.stem: path for path in (root / "masks").glob("*.png") if not is_hidden(path)}
    shown = [path for path in (root / "images").glob("*") if not is_hidden(path)]
    images = sorted(path for path in shown if path.suffix.lower() in IMAGE_SUFFIXES)
    photos = tuple(PhotoFile(image, masks[image.stem]) for image in images if image.stem in masks)
    if not photos:
        raise FileNotFoundError(f"expected {root}/images/*.jpg with {root}/masks/<same name>.png, found no pair")
    return photos


def split_folder(folder: PhotoFolder) -> SplitFolder:
    """Split a folder's photographs into training and evaluation; all pictures of a scene are on the same side.

    Raises:
        FileNotFoundError: no photograph is there.
    """
    photos = list_photos(Path(folder.root))
    keys = scene_keys(folder, [photo.name for photo in photos])
    kept = [is_held_out(keys[photo.name], folder.held_out_every) for photo in photos]
    training = tuple(photo for photo, is_kept in zip(photos, kept, strict=True) if not is_kept)
    return SplitFolder(training, tuple(photo for photo, is_kept in zip(photos, kept, strict=True) if is_kept))


def scene_keys(folder: PhotoFolder, names: list[str]) -> dict[str, str]:
    """The scene of each photograph; photographs with the same key were taken together, as far as names tell.

    The first rule that fits decides:

    1. ``SOURCE_...`` of a source named in ``one_scene`` (a turntable, a table under a fixed camera): ``SOURCE``.
    2. ``SOURCE_NUMBER`` with up to six digits is a counter. Published sets are counted in the order of their own
       names, so that frames of one video and pictures of one sitting have neighbouring numbers: each ten are a scene.
    3. The folder's ``sources.json``, where it is a list with ``file`` and ``flickr_url``: pictures whose Flickr
       numbers lie in the same ten thousand were uploaded within a minute or two.
    4. Any other name is a scene of its own.
    """
    uploads = _upload_keys(Path(folder.root) / "sources.json")
    keys = {}
    for name in names:
        counted = _COUNTED.fullmatch(name)
        source = name.rpartition("_")[0]
        if source and source in folder.one_scene:
            keys[name] = source
        elif counted:
            keys[name] = f"{counted['source']}_{int(counted['number']) // _COUNTED_TOGETHER}x"
        else:
            keys[name] = uploads.get(name, name)
    return keys


def is_held_out(scene_key: str, every: int) -> bool:
    """Whether a scene is kept for evaluation: about one in ``every``, chosen by its key alone.

    So a scene stays held out in every run, with any seed, whichever photographs are added or removed. 0 keeps none.
    """
    return every > 0 and zlib.crc32(scene_key.encode()) % every == 0


def _upload_keys(path: Path) -> dict[str, str]:
    """Scene of every photograph whose Flickr address is in ``sources.json``; empty where there is no such file."""
    try:
        check_regular_file(path, _LARGEST_BYTES)
        entries = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    keys = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        upload = _UPLOADED.search(str(entry.get("flickr_url")))
        if upload and "file" in entry:
            keys[Path(entry["file"]).stem] = f"flickr_{int(upload[1]) // _UPLOADED_TOGETHER}"
    return keys
