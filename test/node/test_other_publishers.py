"""Inputs as other people's nodes publish them: another reliability than the node's, another type than it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from sam2_ros.node.graph import type_name
from sam2_ros.node.optional.detections import DetectionSubscription


@pytest.fixture
def make_stranger() -> Iterator[Callable[[Any], Any]]:
    """``make_stranger(rig)``: a node of another process, as far as DDS goes: in one, a topic has one type."""
    made: list[tuple[Any, Any]] = []

    def make(rig: Any) -> Any:
        context = rclpy.Context()
        rclpy.init(args=[], context=context, domain_id=rig.context.get_domain_id())
        made.append((rclpy.create_node("stranger", context=context), context))
        return made[-1][0]

    yield make
    for node, context in made:
        node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
@pytest.mark.parametrize("durability", [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL])
@pytest.mark.parametrize("topic", ["image", "depth", "camera_info", "detections"])
def test_what_sensors_and_detectors_send_is_received_with_any_qos(
    make_ros_rig: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    topic: str,
    reliability: ReliabilityPolicy,
    durability: DurabilityPolicy,
) -> None:
    received: list[Any] = []
    monkeypatch.setattr(DetectionSubscription, "_on_detections", lambda self, message: received.append(message))
    rig = make_ros_rig(use_depth=True)
    rig.start()
    # A stand-in for Detection2DArray, which has no wheel: the subscription is the same.
    rig.node._detections = DetectionSubscription(rig.node, rig.node._session, rig.node._current_parameters, String)
    kind = {"camera_info": CameraInfo, "detections": String}.get(topic, Image)
    qos = QoSProfile(depth=1, reliability=reliability, durability=durability)
    publisher = rig.publisher(kind, topic, qos)
    depth = rig.node._depth
    has_arrived = {
        "image": lambda: rig.node._session.stats().received > 0,
        "depth": lambda: len(depth._depth) > 0,
        "camera_info": lambda: depth._camera_info is not None,
        "detections": lambda: bool(received),
    }[topic]

    def sent_and_received() -> bool:
        publisher.publish(kind())
        return has_arrived()

    rig.spin_until(sent_and_received, f"{topic} is received")


@pytest.mark.parametrize(
    ("topic", "kind", "ours"),
    [
        ("depth", CompressedImage, "sensor_msgs/msg/Image"),
        ("camera_info", String, "sensor_msgs/msg/CameraInfo"),
        ("clicked_point", PoseStamped, "geometry_msgs/msg/PointStamped"),
        ("click", PointStamped, "geometry_msgs/msg/Point"),
        ("prompt", Point, "sam2_ros/msg/Prompt"),
    ],
)
def test_another_type_on_an_input_is_named_in_the_log_and_in_diagnostics(
    make_ros_rig: Callable[..., Any],
    make_stranger: Callable[[Any], Any],
    capfd: pytest.CaptureFixture[str],
    topic: str,
    kind: Any,
    ours: str,
) -> None:
    rig = make_ros_rig(use_depth=True)
    rig.start()
    statuses: list[DiagnosticStatus] = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda m: statuses.extend(m.status), 10)
    stranger = make_stranger(rig)
    wrong = stranger.create_publisher(kind, topic, 10)
    said = f"/{topic} is published as {type_name(kind)} (by /stranger) and this node reads {ours}: nothing is received"
    rig.spin_until(lambda: any(said in status.message for status in statuses), "diagnostics say so")
    assert capfd.readouterr().err.count(said) == 1
    stranger.destroy_publisher(wrong)
    statuses.clear()
    rig.spin_until(lambda: any(said not in status.message for status in statuses), "it is over")


def test_a_second_publisher_of_another_type_takes_nothing_away(
    make_ros_rig: Callable[..., Any], make_stranger: Callable[[Any], Any]
) -> None:
    rig = make_ros_rig()
    rig.start()
    stranger = make_stranger(rig)
    publishers = [rig.publisher(CameraInfo, "camera_info"), stranger.create_publisher(String, "camera_info", 10)]
    rig.spin_until(lambda: rig.node.count_publishers("/camera_info") == len(publishers), "both are seen")
    graph = rig.node._reporter._look
    assert not any("is published as" in graph() for _ in range(3))
