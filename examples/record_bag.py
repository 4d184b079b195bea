#!/usr/bin/env python3
"""Record topics where there is no `ros2 bag`, as with ROS 2 from PyPI; rosbag2 itself can play and read the result.

    python3 examples/record_bag.py kitchen /camera/image_raw /sam2_node/objects /sam2_node/label_image

Waits for all the topics, then records until Ctrl-C, or for --seconds. Needs `rosbags` (pip install rosbags).
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from sam2_ros.data.files.rosbag import BagWriter
from sam2_ros.data.files.video import SourceError

DEPTH = 100  # messages that wait to be written; more are lost


class Recorder(Node):
    """Writes the messages of some topics as they come, without looking into them."""

    def __init__(self, path: Path, topics: list[str], storage: str = "mcap", **node: Any) -> None:
        super().__init__("record_bag", **node)
        self.topics = [self.resolve_topic_name(topic) for topic in topics]
        self.counts = dict.fromkeys(self.topics, 0)
        self._path, self._storage = path, storage
        self._writer: BagWriter | None = None

    def start_when_all_are_there(self) -> bool:
        """Begin once every topic is published; whether it has begun. Call it until then."""
        if self._writer is None:
            known = {name: types[0] for name, types in self.get_topic_names_and_types()}
            if not all(topic in known and self.count_publishers(topic) for topic in self.topics):
                return False
            self._writer = BagWriter(self._path, {topic: known[topic] for topic in self.topics}, self._storage)
            for topic in self.topics:
                self._subscribe(topic, known[topic])
        return True

    def _subscribe(self, topic: str, kind: str) -> None:
        package, _, name = kind.split("/")
        message = getattr(importlib.import_module(f"{package}.msg"), name)
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)  # which reliable ones serve, too
        self.create_subscription(message, topic, lambda data: self._write(topic, data), qos, raw=True)

    def _write(self, topic: str, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write_serialized(topic, data, self.get_clock().now().nanoseconds)
        self.counts[topic] += 1

    def close(self) -> None:
        """Finish the recording."""
        if self._writer is not None:
            self._writer.close()
        self.destroy_node()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path, help="a new folder")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of recording (default: until Ctrl-C)")
    args = parser.parse_args()
    rclpy.init()
    recorder = Recorder(args.recording, args.topics, args.storage)
    end_s, has_begun = float("inf"), False
    try:
        while time.monotonic() < end_s:
            if not has_begun and (has_begun := recorder.start_when_all_are_there()):
                print(f"recording {', '.join(recorder.topics)}; Ctrl-C ends it", flush=True)
                end_s = time.monotonic() + args.seconds
            rclpy.spin_once(recorder, timeout_sec=0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except SourceError as error:
        print(f"record_bag: {error}")
        return 2
    finally:
        recorder.close()
        rclpy.try_shutdown()
    print(", ".join(f"{count} of {topic}" for topic, count in recorder.counts.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
