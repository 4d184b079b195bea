"""Several cameras in one process: a node for each in its namespace, one set of weights, turn by turn."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tiny_model import TINY

from sam2_ros.model.config import MODELS
from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node import sam2_node as cameras
from sam2_ros.node.conversions import array_to_image
from sam2_ros.session.model_loading import SharedNetworks, load_configured_tracker
from sam2_ros.session.parameter_spec import ParameterError
from sam2_ros.session.parameters import camera_names, parse
from sam2_ros.session.session import Session
from sam2_ros.tracking.concurrency import TaskThread

DEADLINE_S = 20.0


@pytest.mark.parametrize(("text", "names"), [("", ()), ("front", ("front",)), ("left, right", ("left", "right"))])
def test_names(text: str, names: tuple[str, ...]) -> None:
    assert camera_names(text) == names


@pytest.mark.parametrize("text", ["left,left", "left,", "left/eye", "1st"])
def test_names_must_be_namespaces(text: str) -> None:
    with pytest.raises(ParameterError, match="cameras must be different names of letters"):
        parse({"cameras": text})


class Process:
    """What ``main`` makes of arguments, in a context of its own."""

    def __init__(self, domain: int, *arguments: str) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=["--ros-args", *arguments], context=self.context, domain_id=domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Any] = []

    def make_nodes(self) -> list[Any]:
        self.nodes = cameras.make_nodes(self.context)
        for node in self.nodes:
            self.executor.add_node(node)
        return self.nodes

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def make_process(
    ros_domain: int, fake_tracker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []
    monkeypatch.setattr(cameras, "load_configured_tracker", lambda parameters, networks: type(fake_tracker)())

    def make(*arguments: str) -> Process:
        processes.append(Process(ros_domain, *arguments))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["/sam2_node"]),
        (("-p", "cameras:=left,right"), ["/left/sam2_node", "/right/sam2_node"]),
        (("-p", "cameras:=left,right", "-r", "__ns:=/robot"), ["/robot/left/sam2_node", "/robot/right/sam2_node"]),
    ],
)
def test_a_node_for_each_camera(make_process: Callable[..., Process], arguments: tuple[str, ...], names: list) -> None:
    nodes = make_process(*arguments, "-p", "lost_after_frames:=7").make_nodes()
    assert [node.get_fully_qualified_name() for node in nodes] == names
    assert [node.resolve_topic_name("image") for node in nodes] == [
        name.replace("sam2_node", "image") for name in names
    ]
    assert {node.get_parameter("lost_after_frames").value for node in nodes} == {7}


def test_bad_names_are_rejected_before_there_is_a_node(make_process: Callable[..., Process]) -> None:
    with pytest.raises(ParameterError, match="left,left"):
        make_process("-p", "cameras:=left,left").make_nodes()


def test_each_camera_has_its_own_topics(make_process: Callable[..., Process]) -> None:
    # By full names, as the launch file gives them.
    topics = ("-r", "/left/image:=/a/image_raw", "-r", "/right/image:=/b/image_raw")
    process = make_process("-p", "cameras:=left,right", *topics)
    nodes = process.make_nodes()
    peer = rclpy.create_node("peer", context=process.context)
    process.executor.add_node(peer)
    received: dict[str, list[Any]] = {"left": [], "right": []}
    for name, messages in received.items():
        peer.create_subscription(TrackedObjectArray, f"/{name}/sam2_node/objects", messages.append, 5)
    for node in nodes:
        node.autostart()
    publishers = [peer.create_publisher(Image, f"/{side}/image_raw", qos_profile_sensor_data) for side in "ab"]

    def spin_until(condition: Callable[[], bool]) -> None:
        for _ in range(int(DEADLINE_S / 0.05)):
            if condition():
                return
            process.executor.spin_once(timeout_sec=0.05)
        raise AssertionError("not in time")

    spin_until(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    spin_until(lambda: all(peer.count_publishers(f"/{name}/sam2_node/objects") for name in received))
    pixels = np.zeros((8, 10, 3), dtype=np.uint8)
    for side, publisher in zip("ab", publishers, strict=True):
        publisher.publish(array_to_image(pixels, "rgb8", Header(frame_id=side)))
    spin_until(lambda: all(received.values()))
    assert {name: messages[0].header.frame_id for name, messages in received.items()} == {"left": "a", "right": "b"}
    peer.destroy_node()


def test_trackers_share_the_network_they_both_want(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    monkeypatch.setattr("sam2_ros.session.parameters.MODEL_NAMES", ("auto", TINY.name))
    networks = SharedNetworks()
    wanted = parse({"weights": "random", "device": "cpu"})
    object.__setattr__(wanted, "model", TINY.name)
    left, right = (load_configured_tracker(wanted, networks) for _ in range(2))
    assert left is not right and networks.load(wanted) is networks.load(wanted)
    assert len(networks._known) == 1
    assert load_configured_tracker(wanted) is not None and len(networks._known) == 1
    del left, right
    gc.collect()
    assert len(networks._known) == 0, "weights are let go of with the last tracker"


def test_the_newest_image_counts_when_the_turn_comes_and_no_camera_is_passed_over(fake_tracker: Any) -> None:
    model_thread, busy, go_on, done = TaskThread(), threading.Event(), threading.Event(), threading.Event()
    shown: list[str] = []

    def publish(view: Any) -> None:
        shown.append(view.header)
        if len(shown) == 2:
            done.set()

    def show(session: Session, name: str) -> None:
        pixels = np.zeros((8, 10, 3), dtype=np.uint8)
        session.offer(SimpleNamespace(header=name, pixels=pixels), 1_000_000_000)

    sessions = [
        Session(type(fake_tracker)(), decode=lambda message: message.pixels, publish=publish, model_thread=model_thread)
        for _ in range(2)
    ]
    for session in sessions:
        session.start()

    def use() -> None:
        busy.set()
        assert go_on.wait(DEADLINE_S)

    third_camera = threading.Thread(target=lambda: model_thread.submit(use).result(DEADLINE_S))
    third_camera.start()
    assert busy.wait(DEADLINE_S)
    show(sessions[0], "left 1")
    show(sessions[1], "right 1")
    for number in range(2, 6):
        show(sessions[0], f"left {number}")
    go_on.set()
    third_camera.join(DEADLINE_S)
    assert done.wait(DEADLINE_S)
    assert sorted(shown) == ["left 5", "right 1"]
    for session in sessions:
        assert session.stop()


def test_a_camera_that_waits_for_images_ends_while_another_ones_model_is_loading(fake_tracker: Any) -> None:
    model_thread, loading, loaded = TaskThread(), threading.Event(), threading.Event()

    def load() -> None:
        loading.set()
        assert loaded.wait(DEADLINE_S)

    session = Session(fake_tracker, decode=lambda message: message, publish=print, model_thread=model_thread)
    session.start()
    load_done = model_thread.submit(load)
    assert loading.wait(DEADLINE_S)
    assert session.stop(DEADLINE_S / 2), "it does not wait for the load, which ends later than that"
    assert not load_done.done()
    loaded.set()
