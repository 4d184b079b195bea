"""A library of photographs that are drawn by a test, not read from files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam2_ros.data.clips.photos import Photo, PhotoLibrary


class MemoryPhotos(PhotoLibrary):
    """Draws each photograph as often as the others."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        self.photos = list(photos)

    def __len__(self) -> int:
        return len(self.photos)

    def draw(self, rng: np.random.Generator, *, with_instances: bool = False) -> Photo:
        usable = [photo for photo in self.photos if photo.instances or not with_instances]
        return usable[int(rng.integers(len(usable)))]
