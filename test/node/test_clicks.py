"""Clicks belong to the image that was shown: its stamp for the prompt, and TF at its time; tf2 by a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from camera_rig import SECOND, CalibratedCamera
from geometry_msgs.msg import Point, PointStamped, Transform, TransformStamped
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.msg import Prompt, TrackEvent
from sam2_ros.node import clicks


@pytest.fixture
def tf2_ros(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TF in which the camera is at x = its time in seconds, known from ``since_ns`` to ``until_ns``."""
    module: Any = ModuleType("tf2_ros")
    module.since_ns, module.until_ns, module.asked, module.listeners = 0, 99 * SECOND, [], []
    module.TransformException = type("TransformException", (Exception,), {})

    class Buffer:
        def clear(self) -> None:
            pass

        def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
            module.asked.append(time.nanoseconds)
            stamp_ns = time.nanoseconds or module.until_ns
            if not (module.since_ns <= stamp_ns <= module.until_ns) or (target, source) != ("camera", "map"):
                raise module.TransformException("Lookup would require extrapolation")
            found = Transform()
            found.translation.x = -stamp_ns / 1e9
            return TransformStamped(transform=found)

    module.Buffer = Buffer
    module.TransformListener = lambda buffer, node: module.listeners.append(node)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module


class Desk(CalibratedCamera):
    """Somebody clicks in what the camera shows."""

    def click_in_map(self, x: float) -> None:
        clicked = PointStamped(header=Header(frame_id="map"), point=Point(x=x, y=0.0, z=2.0))
        self.rig.node._spatial_inputs._clicked.put(clicked)

    def prompts(self) -> list[str]:
        return [call for call in self.rig.tracker.calls if call.startswith("prompt")]


@pytest.fixture
def desk(make_ros_rig: Callable[..., Any]) -> Desk:
    return Desk(make_ros_rig())


def test_a_point_is_projected_at_the_time_of_the_image_that_was_shown(desk: Desk, tf2_ros: Any) -> None:
    desk.show(5.0)
    desk.click_in_map(5.1)  # 0.1 m right of where the camera was: 2 px right of the middle
    desk.rig.spin_until(lambda: bool(desk.prompts()), "the click is carried out")
    assert desk.prompts() == ["prompt object_1 at 5 s"] and tf2_ros.asked == [5 * SECOND]
    desk.show(5.1)
    (item,) = desk.rig.node._session.view.objects
    assert item.tracked.centroid_xy == pytest.approx((17.5, 11.5), abs=0.51)


def test_a_click_waits_for_transforms_that_are_a_little_late(
    desk: Desk, tf2_ros: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clicks, "WAIT_FOR_TF_S", 60.0)
    tf2_ros.until_ns = 0
    desk.show(5.0)
    desk.click_in_map(5.1)
    desk.rig.spin_until(lambda: len(tf2_ros.asked) > 2, "it asks again")
    assert not desk.prompts()
    desk.show(5.1)
    tf2_ros.until_ns = 9 * SECOND
    desk.rig.spin_until(lambda: bool(desk.prompts()), "the click is carried out")
    assert desk.prompts() == ["prompt object_1 at 5 s"], "for the image that was shown then"
    assert desk.rig.node._spatial_inputs._clicked._timer is None


def test_the_first_click_takes_the_first_transforms_where_nobody_listened_before(
    desk: Desk, tf2_ros: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clicks, "WAIT_FOR_TF_S", 0.3)
    tf2_ros.since_ns = tf2_ros.until_ns = 6 * SECOND
    desk.show(5.0)
    desk.click_in_map(6.0)
    desk.rig.spin_until(lambda: bool(desk.prompts()), "the click is carried out")
    assert desk.prompts() == ["prompt object_1 at 5 s"] and tf2_ros.asked[-1] == 0


@pytest.mark.parametrize("topic", ["/clicked_point", "/rviz/point"], ids=["its own name", "remapped"])
def test_tf_is_listened_to_as_soon_as_somebody_may_click(
    make_ros_rig: Callable[..., Any], tf2_ros: Any, topic: str
) -> None:
    desk = Desk(make_ros_rig(cli_args=["--ros-args", "-r", f"clicked_point:={topic}"]))
    desk.rig.node._beat()
    assert not tf2_ros.listeners
    desk.rig.publisher(PointStamped, topic)
    desk.rig.spin_until(lambda: tf2_ros.listeners == [desk.rig.node], "it listens")
    desk.rig.node._beat()
    assert len(tf2_ros.listeners) == 1


