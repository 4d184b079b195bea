"""Video in and out: what is written comes back, and what cannot be opened is named."""

from __future__ import annotations

import functools
import http.server
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.video import FrameSource, SourceError, SourceInfo, VideoWriter, open_source, read_frames


def test_video_comes_back_in_rgb_with_its_rate_and_length(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.mp4"
    with VideoWriter(path, fps=12.5) as writer:
        for level in range(0, 200, 20):
            writer.write(np.full((48, 64, 3), (200, level, 30), np.uint8))
    assert writer.frame_count == 10
    with open_source(path) as source:
        frames = list(source)
    assert source.info == SourceInfo("clip.mp4", 12.5, 10, live=False)
    assert len(frames) == 10
    assert frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8
    for level, frame in zip(range(0, 200, 20), frames, strict=True):
        # Lossy coding: near is enough, and red and blue must not be swapped.
        np.testing.assert_allclose(frame[24, 32], (200, level, 30), atol=8)


def test_frame_of_another_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.write(np.full((96, 32, 3), 255, np.uint8))
    with open_source(tmp_path / "clip.mp4") as source:
        frames = list(source)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 2
    assert frames[1].min() > 240


def test_video_of_odd_size_is_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as writer:
        writer.write(np.full((31, 45, 3), 90, np.uint8))
    with open_source(tmp_path / "clip.mp4") as source:
        assert [frame.shape for frame in source] == [(30, 44, 3)]


def test_writer_that_got_no_frame_leaves_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "clip.mp4").close()
    assert not (tmp_path / "clip.mp4").exists()


def test_writer_rejects_gray(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as writer, pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        writer.write(np.zeros((8, 8), np.uint8))


def test_folder_of_images(tmp_path: Path) -> None:
    for number in (10, 9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 6, 3), (0, 0, number), np.uint8))
    with open_source(str(tmp_path)) as source:
        assert source.info == SourceInfo(tmp_path.name, None, 2, live=False)
        assert [frame[0, 0].tolist() for frame in source] == [[9, 0, 0], [10, 0, 0]]
        assert len(list(source)) == 2, "a folder can be gone through again"


class _FakeCapture:
    """A camera that delivers two frames and then stops."""

    def __init__(self) -> None:
        self.left = 2
        self.released = False

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((2, 2, 3), (1, 2, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


def test_camera_that_stops_is_reported_after_its_frames() -> None:
    capture = _FakeCapture()
    frames = []
    with (
        pytest.raises(SourceError, match="camera0 stopped after 2 frames"),
        FrameSource(SourceInfo("camera0", None, None, live=True), capture=capture) as source,  # type: ignore[arg-type]
    ):
        frames.extend(frame[0, 0].tolist() for frame in source)
    assert capture.released


def test_file_without_frames_is_reported() -> None:
    capture = _FakeCapture()
    capture.left = 0
    source = FrameSource(SourceInfo("a.mp4", 25.0, None, live=False), capture=capture)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=r"a\.mp4 .*damaged"):
        list(source)


@pytest.mark.parametrize(
    ("name", "why"), [("missing.mp4", "there is nothing"), ("text.mp4", "cannot be opened"), ("empty", "no image in")]
)
def test_source_that_cannot_be_opened_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=why) as error:
        open_source(tmp_path / name)
    assert name in str(error.value)


