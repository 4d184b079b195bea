"""Clips become batches without mixing up frames, objects or clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sam2_ros.data.synthetic import Clip, PhotoLibrary, SyntheticClips
from sam2_ros.tracking.preprocess import IMAGENET_MEAN, IMAGENET_STD
from sam2_ros.training.batches import collate, stream_batches

SIZE, FRAMES = 16, 3


def clip_of(first_areas: list[int], seed: int = 0) -> Clip:
    """Objects are the first pixels of one row each: of the given number in frame 0, one more in each later frame."""
    images = np.random.default_rng(seed).integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    masks = np.zeros((FRAMES, len(first_areas), SIZE, SIZE), bool)
    for index, area in enumerate(first_areas):
        for t in range(FRAMES):
            masks[t, index].reshape(-1)[: area + t] = True
    return Clip(images, masks)


def test_frames_and_clips_stay_in_their_places() -> None:
    clips = [clip_of([20], seed=1), clip_of([30], seed=2)]
    images = collate(clips).images_tcchw
    assert images.shape == (FRAMES, 2, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    for t, c in ((0, 1), (2, 0)):
        expected = (clips[c].images_thwc[t] / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        np.testing.assert_allclose(images[t, c].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_objects_belong_to_their_clip_and_keep_their_order() -> None:
    batch = collate([clip_of([20, 40]), clip_of([60])])
    assert batch.clip_of_object_m.tolist() == [0, 0, 1]
    assert batch.masks_tm1hw.shape == (FRAMES, 3, 1, SIZE, SIZE)
    assert batch.masks_tm1hw.sum((2, 3, 4)).tolist() == [[20, 40, 60], [21, 41, 61], [22, 42, 62]]


def test_two_objects_of_a_clip_that_its_first_frame_shows_well_are_taken() -> None:
    batch = collate([clip_of([0, 15, 16, 50, 90]), clip_of([0])])
    assert batch.masks_tm1hw[0].sum((1, 2, 3)).tolist() == [16, 50]
    assert batch.clip_of_object_m.tolist() == [0, 0]


def test_batch_in_which_nothing_is_visible_at_first_has_one_object() -> None:
    batch = collate([clip_of([0, 5]), clip_of([0])])
    assert batch.masks_tm1hw.sum((2, 3, 4)).tolist() == [[0], [1], [2]]


def test_stream_goes_on_where_its_seeds_say(photo_root: Path) -> None:
    clips = SyntheticClips(PhotoLibrary.from_folders([photo_root]), 32, 2)
    whole = list(stream_batches(clips, first_seed=10, num_batches=3, clips_per_batch=2, workers=0))
    rest = list(stream_batches(clips, first_seed=12, num_batches=2, clips_per_batch=2, workers=0))
    assert len(whole) == 3
    for batch, expected in zip(rest, whole[1:], strict=True):
        assert torch.equal(batch.images_tcchw, expected.images_tcchw)
        assert torch.equal(batch.masks_tm1hw, expected.masks_tm1hw)
    assert not torch.equal(whole[0].images_tcchw, whole[1].images_tcchw)
