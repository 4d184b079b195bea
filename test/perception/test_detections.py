"""A detector's boxes: which of them become prompts, and that one image's do so only once."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from session_rig import SessionRig, click
from std_msgs.msg import Header

from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.node.optional.detections import DetectionSubscription, make_detection_subscription, read_detections
from sam2_ros.perception.detections import Box, Detection, box_iou, boxes_of, prompts_for
from sam2_ros.session.objects import ObjectView, PromptAction, PromptRequest, TrackingView
from sam2_ros.session.parameters import parse
from sam2_ros.tracking.types import ObjectState, TrackedMask

HEIGHT, WIDTH = 60, 80
HERE, THERE = (10.0, 10.0, 30.0, 30.0), (40.0, 20.0, 70.0, 50.0)


def an_object(
    object_id: str,
    class_id: str = "cup",
    state: ObjectState = ObjectState.TRACKED,
    box: tuple[int, int, int, int] | None = (10, 10, 30, 30),
) -> ObjectView:
    box = box if state is ObjectState.TRACKED else None
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    return ObjectView(TrackedMask(object_id, 1, state, 0.9, 0.9, mask, 0, box, None), class_id, 1, 1)


def prompts(
    *detections: Detection,
    objects: tuple[ObjectView, ...] = (),
    then: dict[str, Box | None] | None = None,
    **values: Any,
) -> list[PromptRequest]:
    """``then``: where the objects were in the detections' image; where they are now if not given."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    view = TrackingView(None, 1, image, None, objects, 0)
    parameters = parse({"detection_mode": "add", **values})
    return prompts_for(detections, view, parameters, 7, boxes_of(view) if then is None else then)


def test_a_box_on_a_visible_object_tells_nothing() -> None:
    assert not prompts(Detection("bowl", 0.9, (12.0, 12.0, 31.0, 29.0)), objects=(an_object("mug"),))
    assert prompts(Detection("cup", 0.9, (24.0, 24.0, 44.0, 44.0)), objects=(an_object("mug"),))  # hardly on it


@pytest.mark.parametrize(
    ("classes", "looked_at"),
    [("", ["bowl", "cup"]), ("cup", ["cup"]), ("Cup , dog", ["cup"]), ("dog", []), (" , ", ["bowl", "cup"])],
)
def test_only_the_named_classes_are_looked_at(classes: str, looked_at: list[str]) -> None:
    found = prompts(Detection("cup", 0.9, HERE), Detection("bowl", 0.8, THERE), detection_classes=classes)
    assert sorted(prompt.class_id for prompt in found) == looked_at


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
        (an_object("a", state=ObjectState.OCCLUDED),),  # comes back by itself
        (an_object("a", state=ObjectState.LOST), an_object("b", state=ObjectState.OCCLUDED)),
        (an_object("a", "", ObjectState.LOST),),  # of no class
    ],
)
def test_nobody_is_taken_for_another(missing: tuple[ObjectView, ...]) -> None:
    class_id = missing[0].class_id
    assert not prompts(Detection(class_id, 0.9, THERE), objects=missing)
    assert not prompts(Detection(class_id, 0.9, THERE), objects=missing, detection_mode="recover")


def test_of_two_lost_objects_nobody_knows_which_was_detected_and_that_is_no_dead_end() -> None:
    lost = tuple(replace(an_object(name, state=ObjectState.LOST), last_seen_ns=ns) for name, ns in (("a", 9), ("b", 5)))
    cup = Detection("cup", 0.9, THERE)
    (added,) = prompts(cup, objects=lost)
    assert (added.action, added.object_id) == (PromptAction.ADD, "")
    (found,) = prompts(cup, objects=lost, detection_mode="recover")
    assert (found.action, found.object_id) == (PromptAction.REFINE, "a"), "the one that was seen last"
    both = prompts(cup, Detection("cup", 0.8, HERE), objects=lost, detection_mode="recover")
    assert [prompt.object_id for prompt in both] == ["a", "b"]
    out_of_sight = an_object("c", state=ObjectState.OCCLUDED)
    for mode in ("add", "recover"):
        assert not prompts(cup, objects=(*lost, out_of_sight), detection_mode=mode)


