"""``dataset create``: every kind of source becomes frames, clocks and masklets; bad ones are said in a line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam2_ros.annotate import recordings
from sam2_ros.annotate.masklets import MaskSource, Origin
from sam2_ros.annotate.project import VERSION, Project
from sam2_ros.annotate.recordings import Recording
from sam2_ros.annotate.sources import RateSampler
from sam2_ros.cli import main
from sam2_ros.data.files.masks import encode_rle, write_index_png
from sam2_ros.data.files.video import VideoWriter
from sam2_ros.tracking.types import ObjectState

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 33_333_333
COMPRESSED, IMAGE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"


def picture(level: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Gray, with a bright square at the top left; RGB."""
    image = np.full((height, width, 3), 20 + 4 * level, np.uint8)
    image[2:12, 2:12] = (250, 120, 10)
    return image


def create(project: Path, *arguments: object, status: int = 0) -> list[Recording]:
    assert main(["dataset", "create", str(project), *map(str, arguments)]) == status
    if not project.exists():
        return []
    with Project.open(project) as opened:
        return list(opened.recordings)


def write_video(path: Path, frames: int = 12, fps: float = 24.0, **size: int) -> Path:
    with VideoWriter(path, fps) as video:
        for level in range(frames):
            video.write(picture(level, **size))
    return path


class Bags:
    """Writes small recordings of ROS."""

    def __init__(self) -> None:
        from sam2_ros.data.files.rosbag import make_typestore

        self.types: dict[str, Any] = make_typestore().types

    def header(self, index: int) -> Any:
        stamp_ns = START_NS + index * PERIOD_NS - 20_000_000
        stamp = self.types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical")

    def image(self, index: int, pixels: np.ndarray, encoding: str = "rgb8") -> Any:
        data = np.ascontiguousarray(pixels).view(np.uint8)
        height, width = pixels.shape[:2]
        return self.types[IMAGE](self.header(index), height, width, encoding, 0, data.nbytes // height, data.ravel())

    def jpeg(self, index: int) -> Any:
        data = cv2.imencode(".jpg", picture(index)[..., ::-1])[1]
        return self.types[COMPRESSED](self.header(index), "rgb8; jpeg compressed bgr8", np.asarray(data).ravel())

    def tracked(self, label: int, state: int, mask: np.ndarray, x: int, y: int) -> Any:
        """An object whose mask is cropped to its place; an empty one stands for a node that publishes no masks."""
        never = self.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        point = self.types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0)
        turn = self.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        height, width = mask.shape
        none = self.types[IMAGE](self.header(0), 0, 0, "", 0, 0, np.zeros(0, np.uint8))
        return self.types["sam2_ros/msg/TrackedObject"](
            object_id=f"thing{label}",
            label=label,
            class_id="cup",
            state=state,
            score=0.75,
            mask_quality=0.5,
            roi=self.types["sensor_msgs/msg/RegionOfInterest"](
                x_offset=x, y_offset=y, width=width, height=height, do_rectify=False
            ),
            area=1,
            centroid=point,
            first_seen=never,
            last_seen=never,
            mask=self.image(0, mask, "mono8") if mask.size else none,
            has_pose=False,
            pose=self.types["geometry_msgs/msg/Pose"](position=point, orientation=turn),
            size=self.types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0),
        )

    def write(self, path: Path, topics: dict[str, tuple[str, list[Any]]], storage: str = "mcap") -> Path:
        from sam2_ros.data.files.rosbag import BagWriter

        writer = BagWriter(path, {topic: kind for topic, (kind, _) in topics.items()}, storage)
        for topic, (_, messages) in topics.items():
            for index, message in enumerate(messages):
                writer.write(topic, message, START_NS + index * PERIOD_NS)
        writer.close()
        return path


@pytest.fixture
def bags() -> Bags:
    pytest.importorskip("rosbags", reason="recordings need it: pip install -e '.[bags]'")
    return Bags()


@pytest.mark.parametrize("storage", ("mcap", "sqlite3"))
def test_a_recording_gives_frames_at_the_rate_with_stamps_and_frame_ids(
    tmp_path: Path, bags: Bags, storage: str
) -> None:
    images = [bags.image(index, picture(index)) for index in range(30)]
    jpegs = [bags.jpeg(index) for index in range(30)]
    bag = bags.write(tmp_path / "bag", {"/raw": (IMAGE, images), "/small/compressed": (COMPRESSED, jpegs)}, storage)
    (raw,) = create(tmp_path / "p", bag, "--topic", "/raw")
    assert raw.info.source_indices == (0, 5, 10, 15, 20, 25) and raw.info.topic == "/raw"
    assert raw.info.stamps_ns[1] == START_NS + 5 * PERIOD_NS - 20_000_000
    assert set(raw.info.frame_ids) == {"camera_optical"} and raw.info.fps == 6.0
    assert np.abs(raw.frame_rgb(2).astype(int) - picture(10)).mean() < 3
    small = create(tmp_path / "q", bag, "--topic", "/small/compressed", "--fps", "0")[0]
    assert len(small) == 30
    assert small.frame_jpeg(7) == bytes(jpegs[7].data), "a JPEG of the camera is not compressed again"


