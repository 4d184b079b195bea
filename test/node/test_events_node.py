"""Events, corrections, sessions and crowds of callers over real middleware, in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from sam2_ros.msg import Prompt, TrackedObject, TrackedObjectArray, TrackEvent
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.node.publishers import EVENTS_QOS
from sam2_ros.srv import (
    AddObjects,
    Clear,
    ListObjects,
    LoadSession,
    RefineObject,
    RemoveObjects,
    Reset,
    SaveSession,
)
from sam2_ros.tracking.types import ObjectState


def header(stamp_s: float) -> Header:
    return Header(frame_id="camera", stamp=ns_to_stamp(round(stamp_s * 1_000_000_000)))


def an_image(stamp_s: float) -> Image:
    return array_to_image(np.zeros((8, 10, 3), dtype=np.uint8), "rgb8", header(stamp_s))


def click(object_id: str = "", x: float = 4.0, **fields: Any) -> Prompt:
    return Prompt(object_id=object_id, points=[Point(x=x, y=3.0)], point_labels=[1], **fields)


class Camera:
    """Shows the node one image after another."""

    def __init__(self, rig: Any) -> None:
        self._rig = rig
        self._publisher = rig.publisher(Image, "image", qos_profile_sensor_data)
        self.objects: list[TrackedObjectArray] = rig.collect(TrackedObjectArray, "objects")

    def show(self, stamp_s: float) -> TrackedObjectArray:
        count = len(self.objects)
        self._publisher.publish(an_image(stamp_s))
        self._rig.spin_until(lambda: len(self.objects) > count, "the image is processed")
        return self.objects[-1]


def types(events: list[TrackEvent]) -> list[int]:
    return [event.type for event in events]


def test_the_life_of_an_object_as_events(ros_rig: Any) -> None:
    events: list[TrackEvent] = ros_rig.collect(TrackEvent, "events", EVENTS_QOS)
    camera = Camera(ros_rig)
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug"), click("bad", x=-5.0), click("")])
    camera.show(1.0)
    ros_rig.tracker.hidden["mug"] = ObjectState.OCCLUDED
    camera.show(2.0)
    ros_rig.tracker.hidden.clear()
    camera.show(3.0)
    ros_rig.call(RefineObject, "refine_object", prompt=click("mug", action=Prompt.REFINE))
    ros_rig.call(RemoveObjects, "remove_objects", object_ids=["mug"])
    ros_rig.call(Clear, "clear")
    expected = [
        *(TrackEvent.ADDED, TrackEvent.ADDED, TrackEvent.ADDED, TrackEvent.PROMPT_REJECTED),
        *(TrackEvent.ENTERED, TrackEvent.ENTERED, TrackEvent.OCCLUDED, TrackEvent.RECOVERED),
        *(TrackEvent.REFINED, TrackEvent.REMOVED, TrackEvent.CLEARED),
    ]
    ros_rig.spin_until(lambda: len(events) >= len(expected), f"all events come, not only {events}")
    assert types(events) == expected
    assert [(e.object_id, e.label) for e in events[:4]] == [("mug", 1), ("bad", 2), ("object_1", 3), ("bad", 2)]
    assert events[4].header == header(1.0) and events[6].header == header(2.0)
    assert events[0].header.stamp.sec == 0


def test_who_comes_late_hears_of_the_last_events_until_a_reset(ros_rig: Any) -> None:
    for number in range(60):
        assert ros_rig.call(AddObjects, "add_objects", prompts=[click(f"a{number}")]).success
    late: list[TrackEvent] = ros_rig.collect(TrackEvent, "events", EVENTS_QOS)
    ros_rig.spin_until(lambda: len(late) >= 50, "the latched events come")
    assert [event.object_id for event in late] == [f"a{number}" for number in range(10, 60)]
    assert ros_rig.call(Reset, "reset").success
    ros_rig.spin_until(lambda: late[-1].type == TrackEvent.RESET, "who was there hears of the reset")
    ros_rig.call(AddObjects, "add_objects", prompts=[click("new")])
    ros_rig.spin_until(lambda: late[-1].object_id == "new", "and of what comes after it")
    later: list[TrackEvent] = ros_rig.collect(TrackEvent, "events", EVENTS_QOS)
    ros_rig.spin_until(lambda: bool(later), "the latched event comes")
    assert [event.object_id for event in later] == ["new"]


def test_prompts_that_do_not_get_as_far_as_the_session_are_events_too(ros_rig: Any) -> None:
    events: list[TrackEvent] = ros_rig.collect(TrackEvent, "events", EVENTS_QOS)
    ros_rig.publisher(Prompt, "prompt").publish(Prompt(object_id="x", action=9))
    ros_rig.publisher(Point, "click").publish(Point(x=float("nan")))
    ros_rig.call(AddObjects, "add_objects", prompts=[Prompt(object_id="y", points=[Point()])])
    ros_rig.spin_until(lambda: len(events) >= 3, "all are told")
    assert types(events) == [TrackEvent.PROMPT_REJECTED] * 3
    assert sorted(event.object_id for event in events) == ["", "x", "y"]


def test_refine_object(ros_rig: Any) -> None:
    camera = Camera(ros_rig)
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    camera.show(1.0)
    for action, call in (
        (Prompt.REFINE, "refine mug"),
        (Prompt.REPLACE, "replace mug at 1 s"),
        (Prompt.UNDO, "undo mug"),
    ):
        stamped = header(1.0) if action == Prompt.REPLACE else Header()
        prompt = click("mug", x=7.0, action=action, header=stamped)
        response = ros_rig.call(RefineObject, "refine_object", prompt=prompt)
        assert response.success, response.message
        assert (response.result.object_id, response.result.label) == ("mug", 1)
        assert response.objects.objects == [] and ros_rig.tracker.calls[-1] == call
    waiting = ros_rig.call_async(
        RefineObject, "refine_object", prompt=click("mug", x=2.0, action=Prompt.REFINE), wait=True, timeout_s=20.0
    )
    ros_rig.spin_until(lambda: ros_rig.tracker.calls[-1] == "refine mug", "the correction is taken")
    camera.show(2.0)
    ros_rig.spin_until(waiting.done, "the mask comes")
    (item,) = waiting.result().objects.objects
    assert (item.object_id, item.roi.x_offset, len(item.mask.data)) == ("mug", 1, 9)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (click("mug"), "expected action REFINE, REPLACE or UNDO, got ADD"),
        (click("tin", action=Prompt.REFINE), "no object 'tin' to refine; known: mug"),
        (Prompt(object_id="mug", action=Prompt.REFINE), "empty prompt"),
        (Prompt(object_id="mug", action=77), "unknown action 77"),
    ],
)
def test_rejected_corrections(ros_rig: Any, prompt: Prompt, reason: str) -> None:
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    response = ros_rig.call(RefineObject, "refine_object", prompt=prompt)
    assert not response.success and not response.result.accepted
    assert reason in response.result.error and reason in response.message
    assert ros_rig.tracker.calls == ["prompt mug"]


def test_while_it_is_brought_up_to_now_the_caller_is_told_by_how_much(ros_rig: Any) -> None:
    camera = Camera(ros_rig)
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    ros_rig.tracker.behind = {"mug": 7}
    camera.show(1.0)
    response = ros_rig.call(
        RefineObject, "refine_object", prompt=click("mug", action=Prompt.REFINE), wait=True, timeout_s=0.05
    )
    assert response.success and "images behind: mug by 7" in response.message


def test_out_of_sight_an_object_has_no_mask_and_no_box(ros_rig: Any) -> None:
    assert ros_rig.node.set_parameters([Parameter("publish_masks", value=True)])[0].successful
    labels: list[Image] = ros_rig.collect(Image, "label_image")
    camera = Camera(ros_rig)
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    assert len(camera.show(1.0).objects[0].mask.data) == 9
    for stamp_s, state in ((2.0, ObjectState.OCCLUDED), (3.0, ObjectState.LOST)):
        ros_rig.tracker.hidden["mug"] = state
        (item,) = camera.show(stamp_s).objects
        assert (item.state, item.area, item.roi.width, len(item.mask.data)) == (int(state), 0, 0, 0)
        assert np.isnan(item.centroid.x) and item.last_seen == header(1.0).stamp
    ros_rig.spin_until(lambda: len(labels) >= 3, "label images come")
    assert [any(label.data) for label in labels] == [True, False, False]


def test_save_and_load_as_services(make_ros_rig: Callable[..., Any], tmp_path: Path) -> None:
    rig = make_ros_rig()
    rig.start()
    events: list[TrackEvent] = rig.collect(TrackEvent, "events", EVENTS_QOS)
    path = str(tmp_path / "s.pt")
    rig.call(AddObjects, "add_objects", prompts=[click("mug", class_id="cup"), click("")])
    saved = rig.call(SaveSession, "save_session", path=path)
    assert saved.success and (saved.path, saved.object_count) == (path, 2), saved.message
    again = rig.call(SaveSession, "save_session", path=path)
    assert not again.success and "set overwrite" in again.message and again.path == ""
    rig.call(Clear, "clear")
    loaded = rig.call(LoadSession, "load_session", path=path)
    assert loaded.success, loaded.message
    assert [(o.object_id, o.label, o.class_id, o.state) for o in loaded.objects.objects] == [
        ("mug", 1, "cup", TrackedObject.PENDING),
        ("object_1", 2, "", TrackedObject.PENDING),
    ]
    for bad, reason in (("", "no path"), (str(tmp_path / "none.pt"), "could not be read"), (__file__, "not a session")):
        rejected = rig.call(LoadSession, "load_session", path=bad)
        assert not rejected.success and reason in rejected.message
    assert len(rig.call(ListObjects, "list_objects").objects.objects) == 2
    rig.spin_until(lambda: len(events) >= 5, "events come")
    assert types(events)[2:] == [TrackEvent.SESSION_SAVED, TrackEvent.CLEARED, TrackEvent.SESSION_LOADED]
    assert path in events[2].message


def test_session_dir_confines_both_services(make_ros_rig: Callable[..., Any], tmp_path: Path) -> None:
    kept_in = tmp_path / "sessions"
    kept_in.mkdir()
    (kept_in / "out").symlink_to(tmp_path)
    rig = make_ros_rig(session_dir=str(kept_in))
    rig.start()
    rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    saved = rig.call(SaveSession, "save_session", path="s.pt")
    assert saved.success and saved.path == str(kept_in / "s.pt"), saved.message
    (tmp_path / "outside.pt").write_bytes((kept_in / "s.pt").read_bytes())
    for path in (str(tmp_path / "outside.pt"), "../outside.pt", "out/outside.pt"):
        for kind, name, fields in (
            (SaveSession, "save_session", {"overwrite": True}),
            (LoadSession, "load_session", {}),
        ):
            rejected = rig.call(kind, name, path=path, **fields)
            assert not rejected.success and "expected a file in session_dir" in rejected.message
    assert rig.call(LoadSession, "load_session", path="s.pt").success


def test_out_of_memory_is_an_event_and_in_the_diagnostics(ros_rig: Any) -> None:
    events: list[TrackEvent] = ros_rig.collect(TrackEvent, "events", EVENTS_QOS)
    statuses: list[DiagnosticArray] = []
    ros_rig.peer.create_subscription(DiagnosticArray, "/diagnostics", statuses.append, 10)
    camera = Camera(ros_rig)
    ros_rig.call(AddObjects, "add_objects", prompts=[click("old"), click("new")])
    ros_rig.tracker.fail_next = [MemoryError(), MemoryError()]  # also once unused memory has been freed
    ros_rig.publisher(Image, "image", qos_profile_sensor_data).publish(an_image(1.0))
    ros_rig.spin_until(lambda: len(events) == 3, "the event comes")
    assert (events[2].type, events[2].object_id, events[2].label) == (TrackEvent.REMOVED, "new", 2)
    assert [item.object_id for item in camera.show(2.0).objects] == ["old"]

    def warned() -> bool:
        return any(message.status[0].message == events[2].message for message in statuses)

    ros_rig.spin_until(warned, "the diagnostics say so too")


def test_a_camera_that_dies_and_comes_back_with_other_images(ros_rig: Any) -> None:
    objects: list[TrackedObjectArray] = ros_rig.collect(TrackedObjectArray, "objects")
    ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")])
    for number, (height, width, encoding) in enumerate([(8, 10, "rgb8"), (16, 20, "mono8"), (12, 10, "bgra8")], 1):
        channels = {"rgb8": (3,), "mono8": (), "bgra8": (4,)}[encoding]
        camera = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
        pixels = np.zeros((height, width, *channels), dtype=np.uint8)
        camera.publish(array_to_image(pixels, encoding, header(float(number))))
        ros_rig.spin_until(lambda count=number: len(objects) == count, "the image is processed")
        ros_rig.peer.destroy_publisher(camera)
        ros_rig.spin_until(lambda: ros_rig.node.count_publishers("image") == 0, "the camera is gone")
    assert [[(o.object_id, o.state) for o in m.objects] for m in objects] == [[("mug", TrackedObject.TRACKED)]] * 3


def test_fifty_calls_at_once_are_all_answered(ros_rig: Any) -> None:
    camera = Camera(ros_rig)
    add = functools.partial(ros_rig.call_async, AddObjects, "add_objects", wait=True, timeout_s=60.0)
    adding = [add(prompts=[click(f"a{n}")]) for n in range(50)]
    listing = [ros_rig.call_async(ListObjects, "list_objects") for _ in range(50)]
    pausing = [ros_rig.call_async(SetBool, "enable", data=True) for _ in range(50)]
    ros_rig.spin_until(lambda: all(f.done() for f in (*listing, *pausing)), "those who need no image are answered")
    ros_rig.spin_until(lambda: len(ros_rig.tracker.calls) == 50, "all prompts are taken")
    camera.show(1.0)
    ros_rig.spin_until(lambda: all(future.done() for future in adding), "all masks come")
    assert all(future.result().success for future in (*adding, *listing, *pausing))
    labels = sorted(future.result().results[0].label for future in adding)
    assert labels == list(range(1, 51))
    assert {item.state for future in adding for item in future.result().objects.objects} == {TrackedObject.TRACKED}


def test_five_hundred_calls_at_once_are_all_answered(ros_rig: Any) -> None:
    listing = [ros_rig.call_async(ListObjects, "list_objects") for _ in range(500)]
    ros_rig.spin_until(lambda: all(future.done() for future in listing), "all are answered")
    assert all(future.result().success for future in listing)


def test_a_bag_that_is_faster_than_the_model_is_processed_image_by_image(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(process_every_frame=True, image_reliability="reliable")
    rig.start()
    images = rig.publisher(Image, "image", 50)
    rig.tracker.gate.clear()
    for number in range(40):
        images.publish(an_image(1.0 + number / 30))
    rig.spin_until(lambda: rig.node._session.stats().received == 40, "all images are received")
    rig.tracker.gate.set()
    rig.spin_until(lambda: len(rig.tracker.stamps_s) == 42, "all are processed, and two of the warm-up")
    assert rig.tracker.stamps_s[2:] == pytest.approx([1.0 + number / 30 for number in range(40)], abs=1e-6)
    assert rig.node._session.stats().dropped == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rate_hz", float("nan")),
        ("max_rate_hz", -1.0),
        ("max_image_age_s", "old"),
        ("prompt_buffer_s", 3.0),
        ("process_every_frame", True),
        ("click_mode", "remove"),
        ("service_timeout_s", float("inf")),
    ],
)
def test_parameters_set_to_nonsense_are_rejected_and_the_node_goes_on(ros_rig: Any, name: str, value: Any) -> None:
    before = ros_rig.node.get_parameter(name).value
    result = ros_rig.node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful and result.reason
    assert ros_rig.node.get_parameter(name).value == before
    assert Camera(ros_rig).show(1.0).frame_index == 0
