"""Clips as training batches: the seeds of the clips of a step, the workers that draw them, and the tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam2_ros.data.clips.clip import MIN_FIRST_AREA_PX, Clip
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD

CLIPS_PER_STEP = 64  # seeds set aside for each step, so that a step's clips do not depend on the stages before it
OBJECTS_PER_CLIP = 16  # at most: seeds of prompts set aside for each clip


@dataclass(frozen=True)
class TrainingBatch:
    """M objects out of C clips of T frames."""

    images_tcchw: Tensor  # (T, C, 3, S, S) float32, normalised
    masks_tm1hw: Tensor  # (T, M, 1, S, S) float32 of 0 and 1
    clip_of_object_m: Tensor  # (M,) int64
    object_seeds: tuple[int, ...]  # M, of each object's prompts

    def to(self, device: torch.device) -> TrainingBatch:
        return replace(
            self,
            images_tcchw=self.images_tcchw.to(device),
            masks_tm1hw=self.masks_tm1hw.to(device),
            clip_of_object_m=self.clip_of_object_m.to(device),
        )


@dataclass(frozen=True)
class SeededClip:
    seed: int
    clip: Clip


class _ClipsOfSteps(Dataset[SeededClip]):
    """Each clip of each step has its own seed, whichever process draws it and wherever the run was resumed."""

    def __init__(self, clips: Callable[[int], Clip], first_seed: int, steps: range, places: range) -> None:
        self._clips, self._first_seed, self._steps, self._places = clips, first_seed, steps, places

    def __len__(self) -> int:
        return len(self._steps) * len(self._places)

    def __getitem__(self, index: int) -> SeededClip:
        step, place = divmod(index, len(self._places))
        seed = (self._first_seed + self._steps[step]) * CLIPS_PER_STEP + self._places[place]
        return SeededClip(seed, self._clips(seed))


def collate(seeded: Sequence[SeededClip], max_objects: Callable[[int], int]) -> TrainingBatch:
    """Normalise the clips and draw the objects to train on: up to ``max_objects(length of the clips)`` of each clip.

    Objects are drawn among those that are clearly visible in the first frame. If none is, the most visible one is used,
    even if it is absent there. So the choice in a clip does not depend on the other clips of the batch.
    """
    clips = [item.clip for item in seeded]
    images = torch.from_numpy(np.stack([clip.images_thwc for clip in clips], axis=1)).permute(0, 1, 4, 2, 3)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
    count = max_objects(len(images))
    masks, owners, seeds = [], [], []
    for clip_index, item in enumerate(seeded):
        area = item.clip.masks_tnhw[0].sum((1, 2))
        visible = np.flatnonzero(area >= MIN_FIRST_AREA_PX)
        drawn = np.sort(np.random.default_rng((item.seed, 2)).permutation(visible)[:count])
        for number, object_index in enumerate(drawn if len(visible) else [area.argmax()]):
            masks.append(torch.from_numpy(item.clip.masks_tnhw[:, object_index]))
            owners.append(clip_index)
            seeds.append(item.seed * OBJECTS_PER_CLIP + number)
    return TrainingBatch(
        (images.float() - mean) / std,
        torch.stack(masks, dim=1)[:, :, None].float(),
        torch.tensor(owners),
        tuple(seeds),
    )


def stream_batches(
    clips: Callable[[int], Clip],
    first_seed: int,
    steps: range,
    places: range,
    max_objects: Callable[[int], int],
    workers: int,
) -> Iterator[TrainingBatch]:
    """One batch a step, drawn by worker processes ahead of time.

    Args:
        clips: gives the clip of a seed.
        first_seed: of step 0, in steps.
        steps: numbers of the steps.
        places: which clips of each step's batch; a part of them where several processes share it.
        max_objects: gives the largest number of objects for clips of a number of frames.
        workers: processes; 0 draws the clips in this one.
    """
    loader: DataLoader[SeededClip] = DataLoader(
        _ClipsOfSteps(clips, first_seed, steps, places),
        batch_size=len(places),
        num_workers=workers,
        collate_fn=partial(collate, max_objects=max_objects),
        prefetch_factor=4 if workers else None,
    )
    yield from loader
