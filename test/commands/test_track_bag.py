"""``sam2-ros track`` on tiny generated recordings, in both storages; what is written is read with real ROS messages."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

import sam2_ros
from sam2_ros.cli import main
from sam2_ros.data.files.images import read_image_rgb
from sam2_ros.data.files.rosbag import COMPRESSED_IMAGE, IMAGE, BagWriter, make_typestore
from sam2_ros.data.files.video import SourceError
from sam2_ros.msg import TrackedObject, TrackedObjectArray

pytest.importorskip("rosbags", reason="recordings need it: pip install rosbags")
Reader = importlib.import_module("rosbags.rosbag2").Reader
typesys = importlib.import_module("rosbags.typesys")

START_NS = 1_700_000_000_000_000_000
STORAGES = ("mcap", "sqlite3")
TYPES: Any = make_typestore().types


def header(index: int) -> Any:
    """The camera's stamp is 20 ms before the time of recording."""
    stamp_ns = recorded_ns(index) - 20_000_000
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical")


def recorded_ns(index: int) -> int:
    return START_NS + index * 100_000_000


def raw(image_rgb: np.ndarray, index: int, encoding: str = "bgr8") -> Any:
    height, width = image_rgb.shape[:2]
    padded = np.zeros((height, width * 3 + 4), np.uint8)
    padded[:, : width * 3] = image_rgb[..., ::-1].reshape(height, -1)
    return TYPES[IMAGE](header(index), height, width, encoding, 0, padded.shape[1], padded.ravel())


def compressed(image_rgb: np.ndarray, index: int) -> Any:
    _, data = cv2.imencode(".png", image_rgb[..., ::-1])
    return TYPES[COMPRESSED_IMAGE](header(index), "bgr8; png compressed bgr8", data.ravel())


def record(path: Path, topics: dict[str, list[Any]], storage: str = "mcap") -> Path:
    writer = BagWriter(path, {name: messages[0].__msgtype__ for name, messages in topics.items()}, storage)
    for name, messages in topics.items():
        for index, message in enumerate(messages):
            writer.write(name, message, recorded_ns(index))
    writer.close()
    return path


@pytest.fixture
def images(coloured_sequence: Path) -> list[np.ndarray]:
    return [read_image_rgb(path) for path in sorted((coloured_sequence / "blocks" / "images").iterdir())]


