"""Read RGB frames from a video file, a camera or a folder of images; write RGB frames as MP4."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.images import UnreadableImageError, list_images, read_image_rgb

_log = logging.getLogger(__name__)

# Playback rate of videos made from a source whose rate is unknown, such as a folder of images.
DEFAULT_FPS = 25.0


class SourceError(RuntimeError):
    """A source that cannot be opened, read or written; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class SourceInfo:
    """Properties of a source, before its frames are read."""

    name: str  # file name, folder name, "camera0", or the last part of a URL
    fps: float | None  # frames per second; None for a folder of images or if the camera does not report it
    frame_count: int | None  # None for a camera, or if the file does not say
    live: bool  # True for a camera or a stream: endless, and frames not read in time are lost


class FrameSource:
    """Frames of a video file, a camera or a folder of images, in order, each (H, W, 3) uint8 RGB.

    >>> with open_source("clip.mp4") as source:                        # doctest: +SKIP
    ...     for image_rgb in source: ...
    """

    def __init__(self, info: SourceInfo, *, paths: tuple[Path, ...] = (), capture: cv2.VideoCapture | None = None):
        self.info = info
        self.left_out: dict[int, str] = {}  # images that could not be read: position among all of them, reason
        self._paths = paths
        self._capture = capture

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Frames from the current position to the end. A file or camera can be iterated once.

        Images of a folder that cannot be read are left out, and named in the log and in ``left_out``.

        Raises:
            SourceError: no frame could be read, or a camera stopped.
        """
        if self._capture is None:
            yield from self._images()
            return
        count = 0
        while True:
            delivered, frame_bgr = self._capture.read()
            if not delivered:
                break
            count += 1
            yield cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
        if self.info.live:
            raise SourceError(
                f"{self.info.name} stopped after {count} frames; is it unplugged, or used by another program?"
            )
        if count == 0:
            raise SourceError(f"{self.info.name} was opened, but no frame could be decoded; the file may be damaged")

    def _images(self) -> Iterator[NDArray[np.uint8]]:
        self.left_out = {}
        for position, path in enumerate(self._paths):
            try:
                image_rgb = read_image_rgb(path)
            except (UnreadableImageError, FileNotFoundError) as error:
                self.left_out[position] = str(error)
                _log.warning("left out: %s", error)
            else:
                yield image_rgb
        if len(self.left_out) == len(self._paths):
            raise SourceError(f"{self.info.name}: no image can be read; {self.left_out[0]}")

    def close(self) -> None:
        """Release the file or camera. May be called more than once."""
        if self._capture is not None:
            self._capture.release()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: str | Path | int) -> FrameSource:
    """Open a video file, a folder of images, or a camera by its index (0 or "0") or URL ("rtsp://...").

    Raises:
        SourceError: there is no such source, or it cannot be opened.
    """
    text = str(source)
    if isinstance(source, int) or text.isdecimal():
        return _open_camera(int(text))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _open_url(text)
    path = Path(source).expanduser()
    if path.is_dir():
        try:
            paths = list_images(path)
        except FileNotFoundError as error:
            raise SourceError(str(error)) from error
        return FrameSource(SourceInfo(path.resolve().name, None, len(paths), live=False), paths=paths)
    if not path.is_file():
        found = f"{text!r} is a device, a FIFO or a socket" if path.exists() else f"there is nothing at {text!r}"
        raise SourceError(f"expected a video file, a folder of images, a camera's index or a URL; {found}")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise SourceError(f"{path} cannot be opened as a video; is it one, and of a kind that OpenCV decodes?")
    count = _known(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    info = SourceInfo(path.name, _known(capture.get(cv2.CAP_PROP_FPS)), int(count) if count else None, live=False)
    return FrameSource(info, capture=capture)


def read_frames(path: Path, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Frames of a video file by number, in ascending order; those after its end are missing.

    Frames are counted from 0 in the order in which they are shown, whatever their times. (OpenCV's own seeking computes
    a time from the number and the average rate, and lands some frames away where the rate varies.)

    With the package ``av`` (extra ``video``) reading begins at the key frame before the first number; without it every
    frame of the file up to the last number is decoded, which takes longer and gives the same frames.

    Args:
        path: a file that FFmpeg decodes.
        numbers: ascending.

    Returns:
        (H, W, 3) uint8 RGB each, turned as the file says.

    Raises:
        SourceError: there is no such file, or it is not a video.
    """
    if not path.is_file():
        raise SourceError(f"expected a video file, there is none at {path}")
    try:
        import av
    except ImportError:
        return _read_frames_in_order(path, set(numbers))
    try:
        times = _presentation_times(path, path.stat().st_mtime_ns)
        return _read_frames_at(path, [int(times[number]) for number in numbers if number < len(times)])
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: without a video stream
        raise SourceError(f"{path} cannot be read as a video: {error}") from error