ON_IT = (12.0, 12.0, 31.0, 29.0)


@pytest.mark.parametrize(
    ("detection", "due", "refreshed"),
    [
        (Detection("cup", 0.9, ON_IT), {"a", "b"}, ["a"]),
        (Detection("cup", 0.9, ON_IT), {"b"}, []),
        (Detection("cup", 0.9, ON_IT), set(), []),
        (Detection("cup", 0.79, ON_IT), {"a", "b"}, []),
        (Detection("bowl", 0.9, ON_IT), {"a", "b"}, []),
        (Detection("cup", 0.9, (10.0, 10.0, 30.0, 19.0)), {"a", "b"}, []),  # covers less than half of it
        (Detection("cup", math.nan, ON_IT), {"a", "b"}, []),
    ],
)
def test_a_sure_detection_refreshes_the_object_that_it_is_on(
    detection: Detection, due: set[str], refreshed: list[str]
) -> None:
    objects = (an_object("a"), an_object("b", box=(40, 20, 70, 50)))
    view = TrackingView(None, 1, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), None, objects, 0)
    found = prompts_for([detection], view, parse({}), 7, boxes_of(view), due)
    assert [prompt.object_id for prompt in found] == refreshed
    assert all(prompt.action is PromptAction.REFINE for prompt in found)


def test_an_object_that_has_moved_since_is_not_taken_for_another() -> None:
    walker = an_object("a", box=(40, 20, 70, 50))  # there by now
    late = Detection("cup", 0.9, HERE)
    lost = an_object("b", state=ObjectState.LOST)
    assert not prompts(late, objects=(walker, lost), then={"a": HERE, "b": None})
    (request,) = prompts(late, objects=(walker, lost), then={"a": THERE, "b": None})
    assert request.object_id == "b"
    (request,) = prompts(Detection("cup", 0.9, THERE), objects=(walker,), then={"a": HERE})
    assert request.action is PromptAction.ADD, "where it is now it was not then"


@pytest.mark.parametrize("then", [{}, {"a": None}], ids=["not known yet", "out of sight"])
def test_while_nobody_knows_where_one_of_its_class_was_then_a_detection_tells_nothing(then: dict[str, Any]) -> None:
    objects = (an_object("a", box=(40, 20, 70, 50)), an_object("b", state=ObjectState.LOST))
    late = Detection("cup", 0.9, HERE)
    assert not prompts(late, objects=objects, then=then)
    assert not prompts(late, objects=objects[:1], then=then)
    assert prompts(Detection("bowl", 0.9, HERE), objects=objects, then=then), "it is of another class"


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


@pytest.fixture(autouse=True)
def no_vision_msgs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden where it is installed: a test's own subscription would have another type than the node's."""
    for name in ("vision_msgs", "vision_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)


def an_array(*detections: Any, stamp_s: float = 0) -> Any:
    return SimpleNamespace(header=Header(stamp=ns_to_stamp(round(stamp_s * 1e9))), detections=list(detections))


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
    detections = DetectionSubscription(rig.node, rig.node._session, rig.node._current_parameters, Image)
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


def test_the_node_tells_where_objects_were(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(detection_mode="add")
    rig.start()
    rig.node._detections = DetectionSubscription(rig.node, rig.node._session, rig.node._current_parameters, Image)
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    header = Header(frame_id="camera", stamp=ns_to_stamp(1_000_000_000))
    images.publish(array_to_image(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), "rgb8", header))
    rig.spin_until(lambda: rig.node._session.stats().processed == 1, "the image is processed")
    rig.node._detections._on_detections(an_array(a_detection({"cup": 0.9}, 20, 20, 3, 3), stamp_s=1.0))
    rig.spin_until(lambda: bool(rig.tracker.object_ids), "the detection is added")


class Late:
    """A detector before a session of the test's own: the images' time is theirs, the messages' stamps count."""

    def __init__(self, tracker: Any, **values: object) -> None:
        self.rig = SessionRig(tracker)
        node: Any = SimpleNamespace(
            create_subscription=lambda *_: None,
            get_logger=lambda: SimpleNamespace(info=lambda *_: None, debug=lambda *_: None),
        )
        parameters = parse({"detection_mode": "add", **values})
        self.detections = DetectionSubscription(node, self.rig.session, lambda: parameters, object)

    def show(self, stamp_s: float) -> None:
        self.detections.observe(self.rig.show(np.zeros((HEIGHT, WIDTH, 3), np.uint8), stamp_s))

    def detect(self, stamp_s: float, x: float = 20, y: float = 20) -> None:
        self.detections._on_detections(an_array(a_detection({"cup": 0.9}, x, y, 3, 3), stamp_s=stamp_s))

    def prompted(self) -> list[str]:
        self.rig.settle()
        return [call for call in self.rig.tracker.calls if call.startswith("prompt")]