@pytest.fixture(autouse=True)
def no_network(colour_tracker_class: type, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tracker(colour_tracker_class):  # type: ignore[misc, valid-type]
        model_name = "colours"

    def load_tracker(*, lost_after_frames: int, recover_after_frames: int, **_: object) -> Tracker:
        assert (lost_after_frames, recover_after_frames) == (30, 2), "the node's defaults"
        return Tracker()

    monkeypatch.setitem(vars(sam2_ros), "load_tracker", load_tracker)


def read(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Topic -> recorded time and content of its messages."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    with Reader(path) as reader:
        for connection, time_ns, content in reader.messages():
            found.setdefault(connection.topic, []).append((time_ns, content))
    return found


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("make", [raw, compressed])
def test_objects_and_label_image_of_every_frame(
    images: list[np.ndarray], tmp_path: Path, make: Any, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [make(image, index) for index, image in enumerate(images)]
    bag = record(tmp_path / "bag", {"/camera/image_raw": messages}, storage)
    arguments = ["track", str(bag), "--prompt", "block:6,6", "--masks", "none", "--no-overlay"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["frames"], summary["source"], summary["bag"]) == (5, "bag", str(tmp_path / "out" / "bag"))

    written = read(tmp_path / "out" / "bag")
    suffix = {"mcap": ".mcap", "sqlite3": ".db3"}[storage]
    assert [path.suffix for path in sorted((tmp_path / "out" / "bag").iterdir())] == sorted([suffix, ".yaml"])
    assert set(written) == {"/sam2_node/objects", "/sam2_node/label_image"}
    for messages in written.values():
        assert [time_ns for time_ns, _ in messages] == [recorded_ns(index) for index in range(5)]
    for index, (_, content) in enumerate(written["/sam2_node/label_image"]):
        labels = deserialize_message(content, Image)
        assert (labels.encoding, labels.height, labels.width, labels.step) == ("mono8", 32, 48, 48)
        expected = np.zeros((32, 48), np.uint8)
        expected[4:14, 4 + 2 * index : 16 + 2 * index] = 1
        np.testing.assert_array_equal(np.frombuffer(labels.data, np.uint8).reshape(32, 48), expected)
        check_header(labels.header, index)
    for index, (_, content) in enumerate(written["/sam2_node/objects"]):
        objects = deserialize_message(content, TrackedObjectArray)
        check_header(objects.header, index)
        assert objects.frame_index == index
        (block,) = objects.objects
        assert (block.object_id, block.label, block.state, block.area) == ("block", 1, TrackedObject.TRACKED, 120)
        assert (block.roi.x_offset, block.roi.y_offset, block.roi.width, block.roi.height) == (4 + 2 * index, 4, 12, 10)
        assert block.centroid.x == pytest.approx(9.5 + 2 * index)
        assert block.pose.orientation.w == 1.0 and not block.has_pose
        assert (block.first_seen, block.last_seen) == (stamp(0), stamp(index))


def check_header(read_header: Any, index: int) -> None:
    assert (read_header.stamp, read_header.frame_id) == (stamp(index), "camera_optical")


def stamp(index: int) -> Any:
    from builtin_interfaces.msg import Time

    wanted = header(index).stamp
    return Time(sec=wanted.sec, nanosec=wanted.nanosec)


def test_an_object_out_of_sight_has_no_place(images: list[np.ndarray], tmp_path: Path) -> None:
    grey = np.full_like(images[0], 128)
    bag = record(tmp_path / "bag", {"/image": [raw(images[0], 0), raw(grey, 1)]})
    assert main(["track", str(bag), "--prompt", "6,6", "--masks", "none", "--out", str(tmp_path / "out")]) == 0
    _, content = read(tmp_path / "out" / "bag")["/sam2_node/objects"][1]
    (block,) = deserialize_message(content, TrackedObjectArray).objects
    assert (block.state, block.area, block.roi.width) == (TrackedObject.OCCLUDED, 0, 0)
    assert np.isnan(block.centroid.x) and block.last_seen == stamp(0)


def test_definitions_are_in_the_recording_with_the_hash_of_the_generated_code(
    images: list[np.ndarray], tmp_path: Path
) -> None:
    bag = record(tmp_path / "bag", {"/image": [raw(images[0], 0)]})
    assert main(["track", str(bag), "--prompt", "6,6", "--masks", "none", "--out", str(tmp_path / "out")]) == 0
    with Reader(tmp_path / "out" / "bag") as reader:
        (objects,) = (c for c in reader.connections if c.topic == "/sam2_node/objects")
    assert "string object_id" in objects.msgdef.data and "std_msgs/Header" in objects.msgdef.data
    generated = "".join(f"{byte:02x}" for byte in type_hash())
    assert objects.digest == f"RIHS01_{generated}"


def type_hash() -> bytes:
    """What the message generator computed for TrackedObjectArray."""
    from ament_index_python.packages import get_package_share_directory

    file = Path(get_package_share_directory("sam2_ros")) / "msg" / "TrackedObjectArray.json"
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(file.read_text())["type_hashes"]}
    return bytes.fromhex(hashes["sam2_ros/msg/TrackedObjectArray"].removeprefix("RIHS01_"))


def test_a_topic_is_chosen_or_the_choice_is_listed(
    images: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.full_like(images[0], 128)
    bag = record(tmp_path / "bag", {"/left": [raw(grey, 0)], "/right/compressed": [compressed(images[0], 0)]})
    arguments = ["track", str(bag), "--prompt", "6,6", "--masks", "png", "--no-overlay", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "expected one image topic, or --image-topic to choose one" in said
    assert "/left (sensor_msgs/msg/Image, 1), /right/compressed (sensor_msgs/msg/CompressedImage, 1)" in said
    assert main([*arguments, "--image-topic", "/front"]) == 2
    assert "has no image topic /front; image topics: /left" in capsys.readouterr().err
    assert main([*arguments, "--image-topic", "/right/compressed", "--bag-out", str(tmp_path / "named")]) == 0
    _, content = read(tmp_path / "named")["/sam2_node/objects"][0]
    assert deserialize_message(content, TrackedObjectArray).objects[0].area == 120
    assert not (tmp_path / "out" / "bag").exists()


def test_a_single_file_without_its_folder(images: list[np.ndarray], tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/image": [raw(images[0], 0)]})
    (file,) = bag.glob("*.mcap")
    assert main(["track", str(file), "--prompt", "6,6", "--masks", "none", "--out", str(tmp_path / "out")]) == 0
    assert len(read(tmp_path / "out" / "bag")["/sam2_node/objects"]) == 1


def test_what_cannot_be_used_is_explained(
    images: list[np.ndarray], coloured_sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--prompt", "6,6", "--masks", "none", "--no-overlay", "--out", str(tmp_path / "out")]
    odd = record(tmp_path / "odd", {"/image": [raw(images[0], 0, encoding="jpeg2000")]})
    assert main(["track", str(odd), *out]) == 2
    assert "image encoding 'jpeg2000' is not supported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # so that the next try is not refused
    good = record(tmp_path / "good", {"/image": [raw(images[0], 0)]})
    assert main(["track", str(good), *out]) == 0
    capsys.readouterr()
    assert main(["track", str(good), *out]) == 2
    assert "out/bag exists already" in capsys.readouterr().err
    (tmp_path / "torn.mcap").write_bytes(b"\x89MCAP0\r\n and then nothing")
    assert main(["track", str(tmp_path / "torn.mcap"), *out]) == 2
    assert "torn.mcap cannot be read as a rosbag2 recording" in capsys.readouterr().err
    assert main(["track", str(coloured_sequence / "blocks" / "images"), "--image-topic", "/image", *out]) == 2
    assert "--image-topic and --bag-out are for rosbag2 recordings" in capsys.readouterr().err


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_that_is_damaged_further_on_is_explained(
    images: list[np.ndarray], tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = record(tmp_path / "bag", {"/image": [raw(images[0], index) for index in range(40)]}, storage)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    content = bytearray(file.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = b"\xa5" * third
    file.write_bytes(content)
    assert main(["track", str(bag), "--prompt", "6,6", "--masks", "none", "--out", str(tmp_path / "out")]) == 2
    assert str(bag) in capsys.readouterr().err


def test_without_rosbags_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(SourceError, match="pip install rosbags"):
        make_typestore()


def test_our_definitions_do_not_leak_into_the_stock_ones() -> None:
    assert "sam2_ros/msg/Prompt" in make_typestore().types
    assert "sam2_ros/msg/Prompt" not in typesys.get_typestore(typesys.Stores.ROS2_JAZZY).types


def test_an_image_that_cannot_be_read_is_left_out(
    images: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [raw(image, index, encoding="odd" if index == 1 else "bgr8") for index, image in enumerate(images)]
    bag = record(tmp_path / "bag", {"/image": messages})
    arguments = ["track", str(bag), "--prompt", "6,6", "--no-overlay", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["frames"] == 4 and "image encoding 'odd' is not supported" in summary["left_out"][0]
    stamps = [time_ns for time_ns, _ in read(tmp_path / "out" / "bag")["/sam2_node/objects"]]
    assert stamps == [recorded_ns(index) for index in (0, 2, 3, 4)]
