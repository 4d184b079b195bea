"""tf2_ros and vision_msgs have no wheels: with stand-ins that follow their documented interface, and without them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Pose, Transform, TransformStamped
from rclpy.clock import Clock
from std_msgs.msg import Header

from sam2_ros.node.conversions import object_pose
from sam2_ros.node.optional.detections import make_vision_publishers
from sam2_ros.node.optional.tf import Transforms, rotate
from sam2_ros.node.publishers import SpatialPublishers, make_qos
from sam2_ros.perception.camera import Intrinsics
from sam2_ros.perception.depth import Scene, SceneDepth
from sam2_ros.perception.object_geometry import ObjectGeometry
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.types import FrameResult, ObjectState, TrackedMask

HEADER = Header(frame_id="camera")
QOS = make_qos("reliable", depth=5)
PLACE = ObjectGeometry(np.zeros(3), np.array([0.1, 0.2, 1.5]), np.array([0.3, 0.2, 0.1]), np.eye(3), 100)
HALF = 0.5**0.5


def a_view(*names: str, class_id: str = "cup", label: int = 1) -> TrackingView:
    mask = np.zeros((8, 10), dtype=np.bool_)
    mask[2:5, 3:7] = True
    box = (3, 2, 7, 5)
    objects = tuple(
        ObjectView(
            TrackedMask(name, label + i, ObjectState.TRACKED, 0.75, 0.9, mask, 12, box, (4.5, 3.0)), class_id, 1, 1
        )
        for i, name in enumerate(names)
    )
    result = FrameResult(0, tuple(item.tracked for item in objects), mask.astype(np.uint8), 1.0)
    return TrackingView(HEADER, 1, np.zeros((8, 10, 3), np.uint8), result, objects, 0)


class StandInPublisher:
    is_activated = True

    def __init__(self, topic: str, subscribers: int = 1) -> None:
        self.topic_name, self.subscribers, self.sent = topic, subscribers, []  # type: tuple[str, int, list[Any]]

    def publish(self, message: Any) -> None:
        if self.is_activated:
            self.sent.append(message)

    def get_subscription_count(self) -> int:
        return self.subscribers


class StandInNode:
    """Makes publishers that remember."""

    def __init__(self) -> None:
        self.publishers: dict[str, StandInPublisher] = {}

    def create_lifecycle_publisher(self, kind: Any, topic: str, qos: Any) -> StandInPublisher:
        self.publishers[topic] = StandInPublisher(topic)
        return self.publishers[topic]

    def destroy_lifecycle_publisher(self, publisher: StandInPublisher) -> None:
        del self.publishers[publisher.topic_name]

    def get_fully_qualified_name(self) -> str:
        return "/left/sam2_node"

    def get_clock(self) -> Clock:
        return Clock()


def sent_on(node: StandInNode, topic: str) -> list[Any]:
    return node.publishers[topic].sent


# vision_msgs ---------------------------------------------------------------------------------------------------------


def message_type(**defaults: Callable[[], Any]) -> Any:
    """A stand-in for a generated message: rejects fields that it does not have."""

    class Message:
        __slots__ = tuple(defaults)

        def __init__(self, **fields: Any) -> None:
            assert set(fields) <= set(defaults), f"no such field: {set(fields) - set(defaults)}"
            for name, default in defaults.items():
                setattr(self, name, fields[name] if name in fields else default())

    return Message


@pytest.fixture
def vision_msgs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The messages of vision_msgs 4 (Humble and later) that are used, with all their fields."""
    point = message_type(x=float, y=float)
    center = message_type(position=point, theta=float)
    bbox = message_type(center=center, size_x=float, size_y=float)
    hypothesis = message_type(class_id=str, score=float)
    msg = ModuleType("vision_msgs.msg")
    msg.__dict__.update(
        VisionClass=message_type(class_id=int, class_name=str),
        LabelInfo=message_type(header=Header, class_map=list, threshold=float),
        ObjectHypothesisWithPose=message_type(hypothesis=hypothesis, pose=lambda: SimpleNamespace(pose=Pose())),
        Detection2D=message_type(header=Header, results=list, bbox=bbox, id=str),
        Detection2DArray=message_type(header=Header, detections=list),
    )
    package = ModuleType("vision_msgs")
    package.msg = msg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vision_msgs", package)
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", msg)
    return msg


def test_detections(vision_msgs: ModuleType) -> None:
    node: Any = StandInNode()
    outputs = make_vision_publishers(node, QOS)
    assert outputs is not None and outputs.topic_names() == ["~/detections", "~/label_info"]
    outputs.publish(a_view("mug", "tin"), Scene(None, {"mug": PLACE}))
    (message,) = sent_on(node, "~/detections")
    mug, tin = message.detections
    assert message.header == mug.header == HEADER
    assert (mug.id, mug.results[0].hypothesis.class_id, mug.results[0].hypothesis.score) == ("mug", "cup", 0.75)
    assert (mug.bbox.center.position.x, mug.bbox.center.position.y) == (5.0, 3.5)
    assert (mug.bbox.size_x, mug.bbox.size_y) == (4.0, 3.0)
    assert mug.results[0].pose.pose == object_pose(PLACE)
    assert (tin.id, tin.results[0].pose.pose) == ("tin", Pose())
    outputs.destroy()
    assert not node.publishers