def test_two_image_topics_need_a_choice_and_a_wrong_one_is_refused(
    tmp_path: Path, bags: Bags, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [bags.image(index, picture(index)) for index in range(2)]
    bag = bags.write(tmp_path / "bag", {"/a": (IMAGE, images), "/b": (IMAGE, images)})
    for arguments, expected in (((), "expected one image topic"), (("--topic", "/c"), "no image topic /c")):
        assert create(tmp_path / "p", bag, *arguments, status=2) == []
        said = capsys.readouterr().err
        assert expected in said and "/a (" in said and said.count("\n") == 1


@pytest.mark.parametrize("wanted", [(), ("--topic", "/scan")])
def test_a_recording_without_images_says_what_it_has(
    tmp_path: Path, bags: Bags, capsys: pytest.CaptureFixture[str], wanted: tuple[str, ...]
) -> None:
    """As one whose camera was recorded as video, or as depth that is packed."""
    bag = bags.write(tmp_path / "bag", {"/scan": ("std_msgs/msg/Header", [bags.header(0)])})
    assert create(tmp_path / "p", bag, *wanted, status=2) == []
    said = capsys.readouterr().err
    assert f"read are {IMAGE} and {COMPRESSED}, recorded are /scan (std_msgs/msg/Header)" in said


def test_what_the_node_published_becomes_masklets_to_verify(tmp_path: Path, bags: Bags) -> None:
    """Object 1 by the label image, object 2 by its own cropped mask, which overlaps; the camera is found by itself."""
    labels = np.zeros((32, 48), np.uint8)
    labels[4:10, 6:20] = 1
    types = bags.types
    nothing, square = np.zeros((0, 0), np.uint8), np.full((5, 7), 255, np.uint8)
    lists = [
        types["sam2_ros/msg/TrackedObjectArray"](
            header=bags.header(index),
            frame_index=index,
            frames_dropped=0,
            inference_ms=1.0,
            age_ms=1.0,
            objects=[bags.tracked(1, 1 if index < 2 else 2, nothing, 0, 0), bags.tracked(2, 1, square, 10, 6)],
        )
        for index in range(3)
    ]
    bag = bags.write(
        tmp_path / "bag",
        {
            "/camera": (IMAGE, [bags.image(index, picture(index)) for index in range(4)]),
            "/sam2_node/label_image": (IMAGE, [bags.image(i, labels * (i < 2), "mono8") for i in range(3)]),
            "/sam2_node/objects": ("sam2_ros/msg/TrackedObjectArray", lists),
        },
    )
    (recording,) = create(tmp_path / "p", bag, "--fps", "0")
    assert recording.info.topic == "/camera" and len(recording) == 4
    first, second = recording.masklets.all()
    assert (first.name, first.class_name, first.origin) == ("thing1", "cup", Origin.IMPORTED)
    assert [first.frames[i].state for i in range(3)] == [*[ObjectState.TRACKED] * 2, ObjectState.OCCLUDED]
    assert first.frames[0].score == 0.75 and first.frames[0].quality == 0.5 and 3 not in first.frames
    np.testing.assert_array_equal(first.frames[0].mask(), labels == 1)
    placed = np.zeros((32, 48), bool)
    placed[6:11, 10:17] = True
    np.testing.assert_array_equal(second.frames[2].mask(), placed)


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, bags: Bags, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [bags.jpeg(index) for index in range(8)]
    images[5].data = images[5].data[:100]
    bag = bags.write(tmp_path / "bag", {"/a": (COMPRESSED, images)})
    folder = tmp_path / "folder"
    folder.mkdir()
    for level in range(4):
        cv2.imwrite(str(folder / f"{level}.jpg"), picture(level))
    for level in (1, 2):
        (folder / f"{level}.jpg").write_bytes((folder / f"{level}.jpg").read_bytes()[:-40])
    recorded, kept = create(tmp_path / "p", bag, folder, "--fps", "0")
    assert recorded.info.source_indices == (0, 1, 2, 3, 4, 6, 7) and kept.info.source_indices == (0, 3)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sam2-ros")]
    assert "image 5 on /a" in said[0] and said[0].endswith("; left out")
    assert "1.jpg is cut off" in said[1] and said[1].endswith("; 2 images are left out")


def test_a_recording_without_its_end_is_refused(tmp_path: Path, bags: Bags, capsys: pytest.CaptureFixture[str]) -> None:
    bag = bags.write(tmp_path / "bag", {"/a": (IMAGE, [bags.image(i, picture(i)) for i in range(4)])})
    (storage,) = bag.glob("*.mcap")
    storage.write_bytes(storage.read_bytes()[:2000])
    assert create(tmp_path / "p", bag, status=2) == []
    said = capsys.readouterr().err
    assert "cannot be read as a rosbag2 recording" in said and said.count("\n") == 1


def test_a_video_gives_six_frames_a_second_and_a_folder_gives_all(tmp_path: Path) -> None:
    video = write_video(tmp_path / "Küche 2.mp4")
    folder = tmp_path / "ein Ordner"
    folder.mkdir()
    for level in (1, 2, 10):
        cv2.imwrite(str(folder / f"{level}.jpg"), picture(level))
    cv2.imwrite(str(folder / "11.png"), picture(11))
    recordings = {each.info.name: each for each in create(tmp_path / "ü p", video, folder)}
    clip, images = recordings["Küche 2.mp4"], recordings["ein Ordner"]
    assert clip.info.source_indices == (0, 4, 8) and clip.info.fps == 6.0 and clip.time_s(2) == pytest.approx(1 / 3)
    assert clip.recording_id == "K_che_2" and clip.info.size_hw == (32, 48)
    assert images.info.frame_names == ("1", "2", "10", "11") and images.time_s(1) is None
    assert images.frame_jpeg(2) == (folder / "10.jpg").read_bytes()


def test_a_phone_video_is_turned_as_it_is_shown(tmp_path: Path) -> None:
    video = write_video(tmp_path / "phone.mp4", 4, 6.0)
    content = bytearray(video.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # a track header of version 0; its matrix is in 16.16 and 2.30
    assert struct.unpack(">9i", content[matrix : matrix + 36])[:2] == (1 << 16, 0)
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    video.write_bytes(content)
    (recording,) = create(tmp_path / "p", video)
    assert recording.info.size_hw == (48, 32)
    frame = recording.frame_rgb(0)
    assert frame[6, 25, 0] > 200 and frame[6, 6, 0] < 100, "what was top left is top right, turned clockwise"


@pytest.mark.parametrize("layout", ("JPEGImages/480p", "JPEGImages", "plain"))
def test_davis_layouts_bring_their_masks(tmp_path: Path, layout: str) -> None:
    plain = layout == "plain"
    frames = tmp_path / "set" / ("bear/images" if plain else f"{layout}/bear")
    masks = tmp_path / "set" / ("bear/masks" if plain else f"{layout.replace('JPEGImages', 'Annotations')}/bear")
    frames.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(frames / f"{index:05d}.jpg"), picture(index))
        values = np.zeros((32, 48), np.uint8)
        values[3:9, 4 + index : 12] = 3 if index < 2 else 0
        write_index_png(masks / f"{index:05d}.png", values)
    (recording,) = create(tmp_path / "p", tmp_path / "set")
    (masklet,) = recording.masklets.all()
    assert masklet.name == "object 3" and recording.info.kind == "davis"
    assert [masklet.frames[i].visible for i in range(3)] == [True, True, False]
    assert masklet.frames[1].mask().sum() == 6 * 7 and masklet.frames[0].source is MaskSource.IMPORTED
    if plain:
        assert len(create(tmp_path / "q", tmp_path / "set" / "bear")[0].masklets.all()) == 1


def test_sav_brings_the_annotated_frames_of_both_of_its_layouts(tmp_path: Path) -> None:
    root, mask = tmp_path / "sav", np.zeros((32, 48), bool)
    mask[3:9, 4:12] = True
    write_video(root / "sav_000001.mp4", 9)
    annotation = {"masklet": [[encode_rle(mask), encode_rle(~mask)] for _ in range(3)]}
    (root / "sav_000001_manual.json").write_text(json.dumps(annotation))
    (recording,) = create(tmp_path / "p", root)
    assert recording.info.source_indices == (0, 4, 8) and recording.info.fps == 6.0
    first, second = recording.masklets.all()
    np.testing.assert_array_equal(first.frames[2].mask(), mask)
    np.testing.assert_array_equal(second.frames[0].mask(), ~mask)

    val = tmp_path / "val"
    (val / "JPEGImages_24fps" / "v").mkdir(parents=True)
    for index in range(9):
        cv2.imwrite(str(val / "JPEGImages_24fps" / "v" / f"{index:05d}.jpg"), picture(index))
    for index in (4, 8):
        write_index_png(val / "Annotations_6fps" / "v" / "001" / f"{index:05d}.png", mask.astype(np.uint8))
    (recording,) = create(tmp_path / "q", val)
    assert recording.info.frame_names == ("00000", "00004", "00008")
    (masklet,) = recording.masklets.all()
    assert masklet.frame_indices == (1, 2) and masklet.name == "object 2"


def test_mixed_sizes_empty_videos_and_nothing_at_all_are_said_in_a_line_each_and_the_rest_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, good, empty, text = tmp_path / "mixed", tmp_path / "good", tmp_path / "empty.mp4", tmp_path / "a.mp4"
    for folder in (mixed, good):
        folder.mkdir()
        cv2.imwrite(str(folder / "0.png"), picture(0))
    cv2.imwrite(str(mixed / "1.png"), picture(1, 48, 32))
    empty.touch()
    text.write_text("no video")
    sources = (mixed, empty, text, tmp_path / "nothing", tmp_path, good)
    (recording,) = create(tmp_path / "p", *sources, status=1)
    assert recording.recording_id == "good"
    output = capsys.readouterr()
    said = [line for line in output.err.splitlines() if line.startswith("sam2-ros dataset create: ")]
    assert len(said) == 5
    for line, expected in zip(
        said,
        ("1 is 32x48, the frames before it are 48x32", "opened", "opened", "nothing at", "no image in"),
        strict=True,
    ):
        assert expected in line
    assert json.loads(output.out.splitlines()[-1])["failed"] == [str(each) for each in sources[:-1]]
    assert [each.name for each in (tmp_path / "p" / "recordings").iterdir()] == ["good"]


def test_nothing_to_import_leaves_no_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(tmp_path / "p", tmp_path / "nothing", status=2) == [] and not (tmp_path / "p").exists()
    assert create(tmp_path / "p", tmp_path, "--fps", "-1", status=2) == [] and not (tmp_path / "p").exists()
    assert "--fps: expected" in capsys.readouterr().err


def test_more_can_be_added_and_what_is_there_is_not_imported_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b" / "a.mp4")
    create(tmp_path / "p", first)
    assert [r.recording_id for r in create(tmp_path / "p", first, second)] == ["a", "a-2"]
    assert "a.mp4 is in the project already" in capsys.readouterr().err


def test_a_full_disk_leaves_the_project_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "p", write_video(tmp_path / "a.mp4"))
    written = []

    class FullDisk(type(tmp_path)):  # type: ignore[misc]
        def write_bytes(self, data: bytes) -> int:
            written.append(self)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            return int(super().write_bytes(data))

    with monkeypatch.context() as patch:
        patch.setattr(recordings.RecordingWriter, "_frame_path", lambda self, i: FullDisk(self._partial) / f"{i}.jpg")
        assert main(["dataset", "create", str(tmp_path / "p"), str(write_video(tmp_path / "b.mp4", 24))]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sam2-ros")]
    assert len(said) == 1 and "b.mp4: the disk is full: make room" in said[0]
    assert [each.name for each in (tmp_path / "p" / "recordings").iterdir()] == ["a"]


def test_a_project_of_a_newer_version_or_in_use_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "a.mp4")
    create(tmp_path / "p", video)
    with Project.open(tmp_path / "p", "sam2-ros annotate"):
        assert main(["dataset", "create", str(tmp_path / "p"), str(video)]) == 2
    assert "is open in sam2-ros annotate" in capsys.readouterr().err
    path = tmp_path / "p" / "project.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": VERSION + 1}))
    before = path.read_bytes()
    assert main(["dataset", "create", str(tmp_path / "p"), str(video)]) == 2
    assert "newer sam2_ros" in capsys.readouterr().err and path.read_bytes() == before


def test_a_rate_is_kept_with_jitter_and_without_knowing_the_sources() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(300) / 30 + rng.uniform(-0.005, 0.005, 300)
    sampler = RateSampler(6.0, 30.0)
    taken = [index for index, time_s in enumerate(times) if sampler.takes(time_s)]
    assert len(taken) == 60 and set(np.diff(taken)) <= {4, 5, 6}
    unknown = RateSampler(6.0)
    assert 59 <= sum(unknown.takes(time_s) for time_s in times) <= 61
    every = RateSampler(60.0, 30.0)
    assert all(every.takes(time_s) for time_s in times) and every.rate == 30.0
