"""The node as a process of its own, over DDS: the real tracker with random weights, prompted through the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.msg import Prompt, TrackedObjectArray
from sam2_ros.node.conversions import array_to_image
from sam2_ros.srv import AddObjects, ListObjects, LoadSession, RemoveObjects, SaveSession

START_DEADLINE_S = 180.0  # loading torch and the model on a busy machine
EXIT_GRACE_S = 60.0


class NodeProcess:
    """``sam2_node`` as a user starts it; its output goes to a file."""

    def __init__(self, log: Path, domain: int, *ros_args: str) -> None:
        self._log = log
        environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "sam2_ros.node.sam2_node", "--ros-args", *ros_args]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    @property
    def output(self) -> str:
        return self._log.read_text()

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(EXIT_GRACE_S)


@pytest.fixture
def start_node(tmp_path: Path, ros_domain: int) -> Iterator[Callable[..., NodeProcess]]:
    started: list[NodeProcess] = []

    def start(*ros_args: str) -> NodeProcess:
        started.append(NodeProcess(tmp_path / "node.log", ros_domain, *ros_args))
        return started[-1]

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


class User:
    """A camera and somebody who prompts, in this process."""

    def __init__(self, domain: int, node_process: NodeProcess) -> None:
        self._process = node_process
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("user", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._camera = self._node.create_publisher(Image, "image", qos_profile_sensor_data)
        self.add_objects = self._node.create_client(AddObjects, "sam2_node/add_objects")
        self.sent: list[Header] = []
        self.label_images: list[Image] = []
        self.objects: list[TrackedObjectArray] = []
        self._node.create_subscription(Image, "sam2_node/label_image", self.label_images.append, 1)
        self._node.create_subscription(TrackedObjectArray, "sam2_node/objects", self.objects.append, 5)
        pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        self._image = array_to_image(pixels, "bgr8", Header(frame_id="camera"))

    def show_image(self) -> None:
        self._image.header = Header(frame_id="camera", stamp=self._node.get_clock().now().to_msg())
        self.sent.append(self._image.header)
        self._camera.publish(self._image)

    def node_is_there(self) -> bool:
        return self.add_objects.service_is_ready() and self._camera.get_subscription_count() > 0

    def spin_until(self, condition: Callable[[], bool], why: str, turn: Callable[[], None] = lambda: None) -> None:
        end_s = time.monotonic() + START_DEADLINE_S
        while not condition():
            assert self._process.process.poll() is None, f"the node has ended:\n{self._process.output}"
            assert "[ERROR]" not in self._process.output, self._process.output
            assert time.monotonic() < end_s, f"not in time: {why}\n{self._process.output}"
            turn()
            self._executor.spin_once(timeout_sec=0.1)

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """The answer of one of the node's services, with images going on."""
        client = self._node.create_client(kind, f"sam2_node/{name}")
        self.spin_until(client.service_is_ready, f"{name} is there")
        answer = client.call_async(kind.Request(**fields))
        self.spin_until(answer.done, f"{name} answers", turn=self.show_image)
        return answer.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def make_user(ros_domain: int) -> Iterator[Callable[[NodeProcess], User]]:
    users: list[User] = []

    def make(node_process: NodeProcess) -> User:
        users.append(User(ros_domain, node_process))
        return users[-1]

    yield make
    for user in users:
        user.close()


def test_camera_in_prompt_in_label_image_out(start_node: Callable[..., NodeProcess], make_user: Any) -> None:
    node = start_node("-p", "weights:=random", "-p", "device:=cpu", "-p", "num_threads:=1")
    user = make_user(node)
    user.spin_until(user.node_is_there, "service and image subscription are there")
    prompt = Prompt(object_id="mug", box_xyxy=[40.0, 30.0, 100.0, 90.0])
    answer = user.add_objects.call_async(AddObjects.Request(prompts=[prompt], wait=True, timeout_s=120.0))
    user.spin_until(answer.done, "the first mask comes", turn=user.show_image)
    response = answer.result()
    assert response.success, response.message
    assert [(item.object_id, item.label) for item in response.objects.objects] == [("mug", 1)]

    def all_came() -> bool:
        return bool(user.label_images) and any(message.objects for message in user.objects)

    user.spin_until(all_came, "label image and objects come", turn=user.show_image)
    label_image = user.label_images[-1]
    assert (label_image.encoding, label_image.height, label_image.width) == ("mono8", 120, 160)
    assert label_image.header in user.sent  # exactly that of an image which was sent
    assert all(message.header in user.sent for message in user.objects)
    assert node.stop(signal.SIGINT) == 0, node.output
    assert "Traceback" not in node.output
    assert "weights is 'random': the masks will mean nothing" in node.output