def test_a_click_without_a_way_between_the_frames_is_rejected_in_time(
    desk: Desk, tf2_ros: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clicks, "WAIT_FOR_TF_S", 0.2)
    tf2_ros.until_ns = -1
    desk.show(5.0)
    desk.click_in_map(5.0)
    desk.rig.spin_until(lambda: desk.rig.node._spatial_inputs._clicked._timer is None, "it gives up")
    assert "clicked_point rejected: the point is in frame 'map' and the camera in 'camera'" in capfd.readouterr().err
    assert not desk.prompts()


@pytest.mark.parametrize(
    ("topic", "expected"), [("/sam2_node/overlay_mouse_left", "prompt object_1 at 5 s"), ("/click", "prompt object_1")]
)
def test_a_click_on_the_overlay_is_for_the_image_that_it_showed(
    make_ros_rig: Callable[..., Any], topic: str, expected: str
) -> None:
    desk = Desk(make_ros_rig(cli_args=["--ros-args", "-r", f"click:={topic}"]))
    overlays = desk.rig.collect(Image, "overlay")
    publisher = desk.rig.publisher(Point, topic)
    desk.rig.spin_until(lambda: desk.rig.node._outputs._overlay.get_subscription_count() > 0, "somebody looks")
    desk.show(5.0)
    desk.rig.spin_until(lambda: bool(overlays), "the overlay is shown")
    publisher.publish(Point(x=4.0, y=3.0))
    desk.rig.spin_until(lambda: bool(desk.prompts()), "the click arrives")
    assert desk.prompts() == [expected]


@pytest.mark.parametrize("topic", ["click", "clicked_point"])
def test_integers_in_a_click_are_rejected_with_that_hint(
    desk: Desk, capfd: pytest.CaptureFixture[str], topic: str
) -> None:
    desk.show(5.0)
    point = Point(x=16e-323, y=12e-323, z=1e-323)  # what Point(x=32, y=24, z=2) arrives as
    is_click = topic == "click"
    message: Any = point if is_click else PointStamped(header=Header(frame_id="camera"), point=point)
    desk.rig.publisher(Point if is_click else PointStamped, topic).publish(message)
    said: list[str] = []

    def is_said() -> bool:
        said.append(capfd.readouterr().err)
        return "give floats: Point(x=320.0), not Point(x=320)" in "".join(said)

    desk.rig.spin_until(is_said, "it is rejected")
    assert not desk.prompts()


def test_a_flood_of_clicks_that_wait_for_transforms_is_bounded_and_said_once(
    desk: Desk, tf2_ros: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clicks, "WAIT_FOR_TF_S", 600.0)
    tf2_ros.until_ns = 0
    desk.show(5.0)
    for count in range(100):
        desk.click_in_map(5.0 + count / 1000)
    assert len(desk.rig.node._spatial_inputs._clicked._waiting) == clicks.MAX_WAITING
    assert capfd.readouterr().err.count("clicks wait for transforms already") == 1
    tf2_ros.until_ns = 9 * SECOND
    desk.rig.spin_until(lambda: len(desk.prompts()) == clicks.MAX_WAITING, "those that waited are carried out")


def test_a_node_that_repeats_its_mistake_does_not_fill_the_log(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    prompts = desk.rig.publisher(Prompt, "prompt")
    events = desk.rig.collect(TrackEvent, "events", 1000)
    for count in range(20):
        prompts.publish(Prompt(action=9))  # cannot be read
        prompts.publish(Prompt(object_id="nobody", action=1, points=[Point(x=float(count))], point_labels=[1]))
        wanted = 2 * count + 2
        desk.rig.spin_until(lambda wanted=wanted: len(events) >= wanted, "both are rejected, with an event each")
    said = capfd.readouterr().err
    assert said.count("unknown action 9") == 1 and said.count("no object 'nobody' to refine") == 1
