"""Camera and client of the demo over real middleware, in this process, with a node whose tracker is a fake."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from sam2_ros.demo.camera import FRAME_ID, DemoCamera, show
from sam2_ros.demo.client import DemoError, DemoRun, InboxNode, run_demo
from sam2_ros.demo.stream import CameraStream, Prefetcher, Size, StreamSpec, index_of_stamp
from sam2_ros.node.background import ModelLoader
from sam2_ros.node.conversions import stamp_to_ns

SPEC = StreamSpec(frames=6, height_px=60, width_px=80)
DEADLINE_S = 20.0


class CameraThread:
    """The demo's camera, running by itself as its process would."""

    def __init__(self, context: rclpy.Context, *, rate_hz: float = 50.0, start_timeout_s: float = DEADLINE_S) -> None:
        self.result: int | BaseException | None = None
        self._camera: DemoCamera | None = None
        self._context = context
        self._rate_hz, self._start_timeout_s = rate_hz, start_timeout_s
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ahead = Prefetcher(CameraStream(SPEC))
        ahead.start()
        executor = SingleThreadedExecutor(context=self._context)
        camera = self._camera = DemoCamera(ahead.info, rate_hz=self._rate_hz, context=self._context)
        executor.add_node(camera)
        try:
            self.result = show(camera, executor, ahead, start_timeout_s=self._start_timeout_s)
        except BaseException as error:
            self.result = error
        finally:
            ahead.close()
            executor.shutdown()
            camera.destroy_node()

    def hurry(self) -> None:
        """Do not wait for a start that will not come any more."""
        if self._camera is not None:
            self._camera.started = True

    def join(self) -> int | BaseException | None:
        self._thread.join(DEADLINE_S)
        return self.result


@pytest.fixture
def make_camera(ros_rig: Any) -> Iterator[Callable[..., CameraThread]]:
    cameras: list[CameraThread] = []

    def make(**options: Any) -> CameraThread:
        cameras.append(CameraThread(ros_rig.context, **options))
        return cameras[-1]

    yield make
    for camera in cameras:
        camera.hurry()
        camera.join()


def client_of(rig: Any) -> InboxNode:
    client = InboxNode("/sam2_node", "/demo_camera", context=rig.context)
    rig.executor.add_node(client)
    return client


def options(out: Path, **changes: Any) -> argparse.Namespace:
    values = {"source": "", "frames": SPEC.frames, "size": Size(80, 60), "rate_hz": 50.0, "prompt": [], "out": out}
    return argparse.Namespace(**{**values, "model": "fake", **changes})


def test_the_whole_demo_with_every_frame_accounted_for(
    ros_rig: Any, make_camera: Callable[..., CameraThread], tmp_path: Path
) -> None:
    camera = make_camera()
    client = client_of(ros_rig)
    report = run_demo(client, ros_rig.executor, options(tmp_path))
    assert camera.join() == SPEC.frames
    assert report.objects == 5
    assert report.frames + report.dropped >= SPEC.frames
    assert report.frames > 0
    # The fake marks 3 x 3 px around each click: something of each object at first, much less than all of it.
    assert report.mean_iou is not None and 0 < report.mean_iou < 0.5
    assert report.latency_ms_p95 >= report.latency_ms_p50 > 0
    assert (tmp_path / "overlay.mp4").stat().st_size > 0
    assert (tmp_path / "overlay.png").stat().st_size > 0
    assert json.loads(report.as_json())["overlay"] == str(tmp_path / "overlay.mp4")
    client.close()


def test_without_a_rate_the_demo_finds_one_and_starts_with_fresh_labels(
    ros_rig: Any, make_camera: Callable[..., CameraThread], tmp_path: Path
) -> None:
    make_camera()
    client = client_of(ros_rig)
    report = run_demo(client, ros_rig.executor, options(tmp_path, rate_hz=None))
    assert report.rate_hz == 15.0  # the fake is faster than any camera here
    assert ros_rig.tracker.calls.count("reset") == 1
    assert {o.label for output in client.inbox.outputs().values() for o in output.objects} == {1, 2, 3, 4, 5}
    assert report.frames + report.dropped >= SPEC.frames
    client.close()


def test_the_camera_holds_its_first_frame_until_it_is_started(
    ros_rig: Any, make_camera: Callable[..., CameraThread]
) -> None:
    images: list[Image] = []
    infos: list[CameraInfo] = []
    depths: list[Image] = []
    for kind, topic, kept in ((Image, "image", images), (CameraInfo, "camera_info", infos), (Image, "depth", depths)):
        ros_rig.peer.create_subscription(kind, topic, kept.append, qos_profile_sensor_data)
    camera = make_camera()
    ros_rig.spin_until(lambda: len(images) >= 3 and bool(infos) and bool(depths), "the held frame arrives")
    assert {index_of_stamp(stamp_to_ns(m.header.stamp)) for m in images} == {0}
    client = client_of(ros_rig)
    ros_rig.spin_until(client.start_camera.service_is_ready, "the camera's service is there")
    answer = client.start_camera.call_async(client.start_camera.srv_type.Request())
    ros_rig.spin_until(lambda: answer.done() and camera.result is not None, "the stream is over")
    assert answer.result().success and camera.result == SPEC.frames
    assert [m.encoding for m in (images[0], depths[0])] == ["rgb8", "16UC1"]
    assert images[0].header.frame_id == infos[0].header.frame_id == FRAME_ID
    assert infos[0].k[0] == pytest.approx(615 / 640 * 80)
    assert infos[0].p[0] == infos[0].k[0]
    stamps = [stamp_to_ns(m.header.stamp) for m in images]
    assert stamps == sorted(stamps)
    client.close()


def test_a_camera_that_nobody_starts_gives_up(make_camera: Callable[..., CameraThread]) -> None:
    result = make_camera(start_timeout_s=0.05).join()
    assert isinstance(result, TimeoutError) and "demo_camera/start" in str(result)


def test_a_rejected_prompt_is_told_with_the_nodes_reason(
    ros_rig: Any, make_camera: Callable[..., CameraThread], tmp_path: Path
) -> None:
    make_camera()
    client = client_of(ros_rig)
    with pytest.raises(DemoError, match=r"rejected a prompt: .*arm: .*outside"):
        run_demo(client, ros_rig.executor, options(tmp_path, prompt=["arm:500,20"]))
    client.close()


def test_a_node_without_a_model_is_told_at_once(
    make_ros_rig: Callable[..., Any], make_camera: Callable[..., CameraThread]
) -> None:
    rig = make_ros_rig()
    rig.factory_error = FileNotFoundError("no weights at nano.pt")
    rig.start()
    make_camera()
    client = client_of(rig)
    with pytest.raises(DemoError, match=r"the node cannot work: .*no weights at nano\.pt"):
        DemoRun(client, rig.executor).wait_until_ready()
    client.close()


def test_a_node_that_is_still_loading_its_model_is_waited_for(
    ros_rig: Any, make_camera: Callable[..., CameraThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_camera()
    client = client_of(ros_rig)
    asked: list[None] = []
    list_async = client.sam2.list_async
    monkeypatch.setattr(client.sam2, "list_async", lambda: asked.append(None) or list_async())
    monkeypatch.setattr(ModelLoader, "is_loading", property(lambda _: len(asked) < 3))
    assert DemoRun(client, ros_rig.executor).wait_until_ready() == (SPEC.width_px, SPEC.height_px)
    assert len(asked) == 3
    client.close()
