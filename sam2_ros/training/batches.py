"""Clips as training batches: a stream of seeds, a worker that draws clips, and the tensors they become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam2_ros.data.synthetic import Clip, SyntheticClips
from sam2_ros.tracking.preprocess import IMAGENET_MEAN, IMAGENET_STD

_MAX_OBJECTS_PER_CLIP = 2
_MIN_FIRST_AREA_PX = 16


@dataclass(frozen=True)
class TrainingBatch:
    """M objects out of C clips of T frames."""

    images_tcchw: Tensor  # (T, C, 3, S, S) float32, normalised
    masks_tm1hw: Tensor  # (T, M, 1, S, S) float32 of 0 and 1; every object is visible in frame 0
    clip_of_object_m: Tensor  # (M,) int64


class _SeededClips(Dataset[Clip]):
    """Index = seed, so that a resumed run goes on with clips it has not seen."""

    def __init__(self, clips: SyntheticClips, first_seed: int, count: int) -> None:
        self._clips, self._first_seed, self._count = clips, first_seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Clip:
        return self._clips(self._first_seed + index)


def collate(clips: list[Clip]) -> TrainingBatch:
    """Normalise, and choose up to two objects a clip among those visible in its first frame.

    Where nothing is visible in any first frame, one object of the first clip stands in, to be found absent.
    """
    images = torch.from_numpy(np.stack([clip.images_thwc for clip in clips], axis=1)).permute(0, 1, 4, 2, 3)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
    masks, owners = [], []
    for clip_index, clip in enumerate(clips):
        visible = np.flatnonzero(clip.masks_tnhw[0].sum((1, 2)) >= _MIN_FIRST_AREA_PX)
        for object_index in visible[:_MAX_OBJECTS_PER_CLIP]:
            masks.append(torch.from_numpy(clip.masks_tnhw[:, object_index]))
            owners.append(clip_index)
    if not masks:
        masks, owners = [torch.from_numpy(clips[0].masks_tnhw[:, 0])], [0]
    return TrainingBatch(
        (images.float() - mean) / std, torch.stack(masks, dim=1)[:, :, None].float(), torch.tensor(owners)
    )


def stream_batches(
    clips: SyntheticClips, first_seed: int, num_batches: int, clips_per_batch: int, workers: int
) -> Iterator[TrainingBatch]:
    """``num_batches`` batches of fresh clips, drawn by worker processes ahead of time."""
    dataset = _SeededClips(clips, first_seed, num_batches * clips_per_batch)
    loader: DataLoader[Clip] = DataLoader(
        dataset,
        batch_size=clips_per_batch,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
    )
    yield from loader
