"""The demo's camera: which frames it shows, and that a stamp says which one an image is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.data.files.video import SourceError
from sam2_ros.demo.stream import (
    CameraStream,
    Prefetcher,
    StreamFrame,
    StreamSpec,
    build_tabletop,
    index_of_stamp,
    stamp_with_index,
)

SMALL = StreamSpec(frames=3, height_px=60, width_px=80)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index:03d}.png"), np.full((24, 32, 3), 10 * index, np.uint8))
    return tmp_path


@pytest.mark.parametrize("index", [0, 1, 149, 99_999])
def test_a_stamp_carries_the_number_of_its_frame(index: int) -> None:
    now_ns = 1_700_000_000_123_456_789
    stamp_ns = stamp_with_index(now_ns, index)
    assert index_of_stamp(stamp_ns) == index
    assert abs(stamp_ns - now_ns) <= 100_000  # 0.1 ms


def test_more_frames_than_a_stamp_can_number_are_rejected() -> None:
    with pytest.raises(ValueError, match="use fewer frames"):
        stamp_with_index(0, 100_000)


def test_rendered_stream_shows_the_scene_that_the_judge_rebuilds() -> None:
    stream = CameraStream(SMALL)
    frames = list(stream)
    truth = build_tabletop(SMALL).render(2)
    assert [f.index for f in frames] == [0, 1, 2]
    assert np.array_equal(frames[2].image_rgb, truth.image_rgb)
    assert frames[2].depth_mm is not None
    assert np.abs(frames[2].depth_mm / 1000 - truth.depth_m).max() <= 0.00051
    assert stream.info.camera_matrix is not None


def test_a_folder_keeps_its_size_and_has_no_depth(folder: Path) -> None:
    stream = CameraStream(StreamSpec(source=str(folder), height_px=480, width_px=640))
    frames = list(stream)
    assert stream.info.frame_count == len(frames) == 4
    assert frames[3].image_rgb.shape == (24, 32, 3)
    assert frames[3].image_rgb[0, 0, 0] == 30
    assert frames[3].depth_mm is None
    assert stream.info.camera_matrix is None


def test_frames_limits_a_source(folder: Path) -> None:
    stream = CameraStream(StreamSpec(source=str(folder), frames=2))
    assert stream.info.frame_count == 2
    assert len(list(stream)) == 2


def test_a_source_that_is_not_there_is_rejected_at_once() -> None:
    with pytest.raises(SourceError, match="nothing at"):
        CameraStream(StreamSpec(source="no/such/video.mp4"))


def test_prefetcher_hands_out_every_frame_in_order_and_then_none() -> None:
    ahead = Prefetcher(CameraStream(SMALL))
    ahead.start()
    assert ahead.ready.wait(20)
    frames = [ahead.take() for _ in range(3)]
    assert [f.index for f in frames if f is not None] == [0, 1, 2]
    assert ahead.take() is None
    assert ahead.take() is None
    ahead.close()


def test_prefetcher_stays_within_its_memory_and_goes_on_as_frames_are_taken(folder: Path) -> None:
    for index in range(4, 9):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.zeros((24, 32, 3), np.uint8))
    ahead = Prefetcher(CameraStream(StreamSpec(source=str(folder))), memory_bytes=4 * 24 * 32 * 3)
    ahead.start()
    assert ahead.ready.wait(20)
    assert ahead.made == 4
    assert [getattr(ahead.take(), "index", None) for _ in range(10)] == [*range(9), None]
    ahead.close()


def test_prefetcher_hands_on_what_went_wrong_while_reading() -> None:
    class Broken(CameraStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield StreamFrame(0, np.zeros((4, 4, 3), np.uint8), None)
            raise SourceError("the cable was pulled")

    ahead = Prefetcher(Broken(SMALL))
    ahead.start()
    assert ahead.ready.wait(20)
    first = ahead.take()
    assert first is not None and first.index == 0
    with pytest.raises(SourceError, match="cable"):
        ahead.take()


def test_a_prefetcher_can_be_closed_with_frames_left(folder: Path) -> None:
    ahead = Prefetcher(CameraStream(StreamSpec(source=str(folder))), memory_bytes=1)
    ahead.start()
    assert ahead.ready.wait(20)
    ahead.close()
    assert not ahead._thread.is_alive()
