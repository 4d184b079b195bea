"""Where the frames of a project come from: recordings of ROS, videos, folders of images, and data sets with masks.

``find_sources`` finds out what a path is. A source gives its frames one after the other, and then its masklets in the
frames that were kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import Masklet, ProjectError
from sam2_ros.annotate.node_results import header_stamp_ns, masklets_of_results
from sam2_ros.annotate.sidecar import AnnotatedFrame, Sidecar
from sam2_ros.data.files.images import UnreadableImageError, list_images, read_image_rgb
from sam2_ros.data.files.rosbag import ImageBag, is_bag
from sam2_ros.data.files.sequences import (
    SAV_FRAMES_PER_ANNOTATION,
    SavVideo,
    VideoSequence,
    find_sav_videos,
    open_sequences,
)
from sam2_ros.data.files.video import open_source
from sam2_ros.image_io.compressed import JPEG_START, compressed_to_rgb
from sam2_ros.image_io.encodings import ImageError, image_to_rgb

SAV_FPS = 24.0
_EXIF = b"Exif\0\0"
_NEAR_HEAD = 65536  # bytes of a JPEG file in which its EXIF part lies


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source."""

    index: int  # in the source
    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    jpeg: bytes | None = None  # the JPEG file it was decoded from, where that is the same picture
    stamp_ns: int | None = None
    frame_id: str | None = None
    name: str | None = None  # of its file, without suffix


@dataclass
class RateSampler:
    """Chooses frames at a lower rate, by their times."""

    fps: float  # 0 takes every frame
    source_fps: float | None = None
    _first_s: float | None = None
    _slot: int = -1

    def takes(self, time_s: float) -> bool:
        """Whether this frame is the first of its slot; times ascend."""
        if not self.fps or (self.source_fps and self.source_fps <= self.fps):
            return True
        if self._first_s is None:
            self._first_s = time_s
        # Half a frame of tolerance: stamps jitter about the beginning of a slot.
        tolerance = self.fps / (2 * self.source_fps) if self.source_fps else 1e-6
        slot = int((time_s - self._first_s) * self.fps + tolerance)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True

    @property
    def rate(self) -> float | None:
        """Frames per second of what is taken."""
        return min(self.fps, self.source_fps) if self.fps and self.source_fps else self.fps or self.source_fps


@dataclass(frozen=True)
class Kept:
    """The frames of a source that were written, in order."""

    indices: tuple[int, ...]  # in the source
    stamps_ns: tuple[int, ...]  # empty where the source has none
    size_hw: tuple[int, int]  # px


class Source(ABC):
    """One future recording."""

    kind: str
    topic = ""
    fps: float | None = None  # of the frames that it gives

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.left_out: list[str] = []  # why images could not be read; filled by ``frames``

    @abstractmethod
    def frames(self) -> Iterator[SourceFrame]:
        """Every frame to keep; a single image that cannot be read is left out.

        Raises:
            SourceError, ImageError, ValueError, OSError: it cannot be read on; frames given before are good.
        """

    def _of_file(self, index: int, path: Path) -> Iterator[SourceFrame]:
        """The frame of an image file, or none where it cannot be read."""
        try:
            yield frame_of_file(index, path)
        except (UnreadableImageError, FileNotFoundError) as error:
            self.left_out.append(str(error))

    def masklets(self, kept: Kept) -> list[Masklet]:
        """What the source knows of objects in the frames that were kept, numbered as there; ids are not final."""
        return []

    def details(self) -> Mapping[str, Any]:
        """What is known of the recording that a data set was exported from: fps, topic, stamps_ns, frame_ids."""
        return {}


