"""What the demo's camera shows: the rendered tabletop, or a video file, a camera, a folder of images.

The camera and the client that judges the result are two processes that share nothing but messages. Both build
the same stream from the same ``StreamSpec``, and an image's stamp says which frame of it the image is.
"""

from __future__ import annotations

import argparse
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.data.files.video import open_source
from sam2_ros.data.prompt_text import PromptSpec, parse_prompts
from sam2_ros.demo.tabletop.scene import Tabletop

TABLETOP_FRAMES = 150
# A stamp counts in steps of this; what is left over is the number of the frame.
_STAMP_STEP_NS = 100_000
MAX_RATE_HZ = 15.0
MIN_SIDE_PX = 48


@dataclass(frozen=True)
class StreamSpec:
    """Which frames to show, and how many. An empty ``source`` is the rendered tabletop."""

    source: str = ""
    frames: int = 0  # 0 = all there are; of the tabletop, 150
    height_px: int = 480  # of the tabletop; a source keeps its own size
    width_px: int = 640

    @property
    def rendered(self) -> bool:
        return not self.source


@dataclass(frozen=True)
class StreamFrame:
    """One picture of the stream."""

    index: int
    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_mm: NDArray[np.uint16] | None  # (H, W), aligned with the image; 0 = unknown; None: the source has no depth


@dataclass(frozen=True)
class StreamInfo:
    """What is known before the first frame."""

    name: str
    frame_count: int | None  # None: not known
    live: bool  # True for a camera: it does not wait
    camera_matrix: NDArray[np.float64] | None  # (3, 3) px, None when not calibrated


class CameraStream:
    """The frames of a ``StreamSpec``, in order, once."""

    def __init__(self, spec: StreamSpec) -> None:
        """Raises SourceError when there is no such source."""
        self._spec = spec
        self._scene: Tabletop | None = None
        if spec.rendered:
            self._scene = build_tabletop(spec)
            self.info = StreamInfo("tabletop", spec.frames or TABLETOP_FRAMES, False, self._scene.camera_matrix)
            return
        self._reader = open_source(spec.source)
        known = self._reader.info
        count = known.frame_count
        if spec.frames:
            count = min(count, spec.frames) if count else spec.frames
        self.info = StreamInfo(known.name, count, known.live, None)

    def __iter__(self) -> Iterator[StreamFrame]:
        if self._scene is not None:
            for index in range(self.info.frame_count or 0):
                frame = self._scene.render(index)
                yield StreamFrame(index, frame.image_rgb, (frame.depth_m * 1000 + 0.5).astype(np.uint16))
            return
        with self._reader:
            for index, image_rgb in enumerate(self._reader):
                if self._spec.frames and index >= self._spec.frames:
                    return
                yield StreamFrame(index, image_rgb, None)


def build_tabletop(spec: StreamSpec) -> Tabletop:
    """The scene behind a rendered stream, whose frame ``i`` is the stream's, at whatever rate it is shown."""
    return Tabletop(height_px=spec.height_px, width_px=spec.width_px)


def stamp_with_index(time_ns: int, index: int) -> int:
    """A stamp at ``time_ns``, to 0.1 ms, that carries the frame's number."""
    if not 0 <= index < _STAMP_STEP_NS:
        raise ValueError(f"expected a frame number of 0..{_STAMP_STEP_NS - 1}, got {index}; use fewer frames")
    return time_ns // _STAMP_STEP_NS * _STAMP_STEP_NS + index


def index_of_stamp(stamp_ns: int) -> int:
    """The frame's number that ``stamp_with_index`` put in."""
    return stamp_ns % _STAMP_STEP_NS


class Prefetcher:
    """Makes frames ahead of time, on its own thread, so that rendering does not compete with the tracking."""

    def __init__(self, stream: CameraStream, *, memory_bytes: int = 512_000_000) -> None:
        self.info = stream.info
        self.made = 0  # frames so far
        self.ready = threading.Event()  # set when as many frames as fit are there, or all
        self._stream = stream
        self._memory_bytes = memory_bytes
        self._slots: threading.Semaphore | None = None
        self._capacity = 0
        self._frames: queue.Queue[StreamFrame | BaseException | None] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> StreamFrame | None:
        """The next frame, waiting for it if need be; None after the last. Raises what reading the source raised."""
        item = self._frames.get()
        if isinstance(item, StreamFrame):
            if self._slots is not None:
                self._slots.release()
            return item
        self._frames.put(item)  # a further call returns or raises the same
        if item is not None:
            raise item
        return None

    def newest(self) -> StreamFrame | None:
        """Like ``take``, but skips to the latest frame, as for a live camera."""
        frame = self.take()
        while frame is not None and not self._frames.empty():
            following = self.take()
            if following is None:
                break
            frame = following
        return frame

    def close(self) -> None:
        """End the thread; frames that were not taken are lost."""
        self._stop.set()
        if self._slots is not None:
            self._slots.release()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _fill(self) -> None:
        last: BaseException | None = None
        try:
            for frame in self._stream:
                if self._slots is None:
                    self._capacity = self._frames_that_fit(frame)
                    self._slots = threading.Semaphore(self._capacity)
                self._slots.acquire()
                if self._stop.is_set():
                    break
                self._frames.put(frame)
                self.made += 1
                if self.made >= self._capacity:
                    self.ready.set()
        except BaseException as error:  # raised where the frames are taken
            last = error
        self._frames.put(last)
        self.ready.set()

    def _frames_that_fit(self, frame: StreamFrame) -> int:
        if self.info.live:
            return 3
        size = frame.image_rgb.nbytes + (frame.depth_mm.nbytes if frame.depth_mm is not None else 0)
        return max(self._memory_bytes // size, 3)


@dataclass(frozen=True)
class Size:
    """An image's size."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


def parse_size(text: str) -> Size:
    """``"640x480"``. Raises ArgumentTypeError with what was expected."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    size = Size(int(match[1]), int(match[2])) if match else None
    if size is None or min(size.width_px, size.height_px) < MIN_SIDE_PX:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT such as 640x480, {MIN_SIDE_PX} or more each, got {text!r}"
        )
    return size