def test_a_node_that_was_killed_goes_on_with_the_same_objects(
    start_node: Callable[..., NodeProcess], make_user: Any, tmp_path: Path
) -> None:
    path = str(tmp_path / "s.pt")
    arguments = ("-p", "device:=cpu", "-p", "num_threads:=1", "-p", "service_timeout_s:=120.0")
    node = start_node(*arguments)
    user = make_user(node)
    user.spin_until(user.node_is_there, "service and image subscription are there")
    prompts = [
        Prompt(object_id="gone", box_xyxy=[10.0, 10.0, 50.0, 50.0]),
        Prompt(object_id="mug", class_id="cup", box_xyxy=[40.0, 30.0, 100.0, 90.0]),
    ]
    assert user.call(AddObjects, "add_objects", prompts=prompts, wait=True).success
    assert user.call(RemoveObjects, "remove_objects", object_ids=["gone"]).success
    saved = user.call(SaveSession, "save_session", path=path)
    assert saved.success and saved.object_count == 1, saved.message
    (before,) = user.call(ListObjects, "list_objects").objects.objects
    node.process.kill()
    node.process.wait(EXIT_GRACE_S)

    second = start_node(*arguments)
    user = make_user(second)
    user.spin_until(user.node_is_there, "the restarted node is there")
    loaded = user.call(LoadSession, "load_session", path=path)
    assert loaded.success, loaded.message
    user.spin_until(lambda: any(m.objects for m in user.objects), "it tracks them", turn=user.show_image)
    (after,) = next(message for message in user.objects if message.objects).objects
    assert (after.object_id, after.label, after.class_id) == ("mug", 2, "cup")
    assert after.first_seen == before.first_seen
    (more,) = user.call(AddObjects, "add_objects", prompts=[Prompt(box_xyxy=[10.0, 10.0, 50.0, 50.0])]).results
    assert more.label == 3  # no label is given twice
    assert second.stop(signal.SIGTERM) == 0, second.output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("parameter", "moment"),
    [("autostart:=false", "waiting to be configured"), ("compile:=true", "then compiling it, which takes minutes")],
    ids=["unconfigured", "loading"],
)
def test_a_signal_ends_the_node_cleanly(
    start_node: Callable[..., NodeProcess], make_user: Any, how: signal.Signals, parameter: str, moment: str
) -> None:
    node = start_node("-p", parameter)
    user = make_user(node)
    user.spin_until(lambda: moment in node.output, moment)
    assert node.stop(how) == 0, node.output
    assert "Traceback" not in node.output


def test_one_process_serves_several_cameras(start_node: Callable[..., NodeProcess], make_user: Any) -> None:
    node = start_node("-p", "autostart:=false", "-p", "cameras:=left,right")
    user = make_user(node)
    for name in ("left", "right"):
        user.spin_until(lambda name=name: f"[{name}.sam2_node]: waiting to be configured" in node.output, name)
    assert node.stop(signal.SIGINT) == 0, node.output
    assert "Traceback" not in node.output


@pytest.mark.parametrize(("argument", "name"), [("num_threads:=many", "num_threads"), ("cameras:=a,a", "cameras")])
def test_a_bad_parameter_ends_the_node_with_its_name(
    start_node: Callable[..., NodeProcess], argument: str, name: str
) -> None:
    node = start_node("-p", argument)
    assert node.process.wait(START_DEADLINE_S) == 1
    assert name in node.output and "Traceback" not in node.output


def test_weights_that_cannot_be_fetched_are_one_line_and_the_node_is_configured_later(
    start_node: Callable[..., NodeProcess], ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra `hub`: run `make venv`")
    for name, value in (("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", str(tmp_path)), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)  # no file, and no network
    node = start_node(*("-p", "model:=edgetam"), *("-p", "device:=cpu"), *("-p", "encoder_engine:=torch"))
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    peer = rclpy.create_node("operator", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(peer)

    def wait_for(condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + START_DEADLINE_S
        while not condition():
            assert node.process.poll() is None and time.monotonic() < end_s, node.output
            executor.spin_once(timeout_sec=0.1)

    def call(kind: Any, name: str, **fields: Any) -> Any:
        client = peer.create_client(kind, f"sam2_node/{name}")
        wait_for(client.service_is_ready)
        answer = client.call_async(kind.Request(**fields))
        wait_for(answer.done)
        return answer.result()

    try:
        wait_for(lambda: "configure again" in node.output)
        (line,) = (line for line in node.output.splitlines() if "[ERROR]" in line or "[FATAL]" in line)
        assert "could not load edgetam with its official weights: CheckpointError: edgetam: its weights" in line
        assert "(edgetam.pt of facebook/EdgeTAM) are not here, and http://127.0.0.1:9 does not answer" in line
        assert "fetch them once with a network, or copy the file here and give its path as checkpoint" in line
        assert "Traceback" not in node.output
        assert call(GetState, "get_state").current_state.label == "unconfigured"
        others = [
            Parameter("model", value="nano").to_parameter_msg(),
            Parameter("image_size", value=64).to_parameter_msg(),
        ]
        assert all(result.successful for result in call(SetParameters, "set_parameters", parameters=others).results)
        assert call(ChangeState, "change_state", transition=Transition(id=Transition.TRANSITION_CONFIGURE)).success
        assert call(GetState, "get_state").current_state.label == "inactive"
        assert node.stop(signal.SIGINT) == 0
    finally:
        executor.shutdown()
        peer.destroy_node()
        context.try_shutdown()
