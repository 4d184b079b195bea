"""Clips are drawn from every source by its weight, and changed as often as the config says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.files.masks import write_index_png
from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.training import sources
from sam2_ros.training.batches import CLIPS_PER_STEP
from sam2_ros.training.config import Stage, TrainConfig, VideoSource
from sam2_ros.training.sources import ClipMix, TrainingData, objects_of, shape_of_step

SIZE = 32
STAGE = Stage(steps=1, size_px=SIZE, frames=2, clips_per_batch=1, lr=1e-3, lr_end=0.0)


def flat_clips(gray: int):  # type: ignore[no-untyped-def]
    """Two frames, the second one lighter, with one object in the middle."""
    images = np.full((2, SIZE, SIZE, 3), gray, np.uint8)
    images[1] += 1
    masks = np.zeros((2, 1, SIZE, SIZE), bool)
    masks[:, :, 8:24, 8:24] = True
    return lambda seed: Clip(images, masks)


def test_sources_are_drawn_by_weight() -> None:
    mix = ClipMix([flat_clips(10), flat_clips(20), flat_clips(30)], [1.0, 3.0, 0.0], 0.0, 0.0)
    grays = [int(mix(seed).images_thwc[0, 0, 0, 0]) for seed in range(200)]
    assert set(grays) == {10, 20}
    assert 0.65 < grays.count(20) / len(grays) < 0.85


def test_some_clips_run_backwards_and_some_are_mosaics() -> None:
    mix = ClipMix([flat_clips(10)], [1.0], 0.5, 0.25)
    clips = [mix(seed) for seed in range(200)]
    backwards = sum(int(clip.images_thwc[0, 0, 0, 0] == 11) for clip in clips)
    mosaics = sum(int(clip.masks_tnhw[0].sum() == 64) for clip in clips)
    assert 80 < backwards < 120
    assert 30 < mosaics < 70
    np.testing.assert_array_equal(mix(7).masks_tnhw, clips[7].masks_tnhw)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [2.0, -1.0]])
def test_weights_must_fit(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="expected a weight of 0 or more for each of 2 sources"):
        ClipMix([flat_clips(10), flat_clips(20)], weights, 0.0, 0.0)


@pytest.fixture
def videos(tmp_path: Path) -> tuple[VideoSource]:
    """Two grey ones, of which the second is held out."""
    for name in ("a", "b"):
        for t in range(2):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[4:28, 4:28] = 255
            write_index_png(tmp_path / "videos" / name / "images" / f"{t}.png", mask)
            write_index_png(tmp_path / "videos" / name / "masks" / f"{t}.png", mask)
    return (VideoSource(str(tmp_path / "videos"), held_out=("b",)),)


def is_gray(clip: Clip) -> bool:
    return bool((np.ptp(clip.images_thwc.astype(int), axis=-1) < 60).all())


def test_photographs_and_videos_together(photo_root: Path, videos: tuple[VideoSource]) -> None:
    data = TrainingData(TrainConfig("nano", (STAGE,), (PhotoFolder(str(photo_root)),), videos=videos))
    assert data.describe() == "3 photographs, 1 videos"
    clips = [data.clips(STAGE)(seed) for seed in range(20)]
    assert {True, False} == set(map(is_gray, clips)), "only one of the two sources was drawn from"
    alone = TrainingData(TrainConfig("nano", (STAGE,), videos=videos)).clips(STAGE)(0)
    assert alone.images_thwc.shape == (2, SIZE, SIZE, 3)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, {True}), (1e9, {False})])
def test_synthetic_clips_are_drawn_by_their_weight(
    photo_root: Path, videos: tuple[VideoSource], weight: float, expected: set[bool]
) -> None:
    config = TrainConfig("nano", (STAGE,), (PhotoFolder(str(photo_root)),), videos=videos, synthetic_weight=weight)
    clips = TrainingData(config).clips(STAGE)
    assert {is_gray(clips(seed)) for seed in range(10)} == expected


def test_a_runs_clips_are_changed_as_often_as_its_config_says(photo_root: Path) -> None:
    unchanged = {"reverse_probability": 0.0, "mosaic_probability": 0.0, "window_probability": 0.0}
    plain = TrainConfig("nano", (STAGE,), (PhotoFolder(str(photo_root)),), **unchanged)
    backwards, tiled = replace(plain, reverse_probability=1.0), replace(plain, mosaic_probability=1.0)
    forwards, back, tiles = (TrainingData(config).clips(STAGE) for config in (plain, backwards, tiled))
    # A clip that ends without its objects is not turned round.
    seed = next(seed for seed in range(20) if forwards(seed).is_visible(-1))
    np.testing.assert_array_equal(back(seed).images_thwc, forwards(seed).images_thwc[::-1])
    np.testing.assert_array_equal(tiles(seed).images_thwc[:, :16, :16], tiles(seed).images_thwc[:, 16:, 16:])


def test_every_step_draws_one_of_its_stages_sizes(photo_root: Path) -> None:
    stage = replace(STAGE, size_px=(32, 48))
    clips = TrainingData(TrainConfig("nano", (stage,), (PhotoFolder(str(photo_root)),))).clips(stage)
    sizes = [shape_of_step(stage, step).size_px for step in range(200)]
    assert 70 < sizes.count(48) < 130
    for step in range(4):
        of_step = {clips(step * CLIPS_PER_STEP + place).images_thwc.shape[1:3] for place in range(3)}
        assert of_step == {(sizes[step], sizes[step])}
    assert {shape_of_step(STAGE, step).size_px for step in range(20)} == {SIZE}


def test_share_of_steps_is_of_single_images(photo_root: Path) -> None:
    stage = replace(STAGE, image_share=0.3)
    clips = TrainingData(TrainConfig("nano", (stage,), (PhotoFolder(str(photo_root)),))).clips(stage)
    frames = [shape_of_step(stage, step).frames for step in range(300)]
    assert set(frames) == {1, 2} and 60 < frames.count(1) < 120
    for step in (frames.index(1), frames.index(2)):
        assert {len(clips(step * CLIPS_PER_STEP + place).images_thwc) for place in range(3)} == {frames[step]}
    assert {shape_of_step(STAGE, step).frames for step in range(50)} == {2}


def test_an_image_teaches_more_objects_than_a_clip() -> None:
    stage = replace(STAGE, objects_per_clip=2, objects_per_image=9)
    assert (objects_of(stage, 1), objects_of(stage, 2)) == (9, 2)


def test_absence_is_as_frequent_as_the_config_says(photo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[ClipConfig] = []
    monkeypatch.setattr(sources, "SyntheticClips", lambda *args: given.append(args[4]))
    folders = (PhotoFolder(str(photo_root)),)
    TrainingData(TrainConfig("nano", (STAGE,), folders, absence_probability=0.125)).clips(STAGE)
    assert given[0].absence_prob == 0.125


def test_clips_are_seen_through_windows_as_often_as_the_config_says(
    photo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, float]] = []
    make = sources.WindowedClips
    monkeypatch.setattr(sources, "WindowedClips", lambda *args: given.append(args[2:]) or make(*args))
    folders = (PhotoFolder(str(photo_root)),)
    clips = TrainingData(TrainConfig("nano", (STAGE,), folders, window_probability=1.0)).clips(STAGE)
    assert given == [(SIZE, 1.0)]
    assert {clips(seed).masks_tnhw.shape[1:] for seed in range(4)} == {(1, SIZE, SIZE)}
    TrainingData(TrainConfig("nano", (STAGE,), folders, window_probability=0.0)).clips(STAGE)
    images = replace(STAGE, frames=1)
    TrainingData(TrainConfig("nano", (images,), folders, window_probability=1.0)).clips(images)
    assert len(given) == 1


def test_models_are_found_once_and_given_to_the_clips(
    photo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thing.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    given: list[object] = []
    monkeypatch.setattr(sources, "SyntheticClips", lambda *args: given.append(args[5]))
    folders = (PhotoFolder(str(photo_root)),)
    data = TrainingData(TrainConfig("nano", (STAGE,), folders, model_roots=(str(tmp_path),)))
    assert data.describe() == "3 photographs, 0 videos, 1 models"
    data.clips(STAGE)
    assert given[0] is given[-1] is not None
