"""The photographs that a run never sees, as a folder to evaluate on."""

from __future__ import annotations

from pathlib import Path

from sam2_ros.data.clips.photos import is_held_out, photo_pairs
from sam2_ros.training.config import TrainConfig


def export_held_out(config: TrainConfig, folder: Path) -> int:
    """Link the held-out photographs of all roots into ``folder/{images,masks}``; returns how many there are.

    Raises:
        ValueError: the config holds none out, or two roots have photographs of the same name.
        FileExistsError: the folder has other files of these names.
    """
    pairs = [pair for root in config.photo_roots for pair in photo_pairs(Path(root))]
    held_out = [(image, mask) for image, mask in pairs if is_held_out(image.stem, config.held_out_every)]
    if not held_out:
        raise ValueError(f"no photograph is held out: held_out_every is {config.held_out_every}, of {len(pairs)}")
    names = [image.name for image, _ in held_out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected every photograph to have a name of its own, got twice: {', '.join(twice[:4])}")
    for kind, paths in (("images", [i for i, _ in held_out]), ("masks", [m for _, m in held_out])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / kind / path.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path.resolve())
    return len(held_out)