@pytest.fixture
def late(fake_tracker: Any) -> Iterator[Late]:
    late = Late(fake_tracker)
    yield late
    late.rig.tracker.gate.set()
    late.rig.close()


def test_a_detection_is_compared_with_the_image_of_its_time(late: Late) -> None:
    late.rig.prompt(click("mug", x=20, y=20, class_id="cup"))
    late.show(1.0)
    late.rig.tracker._points["mug"] = (60.0, 40.0)  # it moves
    late.show(1.2)
    late.detect(1.05)  # where it was
    assert late.prompted() == ["prompt mug"]
    late.detect(1.25)
    assert late.prompted() == ["prompt mug", "prompt object_1 at 1.25 s"], "there is another one where it was"


def test_an_object_is_refreshed_once_in_so_many_images(fake_tracker: Any) -> None:
    late = Late(fake_tracker, detection_refresh_frames=3)
    late.rig.prompt(click("mug", x=20, y=20, class_id="cup"))
    refined = []
    for count in range(1, 10):
        late.show(count / 10)
        late.detect(count / 10)
        refined.append(len([call for call in late.prompted() + late.rig.tracker.calls if call.startswith("refine")]))
    assert refined == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    late.rig.close()


def test_a_detection_of_a_time_that_was_not_tracked_is_left_out(late: Late) -> None:
    for stamp_s in (1.0, 2.0):
        late.show(stamp_s)
    for stamp_s in (0.5, 1.5, 2.5):
        late.detect(stamp_s)
    assert late.prompted() == [] and not late.detections._waiting


def test_a_detection_waits_for_the_image_that_the_model_is_at_work_on(late: Late) -> None:
    tracker = late.rig.tracker
    late.show(1.0)
    tracker.in_step.clear()
    tracker.gate.clear()
    late.rig.offer_pixels(np.zeros((HEIGHT, WIDTH, 3), np.uint8), stamp_s=2.0)
    assert tracker.in_step.wait(20)
    for stamp_s in (1.5, 2.02, 2.5):  # one belongs to it
        late.detect(stamp_s)
    assert len(late.detections._waiting) == 1
    tracker.gate.set()
    late.detections.observe(late.rig.wait_for(2))
    assert late.prompted() == ["prompt object_1 at 2.02 s"] and not late.detections._waiting


def test_images_out_of_order_do_not_make_it_forget(late: Late) -> None:
    for stamp_s in (1.0, 1.4, 1.3):
        late.show(stamp_s)
    late.detect(1.0)
    assert late.prompted() == ["prompt object_1 at 1 s"]


def test_detections_of_a_bags_last_round_are_forgotten(late: Late) -> None:
    late.show(9.0)
    late.detections.forget()  # it starts again
    late.show(9.2)
    late.detect(9.0)
    assert late.prompted() == []


def test_without_vision_msgs_nothing_is_subscribed() -> None:
    nobody: Any = None
    assert make_detection_subscription(nobody, nobody, nobody) is None


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
    subscription = make_detection_subscription(node, nobody, nobody)
    assert subscription is not None and made == [(object, "detections")]