def test_camera_that_is_not_there_is_named_by_its_index() -> None:
    with pytest.raises(SourceError, match="no camera with index 9876"):
        open_source("9876")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the files in ``tmp_path``."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://somebody:secret@127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """No line per request."""


def test_a_url_is_opened_and_no_password_is_shown(tmp_path: Path, server: str) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 10.0) as writer:
        for value in (10, 200):
            writer.write(np.full((32, 48, 3), value, np.uint8))
    with open_source(f"{server}/clip.mp4") as source:
        assert (source.info.name, source.info.live) == ("clip.mp4", False)
        assert [bool(image.mean() > 100) for image in source] == [False, True]
    with pytest.raises(
        SourceError, match=r"none\.mp4 cannot be opened from http://127\.0\.0\.1; is it reachable"
    ) as error:
        open_source(f"{server}/none.mp4")
    assert "secret" not in str(error.value)


NUMBERED = 40  # frames of the numbered video


def write_numbered(path: Path, times_ms: list[int]) -> None:
    """H.264 with B-frames and few key frames; each frame shows its number as six bright or dark bars."""
    av = pytest.importorskip("av", reason="reading by number needs the extra: pip install sam2_ros[video]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "12", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            image = np.zeros((64, 96, 3), np.uint8)
            for bit in range(6):
                image[16:, 16 * bit : 16 * bit + 16] = 220 if number >> bit & 1 else 30
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def number_in(image: np.ndarray) -> int:
    return sum(int(image[40, 16 * bit + 8].mean() > 125) << bit for bit in range(6))


def steady() -> list[int]:
    return [40 * number for number in range(NUMBERED)]


def varying() -> list[int]:
    """Dense at first, then with gaps: as phones record in the dark."""
    return [int(time) for time in np.cumsum([20] * 15 + [140, 33] * 12 + [60])]


@pytest.mark.parametrize("times_ms", [steady(), varying()], ids=["constant rate", "variable rate"])
@pytest.mark.parametrize(
    "numbers", [range(0, 9, 4), range(16, 29, 4), [13], [5, 23, 39], range(36, 52, 4), []], ids=str
)
def test_frames_are_found_by_number_whatever_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times_ms: list[int], numbers: Sequence[int]
) -> None:
    path = tmp_path / "numbered.mp4"
    write_numbered(path, times_ms)
    expected = [number for number in numbers if number < NUMBERED]
    assert [number_in(image) for image in read_frames(path, numbers)] == expected
    monkeypatch.setitem(sys.modules, "av", None)
    assert [number_in(image) for image in read_frames(path, numbers)] == expected, "without av"


def test_a_turned_video_is_shown_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones write pixels as the sensor has them and a matrix in the track's header."""
    path = tmp_path / "turned.mp4"
    write_numbered(path, steady())
    content = path.read_bytes()
    matrix = content.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(content[:matrix] + quarter + content[matrix + 36 :])
    (with_av,) = read_frames(path, [6])
    monkeypatch.setitem(sys.modules, "av", None)
    (without,) = read_frames(path, [6])
    assert with_av.shape == without.shape == (96, 64, 3)
    assert np.abs(with_av.astype(int) - without).mean() < 3


def test_what_is_no_video_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    for _ in range(2):
        with pytest.raises(SourceError, match="expected a video file, there is none at"):
            read_frames(tmp_path / "nowhere.mp4", [0])
        with pytest.raises(SourceError, match=r"text\.mp4 cannot be read as a video"):
            read_frames(tmp_path / "text.mp4", [0])
        monkeypatch.setitem(sys.modules, "av", None)


def test_images_of_a_folder_that_cannot_be_read_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.full((16, 16, 3), 40 * number, np.uint8))
    for number in (0, 3):
        (tmp_path / f"{number}.jpg").write_bytes((tmp_path / f"{number}.jpg").read_bytes()[:-20])
    with open_source(tmp_path) as source:
        for _ in range(2):  # a folder can be gone through again
            assert [round(float(frame.mean()) / 40) for frame in source] == [1, 2, 4]
            assert list(source.left_out) == [0, 3] and "3.jpg is cut off" in source.left_out[3]
    assert "left out: " in caplog.text and "0.jpg is cut off" in caplog.text


def test_a_folder_without_any_readable_image_is_reported(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_text("text")
    with open_source(tmp_path) as source, pytest.raises(SourceError, match=r"no image can be read; .*0\.jpg"):
        list(source)
