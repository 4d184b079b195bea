"""A detector's boxes: which of them become prompts, and that one image's do so only once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.node.detection_input import DetectionInput, make_detection_input, read_detections
from sam2_ros.node.detections import Box, Detection, box_iou, prompts_for
from sam2_ros.node.object_book import ObjectView, TrackingView
from sam2_ros.node.parameters import parse
from sam2_ros.node.prompts import PromptAction, PromptRequest
from sam2_ros.tracking.types import ObjectState, TrackedMask

HEIGHT, WIDTH = 60, 80
HERE, THERE = (10.0, 10.0, 30.0, 30.0), (40.0, 20.0, 70.0, 50.0)


def an_object(object_id: str, class_id: str = "cup", state: ObjectState = ObjectState.TRACKED) -> ObjectView:
    box = (10, 10, 30, 30) if state is ObjectState.TRACKED else None
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    return ObjectView(TrackedMask(object_id, 1, state, 0.9, 0.9, mask, 0, box, None), class_id, 1, 1)


def prompts(*detections: Detection, objects: tuple[ObjectView, ...] = (), **values: Any) -> list[PromptRequest]:
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    view = TrackingView(None, 1, image, None, objects, 0)
    return prompts_for(detections, view, parse({"detection_mode": "add", **values}), 7)


def test_a_box_on_a_visible_object_tells_nothing() -> None:
    assert not prompts(Detection("bowl", 0.9, (12.0, 12.0, 31.0, 29.0)), objects=(an_object("mug"),))
    assert prompts(Detection("cup", 0.9, (24.0, 24.0, 44.0, 44.0)), objects=(an_object("mug"),))  # hardly on it


def test_how_sure_a_box_must_be_and_how_far_on_an_object_is_for_the_parameters_to_say() -> None:
    unsure = Detection("cup", 0.3, HERE)
    assert not prompts(unsure) and prompts(unsure, detection_min_score=0.3)
    corner = Detection("cup", 0.9, (24.0, 24.0, 44.0, 44.0))  # IoU with the mug 0.047
    assert prompts(corner, objects=(an_object("mug"),), detection_iou=0.05)
    assert not prompts(corner, objects=(an_object("mug"),), detection_iou=0.04)


def test_the_lost_object_of_its_class_is_found_again() -> None:
    objects = (an_object("bowl", "bowl", ObjectState.LOST), an_object("mug", state=ObjectState.LOST))
    (request,) = prompts(Detection("cup", 0.9, THERE), objects=objects, detection_mode="recover")
    assert (request.object_id, request.action, request.stamp_ns) == ("mug", PromptAction.REFINE, 7)
    np.testing.assert_array_equal(request.box_xyxy, np.float32(THERE))


@pytest.mark.parametrize(
    "missing",
    [
        (an_object("a", state=ObjectState.LOST), an_object("b", state=ObjectState.LOST)),  # which?
        (an_object("a", state=ObjectState.OCCLUDED),),  # comes back by itself
        (an_object("a", state=ObjectState.LOST), an_object("b", state=ObjectState.OCCLUDED)),
        (an_object("a", "", ObjectState.LOST),),  # of no class
    ],
)
def test_nobody_is_taken_for_another(missing: tuple[ObjectView, ...]) -> None:
    class_id = missing[0].class_id
    assert not prompts(Detection(class_id, 0.9, THERE), objects=missing)
    assert not prompts(Detection(class_id, 0.9, THERE), objects=missing, detection_mode="recover")


def test_one_box_for_each_thing() -> None:
    lost = an_object("mug", state=ObjectState.LOST)
    found = prompts(Detection("cup", 0.7, THERE), Detection("cup", 0.9, HERE), objects=(lost,))
    assert [(request.object_id, request.action) for request in found] == [
        ("mug", PromptAction.REFINE),  # the surest
        ("", PromptAction.ADD),
    ]
    assert len(prompts(Detection("cup", 0.9, HERE), Detection("bowl", 0.8, HERE))) == 1  # two names for one thing


def test_new_things_are_added_only_when_wanted() -> None:
    (request,) = prompts(Detection("cup", 0.9, HERE))
    assert (request.object_id, request.class_id, request.action) == ("", "cup", PromptAction.ADD)
    assert not prompts(Detection("cup", 0.9, HERE), detection_mode="recover")
    assert not prompts(Detection("cup", 0.9, HERE), detection_mode="off")


@pytest.mark.parametrize(
    ("score", "box", "expected"),
    [
        (0.49, HERE, None),
        (math.nan, HERE, None),
        (0.9, (math.nan, 10.0, 30.0, 30.0), None),
        (0.9, (-30.0, 10.0, -10.0, 30.0), None),
        (0.9, (30.0, 10.0, 30.0, 30.0), None),
        (0.9, (-5.0, 10.0, 95.0, 30.0), (0.0, 10.0, 80.0, 30.0)),
    ],
)
def test_bad_boxes_are_left_out_and_those_that_reach_out_are_cut(score: float, box: Box, expected: Box | None) -> None:
    found = prompts(Detection("cup", score, box))
    assert [request.box_xyxy.tolist() for request in found] == ([list(expected)] if expected else [])


def test_box_iou() -> None:
    assert box_iou(HERE, HERE) == 1.0
    assert box_iou((0, 0, 4, 2), (2, 0, 6, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def a_detection(class_scores: dict[str, float], x: float, y: float, size_x: float, size_y: float) -> Any:
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score)) for name, score in class_scores.items()
    ]
    bbox = SimpleNamespace(center=SimpleNamespace(position=SimpleNamespace(x=x, y=y)), size_x=size_x, size_y=size_y)
    return SimpleNamespace(results=results, bbox=bbox)


def an_array(*detections: Any, stamp_s: int = 0) -> Any:
    return SimpleNamespace(header=Header(stamp=ns_to_stamp(stamp_s * 1_000_000_000)), detections=list(detections))


def test_reading_takes_the_surest_class() -> None:
    message = an_array(a_detection({"cup": 0.3, "bowl": 0.6}, 20, 30, 10, 4), a_detection({}, 1, 1, 1, 1))
    assert read_detections(message) == [Detection("bowl", 0.6, (15, 28, 25, 32))]


def test_a_detector_at_every_image_adds_a_thing_once(make_ros_rig: Callable[..., Any]) -> None:
    """Through the node; the message is handed to the callback, because vision_msgs has no wheel."""
    rig = make_ros_rig(detection_mode="add")
    rig.start()
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    sent = 0

    def show() -> None:
        nonlocal sent
        sent += 1
        header = Header(frame_id="camera", stamp=ns_to_stamp(sent * 100_000_000))
        images.publish(array_to_image(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), "rgb8", header))
        rig.spin_until(lambda: rig.node._session.stats().processed == sent, "the image is processed")

    show()
    detections = DetectionInput(rig.node, rig.node._session, rig.node._current_parameters, Image)
    message = an_array(a_detection({"cup": 0.9}, 20, 20, 3, 3))
    for _ in range(5):
        detections._on_detections(message)
    rig.spin_until(lambda: detections._pending is not None and detections._pending.done(), "the prompt is taken")
    detections._on_detections(message)  # taken, but not seen yet
    for _ in range(2):
        show()
        detections._on_detections(message)
    objects = rig.node._session.view.objects
    assert [(item.tracked.object_id, item.class_id) for item in objects] == [("object_1", "cup")]
    detections.destroy()


def test_without_vision_msgs_nothing_is_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs", None)
    nobody: Any = None
    assert make_detection_input(nobody, nobody, nobody) is None


def test_with_vision_msgs_the_topic_is_subscribed(monkeypatch: pytest.MonkeyPatch) -> None:
    msg: Any = ModuleType("vision_msgs.msg")
    msg.Detection2DArray = object
    monkeypatch.setitem(sys.modules, "vision_msgs", ModuleType("vision_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", msg)
    made: list[tuple[Any, str]] = []

    def create_subscription(kind: Any, topic: str, callback: Any, qos: Any) -> Any:
        made.append((kind, topic))
        return SimpleNamespace(topic_name=topic)

    node: Any = SimpleNamespace(create_subscription=create_subscription)
    nobody: Any = None
    subscription = make_detection_input(node, nobody, nobody)
    assert subscription is not None and made == [(object, "detections")]