class BagSource(Source):
    """The images of one topic of a rosbag2 recording, and what our node published of them, if that was recorded too."""

    kind = "bag"

    def __init__(self, path: Path, fps: float, topic: str) -> None:
        super().__init__(path, path.stem)
        with ImageBag(path, topic) as bag:
            self.topic, self._source_fps = bag.topic, bag.info.fps
        self._wanted_fps = fps
        self.fps = RateSampler(fps, self._source_fps).rate

    def frames(self) -> Iterator[SourceFrame]:
        """As ``Source.frames``; sampled by the time of recording, which ascends, and stamped with the headers'."""
        sampler = RateSampler(self._wanted_fps, self._source_fps)
        with ImageBag(self.path, self.topic) as bag:
            for index, image in enumerate(bag):
                if not sampler.takes(image.time_ns / 1e9):
                    continue
                message = image.message
                try:
                    image_rgb = compressed_to_rgb(message) if image.compressed else image_to_rgb(message)
                except ImageError as error:
                    self.left_out.append(f"{self.path}: image {index} on {self.topic}: {error}")
                    continue
                jpeg = _stored_jpeg(bytes(message.data), message.format) if image.compressed else None
                stamp_ns = header_stamp_ns(message) or image.time_ns
                yield SourceFrame(index, image_rgb, jpeg, stamp_ns, str(message.header.frame_id))

    def masklets(self, kept: Kept) -> list[Masklet]:
        """Those of ``~/objects`` and ``~/label_image``, matched by stamp."""
        with ImageBag(self.path, self.topic) as bag:
            topics = bag.result_topics
            if not topics:
                return []
            frame_of = {stamp_ns: number for number, stamp_ns in enumerate(kept.stamps_ns)}
            return masklets_of_results(bag.messages(list(topics)), topics, frame_of, kept.size_hw)


class VideoSource(Source):
    """A video file, turned as it says it is to be shown."""

    kind = "video"

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, path.name)
        with open_source(path) as video:
            self._source_fps = video.info.fps
        self._wanted_fps = fps
        self.fps = RateSampler(fps, self._source_fps).rate if self._source_fps else None

    def frames(self) -> Iterator[SourceFrame]:
        """As ``Source.frames``; stamps are the time since the first frame by the file's average rate."""
        sampler = RateSampler(self._wanted_fps if self._source_fps else 0.0, self._source_fps)
        with open_source(self.path) as video:
            for index, image_rgb in enumerate(video):
                time_s = index / self._source_fps if self._source_fps else None
                if time_s is None or sampler.takes(time_s):
                    yield SourceFrame(index, image_rgb, stamp_ns=None if time_s is None else round(time_s * 1e9))


class FolderSource(Source):
    """A folder of images, which has no clock: every image is a frame."""

    kind = "images"

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.resolve().name)
        self._paths = list_images(path)

    def frames(self) -> Iterator[SourceFrame]:
        """As ``Source.frames``."""
        for index, path in enumerate(self._paths):
            yield from self._of_file(index, path)


class SequenceSource(Source):
    """A sequence with masks in the layout of DAVIS, MOSE, YouTube-VOS, SA-V val, or <sequence>/{images,masks}."""

    def __init__(self, path: Path, sequence: VideoSequence, fps: float) -> None:
        super().__init__(path, sequence.name)
        self._sequence = sequence
        self._sidecar = Sidecar.read(path)
        self.kind = "sav" if "JPEGImages_24fps" in sequence.frame_paths[0].parts else "davis"
        self._every = max(1, round(SAV_FPS / fps)) if self.kind == "sav" and fps else 1
        self.fps = SAV_FPS / self._every if self.kind == "sav" else None

    def frames(self) -> Iterator[SourceFrame]:
        """As ``Source.frames``. SA-V's are numbered at 24 per second by their names."""
        for index, path in enumerate(self._sequence.frame_paths):
            number = int(path.stem) if path.stem.isdecimal() else index
            if number % self._every == 0:
                yield from self._of_file(index, path)

    def masklets(self, kept: Kept) -> list[Masklet]:
        """One for each object number."""
        frames = (
            AnnotatedFrame(number, index, self._sequence.masks(index))
            for number, index in enumerate(kept.indices)
            if index in self._sequence.mask_paths
        )
        return self._sidecar.masklets(self.name, frames, self._sequence.objects_may_overlap)

    def details(self) -> Mapping[str, Any]:
        """Of the recording that it was exported from."""
        return self._sidecar.info(self.name)


