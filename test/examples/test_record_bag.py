"""What the example records is what was published, and a project can be made of it."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make venv")
pytest.importorskip("rosbags", reason="needs rosbags: pip install rosbags")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from sam2_ros.annotate.project import Project
from sam2_ros.cli import main

EXAMPLE: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "record_bag.py"))
DEADLINE_S = 30.0
HEIGHT, WIDTH, COUNT = 32, 48, 5


def image(index: int) -> Image:
    pixels = np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8)
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=pixels.tobytes())
    message.header.stamp.sec, message.header.frame_id = 100 + index, "camera_link"
    return message


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_is_recorded_becomes_a_project(tmp_path: Path, storage: str, ros_domain: int) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    executor = SingleThreadedExecutor(context=context)
    camera = rclpy.create_node("camera", context=context)
    recorder = EXAMPLE["Recorder"](tmp_path / "bag", ["camera/image"], storage, context=context)
    for node in (camera, recorder):
        executor.add_node(node)

    def spin_until(condition: Any) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s
            executor.spin_once(timeout_sec=0.05)

    try:
        assert not recorder.start_when_all_are_there(), "nobody publishes yet"
        publisher = camera.create_publisher(Image, "camera/image", 10)
        spin_until(recorder.start_when_all_are_there)
        spin_until(lambda: publisher.get_subscription_count() == 1)
        for index in range(COUNT):
            publisher.publish(image(index))
        spin_until(lambda: recorder.counts == {"/camera/image": COUNT})
    finally:
        recorder.close()
        camera.destroy_node()
        rclpy.shutdown(context=context)
    assert main(["dataset", "create", str(tmp_path / "p"), str(tmp_path / "bag"), "--fps", "0"]) == 0
    with Project.open(tmp_path / "p", read_only=True) as project:
        (recording,) = project.recordings
        assert recording.info.stamps_ns == tuple((100 + index) * 10**9 for index in range(COUNT))
        assert set(recording.info.frame_ids) == {"camera_link"} and recording.info.topic == "/camera/image"
        assert abs(int(recording.frame_rgb(3).mean()) - 120) <= 2
