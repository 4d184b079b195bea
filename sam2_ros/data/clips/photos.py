"""Photographs with instance masks, the raw material of the synthetic clips."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_SIDE_PX = 640
MIN_AREA_SHARE = 0.003
MAX_AREA_SHARE = 0.70
MAX_INSTANCES = 255  # the index map is uint8 and 0 is background


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


@dataclass(frozen=True)
class _Root:
    """Photographs of one folder, grouped by source so that a large source does not drown the others."""

    groups: tuple[tuple[Photo, ...], ...]


class PhotoLibrary:
    """Photographs of several folders, drawn by folder weight, then source, then photograph."""

    def __init__(self, roots: Sequence[Sequence[Photo]], weights: Sequence[float] | None = None) -> None:
        """Build from one list of photographs per root; see from_folders for the weights."""
        share = np.ones(len(roots)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(share) != len(roots) or not len(roots) or (share < 0).any() or share.sum() <= 0:
            raise ValueError(f"expected one non-negative weight per root ({len(roots)} roots), got {weights}")
        self._roots = tuple(_Root(_by_source(photos)) for photos in roots)
        self._with_objects = tuple(
            _Root(_by_source([photo for photo in photos if photo.instances])) for photos in roots
        )
        for root, with_objects in zip(self._roots, self._with_objects, strict=True):
            if not root.groups or not with_objects.groups:
                raise ValueError("each root needs at least one photograph with a usable instance; found none")
        self._shares = share / share.sum()

    @classmethod
    def from_folders(
        cls, roots: Sequence[Path], weights: Sequence[float] | None = None, held_out_every: int = 0
    ) -> PhotoLibrary:
        """Read every DIR/images/*.jpg that has a DIR/masks/<stem>.png (integer index mask, 0 = background).

        Args:
            roots: the folders DIR.
            weights: share of draws per root, any scale; equal if None.
            held_out_every: leave out the photographs for which ``is_held_out`` holds.

        Raises:
            FileNotFoundError: a folder has no such pair.
            ValueError: a pair cannot be decoded or differs in size, or the weights do not fit.
        """
        return cls([_read_root(Path(root), held_out_every) for root in roots], weights)

    def __len__(self) -> int:
        return sum(len(group) for root in self._roots for group in root.groups)

    def draw(self, rng: np.random.Generator, *, with_instances: bool = False) -> Photo:
        """Draw a photograph; with_instances restricts the draw to photographs that have objects."""
        roots = self._with_objects if with_instances else self._roots
        groups = roots[int(rng.choice(len(roots), p=self._shares))].groups
        group = groups[int(rng.integers(len(groups)))]
        return group[int(rng.integers(len(group)))]


def make_photo(name: str, image_hwc: NDArray[np.uint8], index_hw: NDArray[np.integer]) -> Photo:
    """Shrink to MAX_SIDE_PX and keep the instances whose area is usable.

    Args:
        name: for messages and for grouping (the part before the first `_`).
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


def _by_source(photos: Sequence[Photo]) -> tuple[tuple[Photo, ...], ...]:
    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        source = photo.name.split("_")[0] if "_" in photo.name else ""
        groups.setdefault(source, []).append(photo)
    return tuple(tuple(groups[source]) for source in sorted(groups))


def is_held_out(name: str, every: int) -> bool:
    """Whether a photograph is kept for evaluation: about one in ``every``, chosen by its name alone.

    So it stays held out when photographs come or go, in every run, at any seed. 0 keeps none.
    """
    return every > 0 and zlib.crc32(name.encode()) % every == 0


def photo_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Image and mask of every photograph of a folder, in order of name.

    Raises:
        FileNotFoundError: there is none.
    """
    pairs = [(path, root / "masks" / f"{path.stem}.png") for path in sorted((root / "images").glob("*.jpg"))]
    pairs = [(image, mask) for image, mask in pairs if mask.is_file()]
    if not pairs:
        raise FileNotFoundError(f"expected {root}/images/*.jpg with {root}/masks/<same name>.png, found no pair")
    return pairs


def _read_root(root: Path, held_out_every: int) -> list[Photo]:
    photos = []
    for image_path, mask_path in photo_pairs(root):
        if is_held_out(image_path.stem, held_out_every):
            continue
        image_bgr = cv2.imread(str(image_path), cv2.IMREAD_COLOR)
        index_hw = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        if image_bgr is None or index_hw is None or index_hw.ndim != 2:
            raise ValueError(f"expected a JPEG and a one-channel PNG index mask, got {image_path} and {mask_path}")
        photos.append(make_photo(image_path.stem, cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), index_hw))
    return photos