def positive_rate(text: str) -> float:
    """A rate in Hz."""
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz <= 1000:
        raise argparse.ArgumentTypeError(f"expected a rate of more than 0 and at most 1000 Hz, got {text!r}")
    return rate_hz


def frame_limit(text: str) -> int:
    """A number of frames, 0 for all of them."""
    if not text.isdecimal() or int(text) >= 100_000:
        raise argparse.ArgumentTypeError(f"expected a number of frames, 0 (all) to 99999, got {text!r}")
    return int(text)


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add --source, --frames, --size and --rate-hz."""
    parser.add_argument(
        "--source",
        default="",
        help="a video file, a camera's index or a folder of images; default: the rendered tabletop",
    )
    parser.add_argument(
        "--frames",
        type=frame_limit,
        default=0,
        help="show no more frames than this; default: all (tabletop: 150, a camera in the demo: 300)",
    )
    parser.add_argument(
        "--size", type=parse_size, default=Size(640, 480), help="size of the rendered tabletop, default 640x480"
    )
    parser.add_argument(
        "--rate-hz",
        type=positive_rate,
        help=f"camera frames per second; default: what the node keeps up with, at most {MAX_RATE_HZ:g}",
    )


def stream_spec(args: argparse.Namespace) -> StreamSpec:
    """What the options mean."""
    return StreamSpec(args.source, args.frames, args.size.height_px, args.size.width_px)


def stream_arguments(args: argparse.Namespace) -> list[str]:
    """The options again, for another process."""
    chosen = ["--frames", str(args.frames), "--size", str(args.size)]
    chosen += ["--rate-hz", repr(args.rate_hz)] if args.rate_hz is not None else []
    chosen += ["--source", args.source] if args.source else []
    return chosen


@dataclass(frozen=True)
class Truth:
    """What is known of a rendered stream."""

    ids_of: Callable[[int], NDArray[np.uint8]]  # frame number -> (H, W) instance ids
    truth_ids: dict[str, int]  # object id -> its value there


@dataclass(frozen=True)
class Wish:
    """The prompts, and the truth to judge the masks by; None where it is not known."""

    prompts: tuple[PromptSpec, ...]  # each with an object id
    truth: Truth | None


def make_wish(spec: StreamSpec, texts: Sequence[str], size_wh: tuple[int, int]) -> Wish:
    """One click on each object of the rendered tabletop; else what ``texts`` say; else one click on the image's middle.

    Args:
        spec: what the camera shows.
        texts: prompts as a person writes them, see ``sam2_ros.data.prompt_text``; each is an object.
        size_wh: the camera image's width and height.

    Raises:
        ValueError: a text that is no prompt, or two objects of one name.
    """
    if texts:
        return Wish(_from_texts(texts), None)
    if not spec.rendered:
        return Wish((_click("object1", size_wh[0] / 2, size_wh[1] / 2),), None)
    scene = build_tabletop(spec)
    clicks = scene.click_points(0)
    truth_ids = {click.name: scene.names.index(click.name) + 1 for click in clicks}
    prompts = tuple(_click(click.name, click.x_px, click.y_px) for click in clicks)
    return Wish(prompts, Truth(scene.render_ids, truth_ids))


def _click(object_id: str, x_px: float, y_px: float) -> PromptSpec:
    return PromptSpec(object_id, ((x_px, y_px),), (1,), None)


def _from_texts(texts: Sequence[str]) -> tuple[PromptSpec, ...]:
    specs = [spec for text in texts for spec in parse_prompts(text)]
    named = [replace(spec, object_id=spec.object_id or f"object{i}") for i, spec in enumerate(specs, start=1)]
    if len({spec.object_id for spec in named}) < len(named):
        raise ValueError(f"expected a different name for each object, got {', '.join(str(s.object_id) for s in named)}")
    return tuple(named)
