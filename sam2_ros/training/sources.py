"""Where a stage's clips come from: synthetic ones and videos, by weight, some backwards and some as mosaics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_ros.data.clips.clip import Clip, mosaic, reversed_clip
from sam2_ros.data.clips.clip_config import ClipConfig
from sam2_ros.data.clips.models import ModelLibrary
from sam2_ros.data.clips.photos import PhotoLibrary
from sam2_ros.data.clips.synthetic import SyntheticClips
from sam2_ros.data.clips.video_clips import VideoClips, open_training_videos
from sam2_ros.data.clips.window import WINDOW_DETAIL, WindowedClips
from sam2_ros.training.batches import CLIPS_PER_STEP
from sam2_ros.training.config import Stage, TrainConfig


class ClipMix:
    """Gives the clip of a seed; the same seed and sources give the same clip."""

    def __init__(
        self,
        sources: list[Callable[[int], Clip]],
        weights: list[float],
        reverse_probability: float,
        mosaic_probability: float,
    ) -> None:
        """Keep the sources; each is drawn from in proportion to its weight."""
        if len(sources) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"expected a weight of 0 or more for each of {len(sources)} sources, got {weights}")
        self._sources = sources
        self._shares = np.array(weights) / sum(weights)
        self._reverse_probability, self._mosaic_probability = reverse_probability, mosaic_probability

    def __call__(self, seed: int) -> Clip:
        # The sources use the plain seed; a pair gives other numbers.
        rng = np.random.default_rng((seed, 1))
        clip = self._sources[int(rng.choice(len(self._sources), p=self._shares))](seed)
        if rng.random() < self._reverse_probability:
            clip = reversed_clip(clip)
        if rng.random() < self._mosaic_probability:
            clip = mosaic(clip, int(rng.integers(4)))
        return clip


@dataclass(frozen=True)
class StepShape:
    """What all clips of a step have in common."""

    size_px: int  # side of the square frames
    frames: int


class StageClips:
    """The clip of a seed, in the shape of its step: all clips of a batch have the same."""

    def __init__(self, stage: Stage, clips_of_shape: Mapping[StepShape, Callable[[int], Clip]]) -> None:
        self._stage, self._clips_of_shape = stage, clips_of_shape

    def __call__(self, seed: int) -> Clip:
        return self._clips_of_shape[shape_of_step(self._stage, seed // CLIPS_PER_STEP)](seed)


class TrainingData:
    """The photographs and videos of a run, found once, and the clips that its stages make of them."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._library: PhotoLibrary | None = None
        if config.photo_roots and config.synthetic_weight > 0:
            self._library = PhotoLibrary.from_folders(config.photo_roots, config.photo_cache_mb)
        models = [Path(root) for root in config.model_roots]
        self._models = ModelLibrary.from_roots(models) if models else None
        self._videos = [(open_training_videos(Path(v.root), v.held_out), v.weight) for v in config.videos]

    def describe(self) -> str:
        photographs, videos = len(self._library) if self._library else 0, sum(len(found) for found, _ in self._videos)
        models = f", {len(self._models)} models" if self._models else ""
        return f"{photographs} photographs, {videos} videos{models}"

    def clips(self, stage: Stage) -> StageClips:
        """The clips that a stage trains on."""
        frames = {stage.frames} if not stage.image_share else {stage.frames, 1}
        shapes = [StepShape(size_px, count) for size_px in stage.sizes_px for count in sorted(frames)]
        return StageClips(stage, {shape: self._windowed(stage, shape) for shape in shapes})

    def _windowed(self, stage: Stage, shape: StepShape) -> Callable[[int], Clip]:
        """The mix, of which some clips are seen through a window."""
        clips, probability = self._mix(stage, shape), self._config.window_probability
        if shape.frames == 1 or not probability:
            return clips
        larger = self._mix(stage, StepShape(round(WINDOW_DETAIL * shape.size_px), shape.frames))
        return WindowedClips(clips, larger, shape.size_px, probability)

    def _mix(self, stage: Stage, shape: StepShape) -> ClipMix:
        config = self._config
        max_objects = objects_of(stage, shape.frames)
        sources: list[Callable[[int], Clip]] = []
        weights: list[float] = []
        if self._library is not None:
            # Every clip must show an object in its first frame; others could not be prompted.
            sure = ClipConfig(visible_at_start_prob=1.0, absence_prob=config.absence_probability)
            sources.append(
                SyntheticClips(self._library, shape.size_px, shape.frames, max(3, max_objects), sure, self._models)
            )
            weights.append(config.synthetic_weight)
        for videos, weight in self._videos:
            sources.append(VideoClips(videos, shape.size_px, shape.frames, max_objects))
            weights.append(weight)
        return ClipMix(sources, weights, config.reverse_probability, config.mosaic_probability)


def shape_of_step(stage: Stage, step: int) -> StepShape:
    """The size of a step's frames, and whether it has clips or single images; depends on the step's number alone."""
    rng = np.random.default_rng((step, 2))
    size_px = stage.sizes_px[int(rng.integers(len(stage.sizes_px)))]
    return StepShape(size_px, 1 if rng.random() < stage.image_share else stage.frames)


def objects_of(stage: Stage, frames: int) -> int:
    """The largest number of objects to train on in a clip of ``frames`` frames."""
    return stage.objects_per_image if frames == 1 else stage.objects_per_clip