def _read_frames_in_order(path: Path, numbers: set[int]) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(path))
    frames: list[NDArray[np.uint8]] = []
    try:
        if not capture.isOpened():
            raise SourceError(f"{path} cannot be read as a video")
        for number in range(max(numbers, default=-1) + 1):
            if not capture.grab():
                break
            if number in numbers:
                frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    return frames


@lru_cache(maxsize=256)
def _presentation_times(path: Path, _mtime_ns: int) -> NDArray[np.int64]:
    """(T,) when each frame is shown, in the stream's unit, ascending; found without decoding."""
    import av

    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return np.sort([packet.pts for packet in packets if packet.pts is not None and not packet.is_discard])


def _read_frames_at(path: Path, times: list[int]) -> list[NDArray[np.uint8]]:
    """The frames that are shown at these times, ascending."""
    import av

    if not times:
        return []
    frames, wanted = [], set(times)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(times[0], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                frames.append(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)))
            if frame.pts is not None and frame.pts >= times[-1]:
                break
    return frames


def _open_camera(index: int) -> FrameSource:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise SourceError(
            f"no camera with index {index} can be opened; is it plugged in, may this user read /dev/video{index}, "
            "and is no other program using it?"
        )
    fps = _known(capture.get(cv2.CAP_PROP_FPS))
    return FrameSource(SourceInfo(f"camera{index}", fps, None, live=True), capture=capture)


def _open_url(url: str) -> FrameSource:
    """A stream, or a video file on a server; the name of the source has no user and no password in it."""
    parts = urlsplit(url)
    name = Path(parts.path).name or parts.hostname or parts.scheme
    capture = cv2.VideoCapture(url)
    if not capture.isOpened():
        raise SourceError(
            f"{name} cannot be opened from {parts.scheme}://{parts.hostname or ''}; is it reachable, and a video "
            "stream or file that OpenCV decodes? A web page of a video is none: download the video first"
        )
    count = _known(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = _known(capture.get(cv2.CAP_PROP_FPS))
    return FrameSource(SourceInfo(name, fps, int(count) if count else None, live=not count), capture=capture)


def _known(value: float) -> float | None:
    """None for 0, a negative number or NaN, which OpenCV returns for unknown properties."""
    return float(value) if math.isfinite(value) and value > 0 else None


class VideoWriter:
    """Writes RGB frames as an MP4 (MPEG-4 part 2, which every OpenCV build encodes and common players show).

    The size is that of the first frame, rounded down to even numbers as the format requires; a frame of another size is
    resized to it. The file is complete after ``close``.
    """

    def __init__(self, path: Path, fps: float | None = None):
        self.path = Path(path)
        self.frame_count = 0
        self._fps = fps or DEFAULT_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)

    def write(self, image_rgb: NDArray[np.uint8]) -> None:
        """Append one (H, W, 3) uint8 RGB frame. Raises SourceError if the file cannot be written."""
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
            raise ValueError(f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
        size_wh = (image_rgb.shape[1], image_rgb.shape[0])
        if self._writer is None:
            self._writer = self._open(size_wh)
        if size_wh != self._size_wh:
            image_rgb = np.asarray(cv2.resize(image_rgb, self._size_wh, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
        self.frame_count += 1

    def _open(self, size_wh: tuple[int, int]) -> cv2.VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size_wh)
        if not writer.isOpened():
            raise SourceError(f"cannot write a video of {size_wh[0]} x {size_wh[1]} to {self.path}")
        self._size_wh = size_wh
        return writer

    def close(self) -> None:
        """Finish the file. May be called more than once."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
