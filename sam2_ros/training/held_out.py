"""The photographs that a run never sees, as a folder to evaluate on."""

from __future__ import annotations

from pathlib import Path

from sam2_ros.data.files.photo_folders import PhotoFolder, split_folder
from sam2_ros.data.files.sequences import LabelledImage, VideoSequence
from sam2_ros.training.config import TrainConfig


def held_out_images(folder: PhotoFolder) -> tuple[LabelledImage, ...]:
    """The held-out photographs of one folder, named ``<folder>/<photograph>``; FileNotFoundError without any."""
    name, photos = Path(folder.root).name, split_folder(folder).held_out
    masks = {index: {0: photo.mask} for index, photo in enumerate(photos)}
    together = VideoSequence(name, tuple(photo.image for photo in photos), masks)
    return tuple(LabelledImage(f"{name}/{photo.name}", together, index) for index, photo in enumerate(photos))


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
    held_out_of_run(config)  # raises if there is none
    photos = [photo for root in config.photo_roots for photo in split_folder(root).held_out]
    names = [photo.image.name for photo in photos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected every photograph to have a name of its own, got twice: {', '.join(twice[:4])}")
    for kind, paths in (("images", [p.image for p in photos]), ("masks", [p.mask for p in photos])):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / kind / path.name
            if link.is_symlink():
                link.unlink()
            link.symlink_to(path.resolve())
    return len(photos)
