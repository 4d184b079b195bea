"""The demo's record of a run, and the pictures made of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sam2_ros.demo.report import CameraFrame, Output, PackedImage, Recording, SeenObject, result_of, write_pictures
from sam2_ros.demo.stream import stamp_with_index
from sam2_ros.tracking.overlay import label_color_rgb
from sam2_ros.tracking.types import ObjectState

MS = 1_000_000
GREY = PackedImage.photo(np.full((48, 64, 3), 100, np.uint8))
MUG = SeenObject("mug", 2, ObjectState.TRACKED, 0.9, 0.8)
BALL = SeenObject("ball", 1, ObjectState.OCCLUDED, 0.1, 0.0)


def stamp_of(index: int, repeat: int = 0) -> int:
    return stamp_with_index((index * 100 + repeat * 10) * MS, index)


def an_output(stamp_ns: int) -> Output:
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:50] = 2
    return Output(stamp_ns, stamp_ns + MS, PackedImage.labels(labels), (MUG, BALL), 12.5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_labels_are_kept_exactly(kind: type) -> None:
    labels = np.arange(48 * 64).reshape(48, 64).astype(kind)
    unpacked = PackedImage.labels(labels).unpack_labels()
    assert unpacked.dtype == kind
    assert np.array_equal(unpacked, labels)


def test_photos_keep_their_channels_in_order() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(PackedImage.photo(red).unpack_photo().astype(int) - red).max() < 8


def test_camera_frames_are_those_seen_and_those_missing_in_between() -> None:
    stamps = {i: stamp_of(i) for i in (0, 1, 4)}
    recording = Recording({stamps[0]: GREY, stamps[4]: GREY}, {stamps[1]: an_output(stamps[1])}, frame_count=6)
    assert recording.camera_frames() == [
        CameraFrame(0, stamps[0]),
        CameraFrame(1, stamps[1]),  # only its answer came
        CameraFrame(2, None),
        CameraFrame(3, None),
        CameraFrame(4, stamps[4]),
        CameraFrame(5, None),  # the stream has six frames
    ]


def test_the_first_frame_may_be_shown_several_times() -> None:
    first, again = stamp_of(0), stamp_of(0, repeat=1)
    assert Recording({first: GREY, again: GREY}, {}).camera_frames() == [CameraFrame(0, first), CameraFrame(0, again)]


def test_a_run_without_images_has_no_frames() -> None:
    assert Recording({}, {}, frame_count=5).camera_frames() == []


def test_messages_become_the_trackers_own_result() -> None:
    result = result_of(an_output(stamp_of(3)), 3)
    assert [o.object_id for o in result] == ["ball", "mug"]  # by label
    assert result["mug"].area_px == 20 * 30
    assert result["mug"].box_xyxy == (20, 10, 50, 30)
    assert result["mug"].centroid_xy == (34.5, 19.5)
    assert (result["ball"].area_px, result["ball"].box_xyxy, result["ball"].centroid_xy) == (0, None, None)
    assert result["ball"].state is ObjectState.OCCLUDED


def test_pictures_show_the_masks_also_on_a_dropped_frame(tmp_path: Path) -> None:
    stamps = [stamp_of(i) for i in range(4)]
    recording = Recording(dict.fromkeys(stamps, GREY), {stamps[1]: an_output(stamps[1])})
    path = write_pictures(recording, tmp_path, rate_hz=10.0, picture_at=0.99)
    assert path == tmp_path / "overlay.mp4"
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "overlay.png")), cv2.COLOR_BGR2RGB)
    tint = picture[25, 30].astype(int) - picture[45, 5]  # inside the last published mask, against the background
    assert np.argmax(tint) == np.argmax(np.array(label_color_rgb(2)) - 100)
    assert np.abs(tint).max() > 20
