"""The photographs that a run never sees, as a folder to evaluate on."""

from __future__ import annotations

from pathlib import Path

from sam2_ros.data.files.photo_folders import split_folder
from sam2_ros.training.config import TrainConfig


def export_held_out(config: TrainConfig, folder: Path) -> int:
    """Link the held-out photographs of all roots into ``folder/{images,masks}``; returns how many there are.

    Raises:
        ValueError: the config holds none out, or two roots have photographs of the same name.
        FileExistsError: the folder has other files of these names.
    """
    split = [split_folder(root) for root in config.photo_roots]
    held_out = [photo for part in split for photo in part.held_out]
    if not held_out:
        total = sum(len(part.training) for part in split)
        raise ValueError(f"no photograph is held out of {total}; expected held_out_every in an entry of photo_roots")
    names = [photo.image.name for photo in held_out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected every photograph to have a name of its own, got twice: {', '.join(twice[:4])}")
    for kind, paths in (("images", [p.image for p in held_out]), ("masks", [p.mask for p in held_out])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / kind / path.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path.resolve())
    return len(held_out)
