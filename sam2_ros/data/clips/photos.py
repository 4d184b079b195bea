"""Photographs with instance masks, the raw material of the synthetic clips."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import read_image_rgb
from sam2_ros.data.files.masks import read_index_png
from sam2_ros.data.files.photo_folders import PhotoFile, PhotoFolder, split_folder

_log = logging.getLogger(__name__)
MAX_SIDE_PX = 640
MIN_AREA_SHARE = 0.003
MAX_AREA_SHARE = 0.70
MAX_INSTANCES = 255  # the index map is uint8 and 0 is background
_MAX_DRAWS = 100  # of photographs without a usable object, or damaged ones, one after the other


@dataclass(frozen=True)
class Instance:
    """One usable object of a photograph."""

    label: int  # its value in Photo.index_hw
    box_xyxy: tuple[int, int, int, int]  # px, half open
    area_px: int
    touches_edge: bool  # cut by the photograph's edge, so its outline has a straight side


@dataclass(frozen=True)
class Photo:
    """One photograph; instances too small or too large to be objects are background."""

    name: str
    image_hwc: NDArray[np.uint8]  # (H, W, 3) RGB
    index_hw: NDArray[np.uint8]  # (H, W) 0 = background, else Instance.label
    instances: tuple[Instance, ...]

    @property
    def num_bytes(self) -> int:
        """Memory of the two arrays."""
        return self.image_hwc.nbytes + self.index_hw.nbytes


class PhotoLibrary:
    """Photographs of several folders: a folder is drawn by its weight, then one of its photographs, all equally likely.

    Photographs are decoded when they are drawn; the latest stay decoded, as many as fit into ``cache_mb``. Which one is
    drawn depends on the random generator alone, not on the cache.
    """

    def __init__(
        self, roots: Sequence[Sequence[PhotoFile]], weights: Sequence[float] | None = None, cache_mb: float = 256
    ) -> None:
        """Keep the names of the photographs of each root; see from_folders for weights and errors."""
        share = np.ones(len(roots)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(share) != len(roots) or not len(roots) or not (share >= 0).all() or not 0 < share.sum() < np.inf:
            raise ValueError(f"expected one non-negative weight per root ({len(roots)} roots), got {weights}")
        if not all(roots):
            raise ValueError("each root needs at least one photograph to train on; found none (all are held out?)")
        self._roots = tuple(tuple(photos) for photos in roots)
        self._shares = share / share.sum()
        self._decoded: OrderedDict[PhotoFile, Photo] = OrderedDict()
        self._decoded_bytes, self._max_bytes = 0, int(cache_mb * 2**20)
        self._damaged: set[PhotoFile] = set()
        for photos in self._roots:
            self._draw_from(photos, np.random.default_rng(0), with_instances=True)

    @classmethod
    def from_folders(cls, folders: Sequence[PhotoFolder | Path], cache_mb: float = 256) -> PhotoLibrary:
        """The photographs of the folders that training may use.

        Args:
            folders: with images and integer index masks (0 = background), gray or palette; a plain path has the
                defaults of PhotoFolder.
            cache_mb: decoded photographs that are kept, in each process that draws.

        Raises:
            FileNotFoundError: a folder has no photograph.
            ValueError: the weights do not fit, or hardly a photograph of a folder has a usable object.
        """
        entries = [PhotoFolder(str(folder)) if isinstance(folder, Path) else folder for folder in folders]
        roots = [split_folder(entry).training for entry in entries]
        return cls(roots, [entry.weight for entry in entries], cache_mb)

    @classmethod
    def held_out(cls, folders: Sequence[PhotoFolder]) -> PhotoLibrary:
        """The photographs of the folders that are held out for evaluation; folders that hold out none are skipped.

        Raises:
            FileNotFoundError, ValueError: as from_folders.
        """
        splits = [(split_folder(folder).held_out, folder.weight) for folder in folders]
        kept = [(photos, weight) for photos, weight in splits if photos]
        return cls([photos for photos, _ in kept], [weight for _, weight in kept])

    def __len__(self) -> int:
        return sum(len(photos) for photos in self._roots)

    @property
    def decoded_bytes(self) -> int:
        """Memory of the photographs that are kept decoded."""
        return self._decoded_bytes

    def draw(self, rng: np.random.Generator, *, with_instances: bool = False) -> Photo:
        """Draw a photograph; with_instances restricts the draw to photographs that have usable objects.

        Raises:
            ValueError: many draws in a row found none.
        """
        return self._draw_from(
            self._roots[int(rng.choice(len(self._roots), p=self._shares))], rng, with_instances=with_instances
        )

    def _draw_from(self, photos: Sequence[PhotoFile], rng: np.random.Generator, *, with_instances: bool) -> Photo:
        for _ in range(_MAX_DRAWS):
            photo = self._read(photos[int(rng.integers(len(photos)))])
            if photo is not None and (photo.instances or not with_instances):
                return photo
        raise ValueError(
            f"{photos[0].image.parent.parent}: expected photographs with a usable instance ({MIN_AREA_SHARE:.1%} to "
            f"{MAX_AREA_SHARE:.0%} of the picture), found none in {_MAX_DRAWS} draws"
        )

    def _read(self, file: PhotoFile) -> Photo | None:
        """The photograph, decoded now or before; None for a damaged one, which must not end a training run of days."""
        if file in self._damaged:
            return None
        photo = self._decoded.pop(file, None)
        if photo is None:
            try:
                photo = make_photo(file.name, read_image_rgb(file.image), read_index_png(file.mask))
            except (ValueError, OSError) as error:
                self._damaged.add(file)
                _log.warning("%s is left out: %s", file.image, error)
                return None
            self._decoded_bytes += photo.num_bytes
        self._decoded[file] = photo  # the most recently drawn one is the last in the dict
        while self._decoded_bytes > self._max_bytes:
            self._decoded_bytes -= self._decoded.popitem(last=False)[1].num_bytes
        return photo


def make_photo(name: str, image_hwc: NDArray[np.uint8], index_hw: NDArray[np.integer]) -> Photo:
    """Shrink to MAX_SIDE_PX and keep the instances whose area is usable.

    Args:
        name: for messages.
        image_hwc: (H, W, 3) uint8 RGB.
        index_hw: (H, W) integer, 0 = background.

    Raises:
        ValueError: the two differ in size.
    """
    if image_hwc.shape[:2] != index_hw.shape:
        raise ValueError(f"{name}: image is {image_hwc.shape[:2]} but mask is {index_hw.shape}; they must be equal")
    scale = MAX_SIDE_PX / max(index_hw.shape)
    if scale < 1:
        size = (max(1, round(index_hw.shape[1] * scale)), max(1, round(index_hw.shape[0] * scale)))
        image_hwc = cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA)
        index_hw = cv2.resize(index_hw.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    counts = np.bincount(index_hw.ravel())
    share = counts / index_hw.size
    share[0] = 0.0
    usable = np.flatnonzero((share >= MIN_AREA_SHARE) & (share <= MAX_AREA_SHARE))
    usable = usable[np.argsort(-counts[usable], kind="stable")][:MAX_INSTANCES]
    table = np.zeros(len(counts), dtype=np.uint8)
    table[usable] = np.arange(1, len(usable) + 1)
    relabelled_hw = table[index_hw]
    instances = tuple(_describe(relabelled_hw, label) for label in range(1, len(usable) + 1))
    return Photo(name, np.ascontiguousarray(image_hwc), relabelled_hw, instances)


def _describe(index_hw: NDArray[np.uint8], label: int) -> Instance:
    mask_hw = (index_hw == label).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask_hw)
    height, width = index_hw.shape
    touches = x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1
    return Instance(label, (x, y, x + w, y + h), int(cv2.countNonZero(mask_hw)), touches)
