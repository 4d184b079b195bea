"""What RViz and Foxglove are told to show is what the node publishes."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sam2_ros.bringup.arguments import RVIZ_TOPICS

ROOT = Path(__file__).parent.parent
NODE = ROOT / "sam2_ros" / "node"
INPUTS = {"/clicked_point"}  # what a viewer publishes and the node takes


def published() -> set[str]:
    """Second arguments, where they are texts, of the calls that make the node's publishers."""
    calls = (
        call
        for path in NODE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    )
    makers = ("create_publisher", "create_lifecycle_publisher")
    names = {
        argument.value
        for call in calls
        if call.func.attr in makers  # type: ignore[attr-defined]
        for argument in call.args[1:2]
        if isinstance(argument, ast.Constant)
    }
    assert "~/objects" in names, "the search for publishers is wrong"
    return names


def private(topic: str) -> str:
    return topic.replace("/sam2_node/", "~/")


def rviz_parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every display and tool that has a topic."""
    if isinstance(value, dict):
        if isinstance(value.get("Topic"), dict):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from rviz_parts(item)


@pytest.fixture(scope="module")
def rviz() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / "sam2.rviz").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    return json.loads((ROOT / "config" / "foxglove.json").read_text(encoding="utf-8"))


def rviz_topics(config: dict[str, Any]) -> set[str]:
    return {part["Topic"]["Value"] for part in rviz_parts(config)}


def foxglove_topics(layout: dict[str, Any]) -> set[str]:
    topics: set[str] = set()
    for panel in layout["configById"].values():
        topics |= {panel[key] for key in ("topicPath", "topicToRender") if key in panel}
        topics |= set(panel.get("topics", {}))
        topics |= {path["value"].partition(".")[0] for path in panel.get("paths", ())}
        topics |= {panel["imageMode"]["imageTopic"]} if "imageMode" in panel else set()
        topics |= {panel["publish"]["pointTopic"]} if "publish" in panel else set()
    return topics


def test_viewers_show_what_is_published(rviz: dict[str, Any], foxglove: dict[str, Any]) -> None:
    shown = {private(topic) for topic in (rviz_topics(rviz) | foxglove_topics(foxglove)) - INPUTS}
    assert {"~/overlay", "~/label_image_color"} <= shown
    assert not shown - published(), "nobody publishes these"


def test_rviz_asks_for_a_qos_that_the_publishers_offer(rviz: dict[str, Any]) -> None:
    for part in rviz_parts(rviz):
        assert part["Topic"]["Durability Policy"] == "Volatile", part["Name"]
        assert part["Topic"]["Reliability Policy"] == "Reliable", part["Name"]


def test_displays_are_of_the_kind_of_their_topic(rviz: dict[str, Any]) -> None:
    kinds = {part["Topic"]["Value"]: part["Class"].removeprefix("rviz_default_plugins/") for part in rviz_parts(rviz)}
    assert kinds == {
        "/sam2_node/overlay": "Image",
        "/sam2_node/label_image_color": "Image",
        "/sam2_node/markers": "MarkerArray",
        "/sam2_node/object_points": "PointCloud2",
        "/sam2_node/target_pose": "Pose",
        "/clicked_point": "PublishPoint",
    }


def test_the_launch_file_remaps_every_topic_of_rviz(rviz: dict[str, Any]) -> None:
    assert set(RVIZ_TOPICS) == rviz_topics(rviz)


def panels_of(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from panels_of(layout["first"])
        yield from panels_of(layout["second"])


def test_every_foxglove_panel_is_placed_once(foxglove: dict[str, Any]) -> None:
    placed = list(panels_of(foxglove["layout"]))
    assert sorted(placed) == sorted(foxglove["configById"])


def test_foxglove_plots_fields_of_the_message(foxglove: dict[str, Any]) -> None:
    text = (ROOT / "msg" / "TrackedObjectArray.msg").read_text(encoding="utf-8")
    fields = {line.split()[1] for line in text.splitlines() if line and not line.startswith("#")}
    plotted = {path["value"].partition(".")[2] for path in foxglove["configById"]["Plot!latency"]["paths"]}
    assert plotted and plotted <= fields
