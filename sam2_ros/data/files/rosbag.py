"""Read and write rosbag2 recordings (mcap and sqlite3) without ROS, with the PyPI package ``rosbags``."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sam2_ros.data.files.video import SourceError, SourceInfo
from sam2_ros.resources import share_path

IMAGE = "sensor_msgs/msg/Image"
TRACKED_OBJECTS = "sam2_ros/msg/TrackedObjectArray"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
OUR_PACKAGE = "sam2_ros"
STORAGE_SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3"}
BAG_VERSION = 9  # of the metadata, as Jazzy writes it


@dataclass(frozen=True)
class BagImage:
    """One image message."""

    time_ns: int  # when it was recorded; not its stamp
    compressed: bool  # a sensor_msgs/CompressedImage, else a sensor_msgs/Image
    message: Any  # with the fields of that type


def is_bag(source: str | Path) -> bool:
    """Whether this is a recording: a folder with metadata.yaml, or a single .mcap or .db3 file."""
    path = Path(source)
    return (path / "metadata.yaml").is_file() or (path.suffix in STORAGE_SUFFIXES and path.is_file())


class ImageBag:
    """The images of one topic of a recording, in recorded order."""

    def __init__(self, path: str | Path, image_topic: str = "") -> None:
        """Open a recording; ``image_topic`` is optional if there is only one.

        Raises:
            SourceError: it cannot be read, or the topic is unknown or ambiguous; the message lists the image topics.
        """
        self.path = Path(path)
        rosbag2 = _rosbags("rosbag2")
        self._types = make_typestore()
        try:
            self._reader = rosbag2.Reader(self.path)
            self._reader.open()
        except Exception as error:  # rosbags raises its own types, sqlite's and yaml's
            raise SourceError(f"{self.path} cannot be read as a rosbag2 recording: {error}") from error
        try:
            self.topic = self._choose(image_topic)
        except SourceError:
            self.close()
            raise
        self._connections = [c for c in self._reader.connections if c.topic == self.topic]
        self.info = SourceInfo(self.path.name, self._rate(), self._reader.topics[self.topic].msgcount, live=False)

    def _choose(self, wanted: str) -> str:
        found = {
            name: f"{name} ({info.msgtype}, {info.msgcount})"
            for name, info in sorted(self._reader.topics.items())
            if info.msgtype in (IMAGE, COMPRESSED_IMAGE)
        }
        if wanted in found:
            return wanted
        listed = ", ".join(found.values()) or "none"
        if not found or wanted in self._reader.topics:  # video, depth that is packed, or no camera was recorded
            others = [f"{name} ({info.msgtype})" for name, info in sorted(self._reader.topics.items())]
            listed += f"; read are {IMAGE} and {COMPRESSED_IMAGE}, recorded are {', '.join(others) or 'no topics'}"
        if wanted:
            raise SourceError(f"{self.path} has no image topic {wanted}; image topics: {listed}")
        if len(found) > 1:  # what our own node published of a camera is none
            found = {name: text for name, text in found.items() if not self._is_result(name)}
        if len(found) != 1:
            raise SourceError(
                f"{self.path}: expected one image topic, or --image-topic to choose one; image topics: {listed}"
            )
        return next(iter(found))

    def _is_result(self, topic: str) -> bool:
        """Whether it lies beside the objects of our node, as its label image and its overlay do."""
        objects = (name for name, info in self._reader.topics.items() if info.msgtype == TRACKED_OBJECTS)
        return topic.endswith("/label_image") or any(
            topic.startswith(name.rpartition("/")[0] + "/") for name in objects
        )

    @property
    def result_topics(self) -> dict[str, str]:
        """Topics with what our node made of the images, and their types: objects, and label images."""
        return {
            name: info.msgtype
            for name, info in sorted(self._reader.topics.items())
            if info.msgtype == TRACKED_OBJECTS or (info.msgtype == IMAGE and name.endswith("/label_image"))
        }

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Topic and content of every message on these topics, in recorded order.

        Raises:
            SourceError: a message is damaged; its number.
        """
        connections = [c for c in self._reader.connections if c.topic in topics]
        for connection, _, message in self._read(connections, ", ".join(topics)):
            yield connection.topic, message

    def _rate(self) -> float | None:
        """Average images per second of the recording."""
        count = self._reader.topics[self.topic].msgcount
        return (count - 1) * 1e9 / self._reader.duration if count > 1 and self._reader.duration else None

    @property
    def storage(self) -> str:
        """How it is stored: "mcap" or "sqlite3"."""
        files = [self.path] if self.path.is_file() else sorted(self.path.iterdir())
        return next(
            (STORAGE_SUFFIXES[suffix] for file in files for suffix in file.suffixes if suffix in STORAGE_SUFFIXES),
            "mcap",
        )

    def __iter__(self) -> Iterator[BagImage]:
        """Raises SourceError when a message is damaged, with its number."""
        for connection, time_ns, message in self._read(self._connections, self.topic):
            yield BagImage(time_ns, connection.msgtype == COMPRESSED_IMAGE, message)

    def _read(self, connections: list[Any], topic: str) -> Iterator[tuple[Any, int, Any]]:
        """Connection, time of recording and content of the messages."""
        messages = iter(self._reader.messages(connections=connections))
        for number in itertools.count(1):
            try:
                connection, time_ns, raw = next(messages)
                message = self._types.deserialize_cdr(raw, connection.msgtype)
            except StopIteration:
                return
            except Exception as error:  # of the file as well as of the message
                raise SourceError(f"{self.path}: message {number} on {topic} is damaged: {error}") from error
            yield connection, time_ns, message

    def close(self) -> None:
        """Close the files. May be called more than once."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> ImageBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BagWriter:
    """Writes a recording with the definitions of our messages, so that other tools can read it."""

    def __init__(self, path: Path, topics: dict[str, str], storage: str = "mcap") -> None:
        """``topics``: name -> type such as "sam2_ros/msg/TrackedObjectArray"; ``storage``: "mcap" or "sqlite3".

        Nothing is written before the first message.

        Raises:
            SourceError: the path exists already.
        """
        rosbag2 = _rosbags("rosbag2")
        if path.exists():
            raise SourceError(f"{path} exists already: choose another name for the recording, or remove it")
        self.path = path
        self.typestore = make_typestore()
        self._topics = topics
        self._writer = rosbag2.Writer(path, version=BAG_VERSION, storage_plugin=rosbag2.StoragePlugin[storage.upper()])
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, message: Any, time_ns: int) -> None:
        """Append one message, an instance of a type in ``typestore.types``."""
        self.write_serialized(topic, self.typestore.serialize_cdr(message, self._topics[topic]), time_ns)

    def write_serialized(self, topic: str, data: bytes | memoryview, time_ns: int) -> None:
        """Append one message as ROS transports it: CDR with its header."""
        if not self._connections:
            self._writer.open()
            self._connections = {
                name: self._writer.add_connection(name, kind, typestore=self.typestore)
                for name, kind in self._topics.items()
            }
        self._writer.write(self._connections[topic], time_ns, data)

    def close(self) -> None:
        """Finish the files, which are incomplete before."""
        if self._connections:
            self._writer.close()


def make_typestore() -> Any:
    """The messages of ROS 2 Jazzy and ours, which are read from the project's ``msg/``."""
    typesys = _rosbags("typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    ours: dict[str, Any] = {}
    for file in sorted(share_path("msg").glob("*.msg")):
        name = f"{OUR_PACKAGE}/msg/{file.stem}"
        ours.update(typesys.get_types_from_msg(file.read_text(encoding="utf-8"), name))
    store.register(ours)
    return store


def _rosbags(module: str) -> ModuleType:
    """A module of ``rosbags``; SourceError with installation instructions if it is missing."""
    try:
        from rosbags import rosbag2, typesys
    except ImportError as error:
        raise SourceError(f"recordings need the package rosbags ({error}): pip install rosbags") from error
    return {"rosbag2": rosbag2, "typesys": typesys}[module]
