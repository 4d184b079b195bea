"""Training clips out of videos with masks: some consecutive annotated frames, as the model sees them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.clips.clip import MIN_FIRST_AREA_PX, Clip, mirrored, resized_mask, resized_to_square
from sam2_ros.data.clips.photometric import apply_look, random_look
from sam2_ros.data.files.images import UnreadableImageError
from sam2_ros.data.files.sequences import LayoutError, VideoSequence, find_sav_videos, open_sequences

_log = logging.getLogger(__name__)

_MAX_TRIES = 50
_LOOK_PROBABILITY = 0.5  # of other light, noise or blur than the video has
_ZOOM_PROBABILITY = 0.5
_SMALLEST_WINDOW = 0.6  # of the frame's sides

Masks = Mapping[int, NDArray[np.bool_]]  # (H, W) by object


class AnnotatedVideo(Protocol):
    """A video of which only the frames with masks count; they are numbered from 0 here."""

    name: str

    def __len__(self) -> int: ...

    def masks(self, index: int) -> Masks: ...

    def frames_rgb(self, start: int, count: int) -> list[NDArray[np.uint8]]: ...


class SequenceVideo:
    """A sequence of one of the evaluation layouts, frames without masks left out."""

    def __init__(self, sequence: VideoSequence) -> None:
        self.name = sequence.name
        self._sequence = sequence
        self._annotated = sequence.annotated_frames

    def __len__(self) -> int:
        return len(self._annotated)

    def masks(self, index: int) -> Masks:
        return self._sequence.masks(self._annotated[index])

    def frames_rgb(self, start: int, count: int) -> list[NDArray[np.uint8]]:
        return [self._sequence.frame_rgb(frame) for frame in self._annotated[start : start + count]]


def open_training_videos(root: Path, held_out: Sequence[str] = ()) -> list[AnnotatedVideo]:
    """All videos under a folder except those held out, by name.

    Args:
        root: SA-V's training layout (``<id>.mp4`` beside ``<id>_manual.json``), or one of ``data/files/sequences.py``.
        held_out: names of videos to leave out.

    Raises:
        LayoutError: no known layout, nothing left, or a held-out name that does not exist.
    """
    videos: list[AnnotatedVideo] = [*find_sav_videos(root)] if root.is_dir() else []
    videos = videos or [SequenceVideo(sequence) for sequence in open_sequences(root)]
    unknown = sorted(set(held_out) - {video.name for video in videos})
    if unknown:
        raise LayoutError(f"held out, but not in {root}: {', '.join(unknown)}")
    kept = [video for video in videos if video.name not in held_out]
    if not kept:
        raise LayoutError(f"all {len(videos)} videos of {root} are held out; nothing is left to train on")
    return kept


class VideoClips:
    """Gives the clip of a seed: consecutive annotated frames that start with at least one object in view.

    Half of the clips are mirrored, half are seen through a smaller window, half have another look; each of these is the
    same over the clip.
    """

    def __init__(self, videos: Sequence[AnnotatedVideo], size_px: int, num_frames: int, max_objects: int) -> None:
        """Keep the videos; clips come from those that are long enough.

        Raises:
            LayoutError: no video is long enough.
        """
        # The search ends at the first long one, because finding the length of an SA-V video means reading its
        # annotations.
        if not any(len(video) >= num_frames for video in videos):
            longest = max((len(video) for video in videos), default=0)
            raise LayoutError(f"expected a video with {num_frames} annotated frames, the longest has {longest}")
        self._videos = videos
        self._damaged: set[str] = set()  # one message a file
        self._size_px, self._num_frames, self._max_objects = size_px, num_frames, max_objects
        cv2.setNumThreads(1)

    def __call__(self, seed: int) -> Clip:
        """Make the clip of this seed.

        Raises:
            LayoutError: no frame with a visible object was met.
        """
        rng = np.random.default_rng(seed)
        for _ in range(_MAX_TRIES):
            video = self._draw(rng)
            start = int(rng.integers(len(video) - self._num_frames + 1))
            try:
                clip = self._cut(video, start, rng)
            except UnreadableImageError as error:  # one damaged file must not end a training run of days
                clip = None
                if str(error) not in self._damaged:
                    self._damaged.add(str(error))
                    _log.warning("left out: %s", error)
            if clip is not None:
                return mirrored(clip) if rng.random() < 0.5 else clip
        names = ", ".join(video.name for video in self._videos[:4])
        raise LayoutError(f"no visible object in {_MAX_TRIES} frames of {names}; are the masks empty?")

    def _draw(self, rng: np.random.Generator) -> AnnotatedVideo:
        """One of the videos that are long enough."""
        while True:
            video = self._videos[int(rng.integers(len(self._videos)))]
            if len(video) >= self._num_frames:
                return video

    def _cut(self, video: AnnotatedVideo, start: int, rng: np.random.Generator) -> Clip | None:
        """The clip from that frame on; None where it shows no object at first."""
        first = video.masks(start)
        if not first:
            return None
        height, width = next(iter(first.values())).shape
        share = rng.uniform(_SMALLEST_WINDOW, 1.0, 2) if rng.random() < _ZOOM_PROBABILITY else np.ones(2)
        h, w = max(1, int(share[0] * height)), max(1, int(share[1] * width))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        window = (slice(y, y + h), slice(x, x + w))
        visible = [
            v for v, mask in first.items() if resized_mask(mask[window], self._size_px).sum() >= MIN_FIRST_AREA_PX
        ]
        if not visible:
            return None
        targets = [visible[i] for i in rng.permutation(len(visible))[: self._max_objects]]
        frames = video.frames_rgb(start, self._num_frames)
        if frames[0].shape[:2] != (height, width):
            raise LayoutError(f"{video.name}: its frames are {frames[0].shape[:2]}, their masks {(height, width)}")
        images = [resized_to_square(frame[window], self._size_px) for frame in frames]
        masks = np.zeros((self._num_frames, len(targets), self._size_px, self._size_px), np.bool_)
        for t in range(self._num_frames):
            shown = first if t == 0 else video.masks(start + t)
            for number, value in enumerate(targets):
                if value in shown:
                    masks[t, number] = resized_mask(shown[value][window], self._size_px)
        if rng.random() < _LOOK_PROBABILITY:
            look = random_look(rng, self._num_frames, self._size_px)
            images = [apply_look(look, t, image, rng) for t, image in enumerate(images)]
        return Clip(np.stack(images), masks)
