"""Clips become batches without mixing up frames, objects or clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.photos import PhotoLibrary
from sam2_ros.data.clips.synthetic import SyntheticClips
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD
from sam2_ros.training.batches import SeededClip, TrainingBatch, collate, stream_batches

SIZE, FRAMES = 16, 3


def clip_of(first_areas: list[int], seed: int = 0) -> Clip:
    """Objects are the first pixels of one row each: of the given number in frame 0, one more in each later frame."""
    images = np.random.default_rng(seed).integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((FRAMES, len(first_areas), SIZE, SIZE), bool)
    for index, area in enumerate(first_areas):
        for t in range(FRAMES):
            masks[t, index].reshape(-1)[: area + t] = True
    return Clip(images, masks)


def batch_of(*clips: Clip, objects_per_clip: int = 2) -> TrainingBatch:
    return collate([SeededClip(seed, clip) for seed, clip in enumerate(clips)], lambda frames: objects_per_clip)


def test_frames_and_clips_stay_in_their_places() -> None:
    clips = [clip_of([20], seed=1), clip_of([30], seed=2)]
    images = batch_of(*clips).images_tcchw
    assert images.shape == (FRAMES, 2, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    for t, c in ((0, 1), (2, 0)):
        expected = (clips[c].images_thwc[t] / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        np.testing.assert_allclose(images[t, c].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_objects_belong_to_their_clip_and_keep_their_order() -> None:
    batch = batch_of(clip_of([20, 40]), clip_of([60]))
    assert batch.clip_of_object_m.tolist() == [0, 0, 1]
    assert batch.masks_tm1hw.shape == (FRAMES, 3, 1, SIZE, SIZE)
    assert batch.masks_tm1hw.sum((2, 3, 4)).tolist() == [[20, 40, 60], [21, 41, 61], [22, 42, 62]]


def test_objects_of_a_clip_that_its_first_frame_shows_well_are_taken() -> None:
    clip = clip_of([0, 15, 16, 50, 90])
    assert batch_of(clip, objects_per_clip=9).masks_tm1hw[0].sum((1, 2, 3)).tolist() == [16, 50, 90]


def test_of_many_objects_some_are_drawn_by_the_clip_s_seed() -> None:
    clip = clip_of([0, 16, 30, 50, 90])

    def areas(seed: int) -> list[int]:
        return collate([SeededClip(seed, clip)], lambda frames: 2).masks_tm1hw[0].sum((1, 2, 3)).int().tolist()

    draws = [areas(seed) for seed in range(30)]
    assert {area for draw in draws for area in draw} == {16, 30, 50, 90}, "none is left out for ever"
    assert all(len(set(draw)) == 2 for draw in draws)
    assert areas(3) == draws[3]


def test_clip_that_shows_nothing_at_first_has_one_object() -> None:
    batch = batch_of(clip_of([0, 5]), clip_of([0]), clip_of([20]))
    assert batch.masks_tm1hw[0].sum((1, 2, 3)).tolist() == [5, 0, 20]
    assert batch.clip_of_object_m.tolist() == [0, 1, 2]


def test_every_object_has_a_seed_of_its_own_wherever_its_clip_is() -> None:
    clips = [SeededClip(seed, clip_of([20, 40], seed)) for seed in (70, 71)]
    seeds = collate(clips, lambda frames: 2).object_seeds
    assert len(set(seeds)) == 4
    assert collate(clips[1:], lambda frames: 2).object_seeds == seeds[2:]


def test_a_step_has_its_clips_whoever_draws_them(photo_root: Path) -> None:
    """Two processes with half of the places each, or a run that goes on at the second step: the same clips."""
    clips = SyntheticClips(PhotoLibrary.from_folders([photo_root]), 32, 2)

    def stream(steps: range, places: range) -> list[TrainingBatch]:
        return list(stream_batches(clips, 10, steps, places, lambda frames: 2, workers=0))

    whole, resumed = stream(range(3), range(2)), stream(range(1, 3), range(2))
    halves = [stream(range(3), range(1)), stream(range(3), range(1, 2))]
    assert len(whole) == 3
    for batch, expected in zip(resumed, whole[1:], strict=True):
        assert torch.equal(batch.images_tcchw, expected.images_tcchw)
        assert torch.equal(batch.masks_tm1hw, expected.masks_tm1hw)
        assert batch.object_seeds == expected.object_seeds
    for first, second, expected in zip(*halves, whole, strict=True):
        assert torch.equal(torch.cat((first.images_tcchw, second.images_tcchw), 1), expected.images_tcchw)
        assert torch.equal(torch.cat((first.masks_tm1hw, second.masks_tm1hw), 1), expected.masks_tm1hw)
        assert first.object_seeds + second.object_seeds == expected.object_seeds
    images = torch.cat([batch.images_tcchw for batch in whole], dim=1)
    assert len(torch.unique(images.transpose(0, 1).flatten(1), dim=0)) == 6, "a clip came twice"
