"""What the node says of arguments that it cannot use, of parameters that it does not have, and of nodes of its name."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fake_tracker import DEADLINE_S
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.node.conversions import array_to_image
from sam2_ros.node.graph import IdleWatch, NameWatch
from sam2_ros.node.ros_parameters import describe_unknown, unknown_overrides
from sam2_ros.node.sam2_node import Sam2Node, main


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """``main`` sets the handler of Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ["--params-file", "/nope.yaml"],
            "Couldn't parse params file: '--params-file /nope.yaml'. Error: Error opening",
        ),
        (["--log-level", "loud"], "Couldn't parse log level: '--log-level loud'. Error: Argument does not use a valid"),
        (["-r", "image:=/a//b"], "Couldn't parse remap rule: '-r image:=/a//b'."),
        (["-r", "__ns:=my robot"], "Couldn't parse remap rule: '-r __ns:=my robot'. Error: "),
        (["--params-file", "{folder}/bare.yaml"], "Couldn't parse params file: '--params-file {folder}/bare.yaml'."),
    ],
)
def test_an_argument_that_ros_cannot_use_is_one_line(
    arguments: list[str], why: str, tmp_path: Path, signals_kept: None, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare.yaml").write_text("model: nano\n")  # without ros__parameters
    assert main(["--ros-args", *(word.format(folder=tmp_path) for word in arguments)]) == 1
    said = capfd.readouterr().err  # rcl logs that it failed, and not why
    assert said.splitlines()[-1].startswith(f"sam2_node: {why.format(folder=tmp_path)}")
    assert "Traceback" not in said and "/src/" not in said


def test_parameters_that_the_node_does_not_have_are_named(
    make_ros_rig: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    rig = make_ros_rig(max_rate=5.0, use_sim_time=False, **{"qos_overrides./image.subscription.depth": 3})
    assert unknown_overrides(rig.node) == ["max_rate", "qos_overrides./image.subscription.depth"]
    said = capfd.readouterr().err
    assert "without effect: max_rate (see max_rate_hz), qos_overrides./image.subscription.depth (see image_rel" in said
    assert describe_unknown(["quite_other"]).startswith("no parameters of this node, so without effect: quite_other;")


def test_known_parameters_are_not_named(make_ros_rig: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    make_ros_rig(max_rate_hz=5.0, use_sim_time=False)
    assert "without effect" not in capfd.readouterr().err


@pytest.fixture
def make_node(ros_domain: int, fake_tracker: Any) -> Iterator[Callable[[str], Sam2Node]]:
    """``make_node(namespace)``: an inactive node with a context of its own, as in another process."""
    made: list[tuple[Sam2Node, rclpy.Context]] = []

    def make(namespace: str) -> Sam2Node:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=ros_domain)
        node = Sam2Node(tracker_factory=lambda _: fake_tracker, context=context, namespace=namespace)
        made.append((node, context))
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        return node

    yield make
    for node, context in made:
        node.close()
        node.destroy_node()
        context.try_shutdown()


def test_two_nodes_of_one_name_both_say_so(
    make_node: Callable[[str], Sam2Node], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for node in [make_node("twins"), make_node("twins")]:
        end_s = time.monotonic() + DEADLINE_S
        while not NameWatch(node).count():
            assert time.monotonic() < end_s, "the node does not see the other"
            time.sleep(0.02)  # discovery has no event to wait for
        sent: list[DiagnosticArray] = []
        monkeypatch.setattr(node, "_diagnostics", SimpleNamespace(publish=sent.append))
        capfd.readouterr()
        node._beat()
        said = "another node is called /twins/sam2_node in this ROS domain"
        assert said in capfd.readouterr().err
        node._beat()
        assert said not in capfd.readouterr().err, "once is enough in the log"
        for message in sent:
            assert message.status[0].level == DiagnosticStatus.WARN and message.status[0].message.startswith(said)


def test_a_node_alone_has_no_namesake(make_node: Callable[[str], Sam2Node], capfd: pytest.CaptureFixture[str]) -> None:
    node, _other = make_node("left"), make_node("right")
    node._beat()
    assert NameWatch(node).count() == 0
    assert "in this ROS domain" not in capfd.readouterr().err


def test_the_advice_to_configure_has_the_namespace(make_node: Callable[[str], Sam2Node]) -> None:
    node = make_node("left")
    node.trigger_cleanup()
    assert node._session_or_reason() == "not configured: ros2 lifecycle set /left/sam2_node configure"


def test_a_node_that_was_destroyed_is_no_longer_seen(make_node: Callable[[str], Sam2Node]) -> None:
    watch, other = NameWatch(make_node("twins")), make_node("twins")
    end_s = time.monotonic() + DEADLINE_S
    while not watch.count():
        assert time.monotonic() < end_s, "the other node is not seen"
        time.sleep(0.02)
    other.close()
    other.destroy_node()
    while watch.count():
        assert time.monotonic() < end_s, "the other node is still seen: something holds its handle"
        time.sleep(0.02)


@pytest.mark.parametrize("by_signal", [True, False])
def test_the_end_in_the_middle_of_an_image_is_an_error_only_without_a_signal(
    by_signal: bool, ros_rig: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    image = array_to_image(np.zeros((8, 10, 3), np.uint8), "rgb8", Header(frame_id="camera"))
    ros_rig.tracker.gate.clear()
    ros_rig.publisher(Image, "image", qos_profile_sensor_data).publish(image)
    ros_rig.spin_until(ros_rig.tracker.in_step.is_set, "the model works")
    session = ros_rig.node._session
    stop = session.stop
    monkeypatch.setattr(session, "stop", lambda timeout_s: stop(0.01))  # it would wait for seconds
    if by_signal:
        ros_rig.context.try_shutdown()
    ros_rig.node.close()
    said = capfd.readouterr().err
    assert ros_rig.node.left_behind
    assert ("ERROR" in said) is not by_signal
    ros_rig.tracker.gate.set()
    assert stop(20.0)


def test_images_that_come_while_the_node_waits_are_said_once_a_state_with_the_whole_command(
    make_ros_rig: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    rig = make_ros_rig(autostart=False, image_timeout_s=0.1)
    clock = SimpleNamespace(now_s=100.0)
    rig.node._idle = IdleWatch(rig.node, lambda: clock.now_s)

    def said() -> str:
        capfd.readouterr()
        for _ in range(2):
            rig.node._beat()
            clock.now_s += 0.2
        return "".join(line for line in capfd.readouterr().err.splitlines() if "are published" in line)

    rig.start()
    assert said() == "", "nobody publishes"
    rig.peer.create_publisher(Image, "image", 1)
    rig.spin_until(lambda: rig.node.count_publishers("/image") > 0, "the camera is seen")
    command = "ros2 lifecycle set /sam2_node"
    assert f"{command} configure && {command} activate, or set autostart" in said()
    assert said() == ""
    rig.node.trigger_configure()
    text = said()
    assert "this node is inactive" in text and f": {command} activate, or" in text and text.count("published") == 1
    rig.node.trigger_activate()
    assert said() == ""
