"""The photographs that a run never sees, as a folder to evaluate on."""

from __future__ import annotations

from pathlib import Path

from sam2_ros.data.files.sequences import LabelledImage
from sam2_ros.data.files.photo_folders import PhotoFolder, split_folder
from sam2_ros.training.config import TrainConfig


def held_out_images(folder: PhotoFolder) -> tuple[LabelledImage, ...]:
    """The held-out photographs of one folder, named ``<folder>/<photograph>``; FileNotFoundError without any."""
    name = Path(folder.root).name
    return tuple(LabelledImage(f"{name}/{p.name}", p.image, p.mask) for p in split_folder(folder).held_out)


def held_out_of_run(config: TrainConfig) -> tuple[LabelledImage, ...]:
    """The held-out photographs of all of a run's folders.

    Raises:
        ValueError: none is held out.
    """
    images = tuple(image for folder in config.photo_roots for image in held_out_images(folder))
    if not images:
        raise ValueError("no photograph is held out; expected held_out_every in an entry of photo_roots")
    return images


def export_held_out(config: TrainConfig, folder: Path) -> int:
    """Link the held-out photographs of all roots into ``folder/{images,masks}``; returns how many there are.

    Raises:
        ValueError: the config holds none out, or two roots have photographs of the same name.
        FileExistsError: the folder has other files of these names.
    """
    held_out = held_out_of_run(config)
    names = [image.image_path.name for image in held_out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected every photograph to have a name of its own, got twice: {', '.join(twice[:4])}")
    for kind, paths in (("images", [i.image_path for i in held_out]), ("masks", [i.mask_path for i in held_out])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / kind / path.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path.resolve())
    return len(held_out)
