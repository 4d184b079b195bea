"""The Python in docs/ parses; the snippet for MoveIt, whose messages have no wheel, does what its page says."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

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
