"""The Python in docs/ parses; the snippet for MoveIt, whose messages have no wheel, does what its page says."""

from __future__ import annotations

import ast
import re
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from sam2_ros.msg import TrackedObject

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_in_the_docs_parses(block: str) -> None:
    ast.parse(block)


class StandIn(SimpleNamespace):
    """A message: fields by keyword, and the constants that are used."""

    ADD, REMOVE = b"\x00", b"\x01"
    BOX = 1


@pytest.fixture
def moveit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the snippet in docs/moveit.md."""
    for package, name in (("moveit_msgs", "CollisionObject"), ("shape_msgs", "SolidPrimitive")):
        module = ModuleType(f"{package}.msg")
        setattr(module, name, StandIn)
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, f"{package}.msg", module)
    (block,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "moveit.md").read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    exec(compile(block, "moveit.md", "exec"), names)
    return names


@pytest.fixture
def collision_object(moveit: dict[str, Any]) -> Any:
    return moveit["collision_object"]


def test_a_seen_object_becomes_a_box_around_it(collision_object: Any) -> None:
    tracked = TrackedObject(object_id="mug", state=TrackedObject.TRACKED, has_pose=True)
    tracked.pose.position.z = 0.8
    tracked.size.x, tracked.size.y = 0.1, 0.2  # flat: only its front is seen
    made = collision_object(tracked, "header")
    assert (made.id, made.header, made.operation) == ("sam2/mug", "header", StandIn.ADD)
    assert made.pose.position.z == 0.8
    (box,) = made.primitives
    assert box.dimensions == pytest.approx([0.12, 0.22, 0.025])
    assert len(made.primitive_poses) == 1 and made.primitive_poses[0].orientation.w == 1.0


def test_an_object_that_nobody_tracks_any_more_is_removed_once(moveit: dict[str, Any]) -> None:
    published: set[str] = set()

    def changes(*object_ids: str) -> list[tuple[str, bytes]]:
        seen = [TrackedObject(object_id=each, state=TrackedObject.TRACKED, has_pose=True) for each in object_ids]
        made = moveit["changes"](SimpleNamespace(header="header", objects=seen), published)
        return [(each.id, each.operation) for each in made]

    assert changes("mug", "tin") == [("sam2/mug", StandIn.ADD), ("sam2/tin", StandIn.ADD)]
    assert changes("tin") == [("sam2/tin", StandIn.ADD), ("sam2/mug", StandIn.REMOVE)]
    assert changes("tin") == [("sam2/tin", StandIn.ADD)]
    assert changes() == [("sam2/tin", StandIn.REMOVE)]
    assert changes() == []


def test_a_lost_object_is_removed_and_an_occluded_one_stays(collision_object: Any) -> None:
    lost = collision_object(TrackedObject(object_id="mug", state=TrackedObject.LOST), None)
    assert (lost.id, lost.operation) == ("sam2/mug", StandIn.REMOVE)
    assert collision_object(TrackedObject(state=TrackedObject.OCCLUDED, has_pose=True), None) is None
    assert collision_object(TrackedObject(state=TrackedObject.TRACKED, has_pose=False), None) is None


def test_the_synchroniser_receives_from_a_best_effort_camera(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet of docs/perception.md; of message_filters, which has no wheel, only what it hands to rclpy counts."""
    made: list[Any] = []

    def subscriber(node: Any, message_type: Any, topic: str, qos_profile: Any = 10) -> Any:  # the real one's default
        made.append(node.create_subscription(message_type, topic, received.append, qos_profile))
        return made[-1]

    received: list[Any] = []
    filters = ModuleType("message_filters")
    filters.__dict__.update(
        Subscriber=subscriber, TimeSynchronizer=lambda *_args, **_options: SimpleNamespace(registerCallback=id)
    )
    monkeypatch.setitem(sys.modules, "message_filters", filters)
    text = (DOCS / "perception.md").read_text(encoding="utf-8")
    (block,) = (code for code in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "Synchronizer" in code)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("snippet", context=context)
    try:
        exec(compile(block, "perception.md", "exec"), {"node": node, "on_frame": None})
        camera = node.create_publisher(Image, "/camera/image_raw", qos_profile_sensor_data)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        end_s = time.monotonic() + 20.0
        while not camera.get_subscription_count():
            assert time.monotonic() < end_s, "the snippet's subscription does not match a best-effort camera"
            time.sleep(0.02)
        camera.publish(Image())
        while not received:
            assert time.monotonic() < end_s, "nothing arrives"
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        assert [item.topic_name for item in made][1:] == ["/sam2_node/label_image", "/sam2_node/objects"]
    finally:
        node.destroy_node()
        context.try_shutdown()