class SavTrainSource(Source):
    """A video of SA-V's training set with its annotation: the frames that are annotated, six per second."""

    kind = "sav"
    fps = SAV_FPS / SAV_FRAMES_PER_ANNOTATION

    def __init__(self, path: Path, video: SavVideo) -> None:
        super().__init__(path, video.name)
        self._video = video

    def frames(self) -> Iterator[SourceFrame]:
        """As ``Source.frames``."""
        for number in range(len(self._video)):
            (image_rgb,) = self._video.frames_rgb(number, 1)
            index = number * SAV_FRAMES_PER_ANNOTATION
            yield SourceFrame(index, image_rgb, stamp_ns=round(index / SAV_FPS * 1e9))

    def masklets(self, kept: Kept) -> list[Masklet]:
        """One for each object number."""
        frames = (AnnotatedFrame(n, index, _one_based(self._video.masks(n))) for n, index in enumerate(kept.indices))
        return Sidecar().masklets(self.name, frames, True)


def _one_based(masks: Mapping[int, NDArray[np.bool_]]) -> dict[int, NDArray[np.bool_]]:
    """Object numbers from 1, as 0 is the background elsewhere."""
    return {number + 1: mask for number, mask in masks.items()}


def find_sources(path: Path, fps: float, topic: str = "") -> list[Source]:
    """The sources at a path: one, or one for each sequence of a data set.

    Args:
        path: a rosbag2 recording, a video, a folder of images, or a folder in a layout of SA-V, DAVIS, COCO or YOLO.
        fps: frames per second to take of recordings and videos; 0 takes all.
        topic: of a recording's images; "" where there is only one.

    Raises:
        SourceError, ValueError, OSError: it is none of these, or cannot be opened.
    """
    from sam2_ros.annotate.labelled_images import open_coco, open_yolo

    if not path.exists():
        raise ProjectError(f"there is nothing at {path}; expected a recording, a video or a folder")
    if is_bag(path):
        return [BagSource(path, fps, topic)]
    if topic:
        raise ProjectError(f"--topic is for recordings of ROS; {path} is none")
    if not path.is_dir():
        return [VideoSource(path, fps)]
    if videos := find_sav_videos(path):
        return [SavTrainSource(path, video) for video in videos]
    for opened in (open_coco(path), open_yolo(path)):
        if opened:
            return [*opened]
    if any(path.glob("JPEGImages*")) or any(path.glob("*/images")):
        return [SequenceSource(path, sequence, fps) for sequence in open_sequences(path)]
    if (path / "images").is_dir() and (path / "masks").is_dir():
        (sequence,) = open_sequences(path.resolve().parent, [path.resolve().name])
        return [SequenceSource(path, sequence, fps)]
    return [FolderSource(path)]


def frame_of_file(index: int, path: Path) -> SourceFrame:
    """An image file as a frame; a JPEG file is kept as it is, unless its pixels are turned by its EXIF orientation."""
    image_rgb = read_image_rgb(path)
    content = path.read_bytes() if path.suffix.lower() in (".jpg", ".jpeg") else b""
    plain = content.startswith(JPEG_START) and _EXIF not in content[:_NEAR_HEAD]
    return SourceFrame(index, image_rgb, content if plain else None, name=path.stem)


def _stored_jpeg(content: bytes, stated_format: str) -> bytes | None:
    """The content where a plain JPEG decoder shows the same colours as ``compressed_to_rgb``."""
    plain = content.startswith(JPEG_START) and _EXIF not in content[:_NEAR_HEAD]
    swapped = "compressed rgb" in stated_format or "bayer" in stated_format
    return content if plain and not swapped else None