def test_label_info_is_said_again_when_it_changes(vision_msgs: ModuleType) -> None:
    node: Any = StandInNode()
    outputs = make_vision_publishers(node, QOS)
    assert outputs is not None
    for view in (a_view("mug"), a_view("mug"), a_view("mug", "tin", class_id=""), a_view("far", label=65535)):
        outputs.publish(view, Scene())
    maps = [{c.class_id: c.class_name for c in message.class_map} for message in sent_on(node, "~/label_info")]
    assert maps == [{1: "cup"}, {1: "mug", 2: "tin"}, {}]  # the last label has no place in 16 bits


def test_label_info_that_nobody_was_told_is_said_when_the_node_is_active_again(vision_msgs: ModuleType) -> None:
    node: Any = StandInNode()
    outputs = make_vision_publishers(node, QOS)
    assert outputs is not None
    publisher = node.publishers["~/label_info"]
    publisher.is_activated = False
    outputs.publish(a_view("mug"), Scene())
    publisher.is_activated = True
    outputs.publish(a_view("mug"), Scene())
    (message,) = sent_on(node, "~/label_info")
    assert [c.class_name for c in message.class_map] == ["cup"]


def test_without_vision_msgs_there_are_no_such_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vision_msgs", "vision_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    node: Any = StandInNode()
    assert make_vision_publishers(node, QOS) is None and not node.publishers


# tf2_ros -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tf2_ros(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is used of tf2_ros; ``known`` holds the transforms, by target and source, ``sent`` what was broadcast."""
    module: Any = ModuleType("tf2_ros")
    module.known, module.sent, module.listeners = {}, [], []

    class Buffer:
        def clear(self) -> None:
            module.known.clear()

        def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
            if (target, source) not in module.known:
                raise module.TransformException(f"{source!r} does not exist")
            return TransformStamped(transform=module.known[target, source])

    module.TransformException = type("TransformException", (Exception,), {})
    module.Buffer = Buffer
    module.TransformListener = lambda buffer, node: module.listeners.append(node)
    module.TransformBroadcaster = lambda node: SimpleNamespace(sendTransform=module.sent.extend)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module


def publish_in_space(node: Any, subscribers: int = 0, **values: Any) -> None:
    outputs = SpatialPublishers(
        node, lambda: parse({"use_depth": True, **values}), Transforms(node), qos=QOS, cloud_qos=QOS
    )
    for topic in ("~/markers", "~/object_points"):
        node.publishers[topic].subscribers = subscribers
    depth = SceneDepth(np.ones((8, 10), np.float32), Intrinsics(10.0, 10.0, 4.5, 3.5, 10, 8))
    outputs.publish(a_view("mug", "tin"), Scene(depth, {"mug": PLACE}))


def test_objects_with_a_place_have_a_frame(tf2_ros: Any) -> None:
    node: Any = StandInNode()
    publish_in_space(node)
    (frame,) = tf2_ros.sent
    assert (frame.header, frame.child_frame_id) == (HEADER, "left/sam2_node/mug")
    shift, turn = frame.transform.translation, frame.transform.rotation
    assert (shift.x, shift.y, shift.z) == (0.1, 0.2, 1.5)
    assert (turn.x, turn.y, turn.z, turn.w) == (0, 0, 0, 1)
    assert len(sent_on(node, "~/target_pose")) == 1
    assert not sent_on(node, "~/markers") and not sent_on(node, "~/object_points")


def test_outputs_can_be_switched_off(tf2_ros: Any) -> None:
    topics = ("tf", "target_pose", "markers", "object_points")

    def sent(*off: str) -> list[str]:
        node: Any = StandInNode()
        tf2_ros.sent.clear()
        publish_in_space(node, subscribers=1, **{f"publish_{name}": False for name in off})
        return [name for name in topics if (tf2_ros.sent if name == "tf" else sent_on(node, f"~/{name}"))]

    assert sent() == list(topics)
    for name in topics:
        assert sent(name) == [other for other in topics if other != name]


def test_silence_while_the_selected_object_has_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    node: Any = StandInNode()
    publish_in_space(node, selected_object="tin")
    assert not sent_on(node, "~/target_pose")


def test_points_of_other_frames(tf2_ros: Any) -> None:
    node: Any = StandInNode()
    transforms = Transforms(node)
    moved = transforms.move_point(np.array([1.0, 0, 0]), "map", "camera")
    assert isinstance(moved, str) and "'map' does not exist" in moved
    there = Transform()
    there.translation.z = 5.0
    there.rotation.z, there.rotation.w = HALF, HALF
    tf2_ros.known["camera", "map"] = there
    moved = transforms.move_point(np.array([1.0, 0, 0]), "map", "camera")
    np.testing.assert_allclose(moved, [0, 1, 5], atol=1e-12)
    assert tf2_ros.listeners == [node]  # once


def test_transforms_of_a_time_that_comes_again_are_forgotten(tf2_ros: Any) -> None:
    tf2_ros.known["map", "camera"] = Transform()
    node: Any = StandInNode()
    transforms = Transforms(node)
    transforms.forget()  # nothing was listened to yet
    assert not isinstance(transforms.move_point(np.zeros(3), "camera", "map"), str)
    transforms.forget()
    assert isinstance(transforms.move_point(np.zeros(3), "camera", "map"), str)


def test_without_tf2_points_of_other_frames_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    node: Any = StandInNode()
    moved = Transforms(node).move_point(np.zeros(3), "map", "camera")
    assert isinstance(moved, str) and "tf2_ros" in moved and "not usable here" in moved


def test_rotate_turns_as_the_rotation_matrix_does() -> None:
    # A third of a turn about the diagonal takes x to y to z.
    third = np.array([0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(rotate(third, np.array([1.0, 2.0, 3.0])), [3, 1, 2], atol=1e-12)
