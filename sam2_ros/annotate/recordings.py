"""A recording in a project: its frames as JPEG files, decoded once, with their stamps, and its masklets."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklet_store import MaskletStore
from sam2_ros.annotate.masklets import Masklet, ProjectError
from sam2_ros.annotate.storage import PARTIAL_PREFIX, read_json, sync_folder, write_json
from sam2_ros.image_io.integrity import complaint_about
from sam2_ros.regular_files import NotRegularFileError, check_regular_file

JPEG_QUALITY = 95
LARGEST_JPEG_BYTES = 256 << 20


@dataclass(frozen=True)
class RecordingInfo:
    """What is known of a recording beside its frames. Lists by frame are empty where the source does not say."""

    name: str  # for people; the source's
    kind: str  # "bag", "video", "images", "davis", "sav", "coco" or "yolo"
    source: str  # the path that was given
    size_hw: tuple[int, int]  # px, of all frames
    frame_count: int
    fps: float | None = None  # of the frames here, not of the source; None: unknown
    topic: str = ""  # of a bag's images
    stamps_ns: tuple[int, ...] = ()  # per frame: the header's stamp of a bag, else the time since the first frame
    frame_ids: tuple[str, ...] = ()  # per frame: the header's frame_id of a bag
    source_indices: tuple[int, ...] = ()  # per frame: its number in the source
    frame_names: tuple[str, ...] = ()  # per frame: the file's name in the source, without suffix


class Recording:
    """One recording of a project. Frames are numbered from 0."""

    def __init__(self, folder: Path, writable: Callable[[], None]) -> None:
        """Open the recording in a folder.

        Raises:
            ProjectError: the folder's recording.json is missing or damaged.
        """
        self.folder = folder
        self.recording_id = folder.name
        self.info = _info_from_json(read_json(folder / "recording.json"), folder)
        self.masklets = MaskletStore(folder / "masklets", self.info.size_hw, self.info.frame_count, writable)

    def __len__(self) -> int:
        """Number of frames."""
        return self.info.frame_count

    def frame_path(self, index: int) -> Path:
        """The JPEG file of a frame; ProjectError outside 0 .. len - 1."""
        if not 0 <= index < len(self):
            raise ProjectError(f"frame: expected 0 to {len(self) - 1}, got {index}")
        return self.folder / "frames" / frame_file_name(index)

    def frame_jpeg(self, index: int) -> bytes:
        """The JPEG file's content, as it is.

        Raises:
            ProjectError: no such frame, or its file is missing.
        """
        path = self.frame_path(index)
        try:
            check_regular_file(path, LARGEST_JPEG_BYTES)
            return path.read_bytes()
        except (OSError, NotRegularFileError) as error:
            raise ProjectError(f"{self.recording_id}: frame {index} cannot be read: {error}") from error

    def frame_rgb(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Raises ProjectError as ``frame_jpeg``, or for a damaged file."""
        content, (height, width) = self.frame_jpeg(index), self.info.size_hw
        if complaint := complaint_about(content, max_pixels=height * width):  # OpenCV fills what is missing with gray
            raise ProjectError(f"{self.frame_path(index)} {complaint}")
        image_bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
        if image_bgr is None or image_bgr.shape[:2] != self.info.size_hw:
            raise ProjectError(f"{self.frame_path(index)} is damaged: it is no JPEG of the recording's size")
        return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)

    def time_s(self, index: int) -> float | None:
        """Seconds since the first frame; None where neither stamps nor a rate are known."""
        if self.info.stamps_ns:
            return (self.info.stamps_ns[index] - self.info.stamps_ns[0]) / 1e9
        return index / self.info.fps if self.info.fps else None


def frame_file_name(index: int) -> str:
    """ "000012.jpg"."""
    return f"{index:06d}.jpg"


@dataclass
class RecordingWriter:
    """Writes the frames of a new recording; nothing of it is in the project before ``finish``.

    Frames are added in order. All must have the size of the first.
    """

    recordings_folder: Path
    recording_id: str
    size_hw: tuple[int, int] | None = None
    stamps_ns: list[int] = field(default_factory=list)
    frame_ids: list[str] = field(default_factory=list)
    source_indices: list[int] = field(default_factory=list)
    frame_names: list[str] = field(default_factory=list)
    frame_count: int = 0

    def __post_init__(self) -> None:
        self._partial = self.recordings_folder / f"{PARTIAL_PREFIX}{self.recording_id}"
        shutil.rmtree(self._partial, ignore_errors=True)
        (self._partial / "frames").mkdir(parents=True)

    def add(
        self,
        image_rgb: NDArray[np.uint8],
        *,
        source_index: int,
        jpeg: bytes | None = None,
        stamp_ns: int | None = None,
        frame_id: str | None = None,
        name: str | None = None,
    ) -> None:
        """Append one frame.

        Args:
            image_rgb: (H, W, 3) uint8 RGB.
            source_index: its number in the source.
            jpeg: the JPEG file that the image was decoded from, to be kept as it is; None: it is compressed here.
            stamp_ns, frame_id, name: of this frame; given for all frames or for none.

        Raises:
            ProjectError: another size than the first frame's.
            OSError: it could not be written.
        """
        size_hw = (image_rgb.shape[0], image_rgb.shape[1])
        if self.size_hw is None:
            self.size_hw = size_hw
        if size_hw != self.size_hw:
            raise ProjectError(
                f"{name or f'frame {source_index}'} is {size_hw[1]}x{size_hw[0]}, the frames before it are "
                f"{self.size_hw[1]}x{self.size_hw[0]}: expected one size; put each size into a source of its own"
            )
        if jpeg is None:
            image_bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
            jpeg = cv2.imencode(".jpg", image_bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
        self._frame_path(self.frame_count).write_bytes(jpeg)
        self.frame_count += 1
        self.source_indices.append(source_index)
        if stamp_ns is not None:
            self.stamps_ns.append(stamp_ns)
        if frame_id is not None:
            self.frame_ids.append(frame_id)
        if name is not None:
            self.frame_names.append(name)

    def _frame_path(self, index: int) -> Path:
        return self._partial / "frames" / frame_file_name(index)

    def finish(
        self,
        *,
        name: str,
        kind: str,
        source: str,
        fps: float | None = None,
        topic: str = "",
        masklets: Sequence[Masklet] = (),
    ) -> Path:
        """Make it part of the project, with masklets that get ids in their order; returns its folder.

        Raises:
            ProjectError: there is no frame, or masks are of another size.
        """
        if self.size_hw is None:
            raise ProjectError(f"{source} has no frame")
        info = RecordingInfo(
            name=name,
            kind=kind,
            source=source,
            size_hw=self.size_hw,
            frame_count=self.frame_count,
            fps=fps,
            topic=topic,
            stamps_ns=tuple(self.stamps_ns),
            frame_ids=tuple(self.frame_ids),
            source_indices=tuple(self.source_indices),
            frame_names=tuple(self.frame_names),
        )
        write_json(self._partial / "recording.json", _info_to_json(info))
        store = MaskletStore(self._partial / "masklets", self.size_hw, self.frame_count, lambda: None)
        for masklet in masklets:
            store.take_up(masklet)
        sync_folder(self._partial / "frames")
        folder = self.recordings_folder / self.recording_id
        self._partial.rename(folder)
        sync_folder(self.recordings_folder)
        return folder

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)


def recording_id_for(name: str, taken: Sequence[str]) -> str:
    """A folder's name of a recording: that of its source, made safe, with a number if it is taken.

    >>> recording_id_for("Küche 2.mp4", ["K_che_2"])
    'K_che_2-2'
    """
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem).strip("_") or "recording"
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}-{number}"
    return candidate


def _info_to_json(info: RecordingInfo) -> dict[str, Any]:
    frame_ids = sorted(set(info.frame_ids))
    return {
        "name": info.name,
        "kind": info.kind,
        "source": info.source,
        "size_hw": list(info.size_hw),
        "frame_count": info.frame_count,
        "fps": info.fps,
        "topic": info.topic,
        "stamps_ns": list(info.stamps_ns),
        "frame_ids": frame_ids[0] if len(frame_ids) == 1 else list(info.frame_ids),
        "source_indices": list(info.source_indices),
        "frame_names": list(info.frame_names),
    }


def _info_from_json(values: Any, folder: Path) -> RecordingInfo:
    try:
        count = int(values["frame_count"])
        height, width = values["size_hw"]
        frame_ids = values["frame_ids"]
        return RecordingInfo(
            name=str(values["name"]),
            kind=str(values["kind"]),
            source=str(values["source"]),
            size_hw=(int(height), int(width)),
            frame_count=count,
            fps=values["fps"],
            topic=str(values["topic"]),
            stamps_ns=tuple(values["stamps_ns"]),
            frame_ids=(frame_ids,) * count if isinstance(frame_ids, str) else tuple(frame_ids),
            source_indices=tuple(values["source_indices"]),
            frame_names=tuple(values["frame_names"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProjectError(f"{folder}/recording.json is damaged ({type(error).__name__}: {error})") from error
