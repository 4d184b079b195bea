"""The node over real middleware, in this process: services, topics, rejections. No network; nothing sleeps."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from sam2_ros.msg import Prompt, TrackedObject, TrackedObjectArray
from sam2_ros.node.background import MAX_FILE_ACCESSES
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.srv import AddObjects, Clear, ListObjects, LoadSession, RemoveObjects, Reset, SaveSession

SECOND = 1_000_000_000
DEADLINE_S = 20.0


def an_image(stamp_s: float = 1.0, encoding: str = "rgb8") -> Image:
    """8 x 10 px, black."""
    header = Header(frame_id="camera", stamp=ns_to_stamp(int(stamp_s * SECOND)))
    return array_to_image(np.zeros((8, 10, 3), dtype=np.uint8), encoding, header)


def click(object_id: str = "", x: float = 4.0, y: float = 3.0, **fields: Any) -> Prompt:
    return Prompt(object_id=object_id, points=[Point(x=x, y=y)], point_labels=[1], **fields)


def listed(rig: Any) -> list[tuple[str, int, int]]:
    """(id, label, state) of every object, by the service."""
    response = rig.call(ListObjects, "list_objects")
    assert response.success
    return [(item.object_id, item.label, item.state) for item in response.objects.objects]


def add(rig: Any, *prompts: Prompt) -> AddObjects.Response:
    return rig.call(AddObjects, "add_objects", prompts=list(prompts))


def test_from_prompt_to_masks_with_the_header_of_the_image(ros_rig: Any) -> None:
    objects = ros_rig.collect(TrackedObjectArray, "objects")
    labels = ros_rig.collect(Image, "label_image")
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    response = add(ros_rig, click("mug", class_id="cup"), click(x=8.0))
    assert response.success and response.message == "2 of 2 prompt(s) accepted"
    assert [(r.accepted, r.object_id, r.label) for r in response.results] == [(True, "mug", 1), (True, "object_1", 2)]
    assert listed(ros_rig) == [("mug", 1, TrackedObject.PENDING), ("object_1", 2, TrackedObject.PENDING)]
    image = an_image(stamp_s=12.25)
    images.publish(image)
    ros_rig.spin_until(lambda: bool(objects and labels), "outputs arrive")
    assert objects[0].header == image.header == labels[0].header
    assert (objects[0].frame_index, objects[0].frames_dropped) == (0, 0)
    mug = objects[0].objects[0]
    assert (mug.object_id, mug.class_id, mug.state, mug.area) == ("mug", "cup", TrackedObject.TRACKED, 9)
    assert mug.first_seen == mug.last_seen == image.header.stamp
    assert len(mug.mask.data) == 0  # publish_masks is false
    label_image = np.frombuffer(labels[0].data, dtype=np.uint8).reshape(8, 10)
    assert labels[0].encoding == "mono8"
    assert (label_image[3, 4], label_image[3, 8], label_image[0, 0]) == (1, 2, 0)


def test_waiting_for_the_mask_holds_nobody_else_up(ros_rig: Any) -> None:
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    ros_rig.tracker.gate.clear()
    images.publish(an_image())
    ros_rig.spin_until(ros_rig.tracker.in_step.is_set, "the model is at work")
    waiting = [
        ros_rig.call_async(AddObjects, "add_objects", prompts=[click(name)], wait=True, timeout_s=20.0) for name in "ab"
    ]
    assert listed(ros_rig) == []  # answered although the model is busy and two callers wait
    assert not any(future.done() for future in waiting)
    images.publish(an_image(stamp_s=2.0))
    ros_rig.tracker.gate.set()
    ros_rig.spin_until(lambda: all(future.done() for future in waiting), "the masks come")
    for future, name in zip(waiting, "ab", strict=True):
        response = future.result()
        assert response.success
        (item,) = response.objects.objects
        assert (item.object_id, item.state) == (name, TrackedObject.TRACKED)
        assert (item.mask.width, item.mask.height, bytes(item.mask.data)) == (3, 3, b"\xff" * 9)


def test_waiting_in_vain_leaves_the_object_pending_and_says_why(ros_rig: Any) -> None:
    ros_rig.call(SetBool, "enable", data=False)
    response = ros_rig.call(AddObjects, "add_objects", prompts=[click("mug")], wait=True, timeout_s=0.05)
    assert response.success and "within 0.05 s" in response.message and "call ~/enable" in response.message
    assert [item.state for item in response.objects.objects] == [TrackedObject.PENDING]
    assert listed(ros_rig) == [("mug", 1, TrackedObject.PENDING)]


def test_a_prompt_that_does_not_fit_the_first_image_comes_back_rejected(ros_rig: Any) -> None:
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    future = ros_rig.call_async(AddObjects, "add_objects", prompts=[click("a"), click("b", x=99.0)], wait=True)
    ros_rig.spin_until(lambda: "prompt b" in ros_rig.tracker.calls, "both are queued")
    images.publish(an_image())
    ros_rig.spin_until(future.done, "the answer comes")
    response = future.result()
    assert not response.success and "outside the image" in response.message
    assert [result.accepted for result in response.results] == [True, False]
    assert [item.object_id for item in response.objects.objects] == ["a"]


def test_a_model_that_is_busy_for_too_long(ros_rig: Any) -> None:
    ros_rig.publisher(Image, "image", qos_profile_sensor_data).publish(an_image())
    ros_rig.tracker.gate.clear()
    ros_rig.spin_until(ros_rig.tracker.in_step.is_set, "the model is at work")
    response = ros_rig.call(AddObjects, "add_objects", prompts=[click("late")], wait=True, timeout_s=0.05)
    assert not response.success and "busy for 0.05 s; nothing was changed" in response.message
    ros_rig.tracker.gate.set()
    assert ros_rig.call(Clear, "clear").removed == []  # through the same queue: the prompt was withdrawn


@pytest.mark.parametrize(
    ("kind", "name", "fields"),
    [
        (Clear, "clear", {}),
        (Reset, "reset", {}),
        (RemoveObjects, "remove_objects", {"object_ids": ["mug"]}),
        (SetBool, "enable", {"data": False}),
        (LoadSession, "load_session", {}),
    ],
)
def test_what_frees_the_model_is_carried_out_however_long_it_is_busy(
    make_ros_rig: Any, tmp_path: Path, kind: Any, name: str, fields: dict[str, Any]
) -> None:
    rig = make_ros_rig(service_timeout_s=0.05)
    rig.start()
    if kind is LoadSession:
        fields = {"path": rig.call(SaveSession, "save_session", path=str(tmp_path / "empty.pt")).path}
    assert add(rig, click("mug")).success
    rig.publisher(Image, "image", qos_profile_sensor_data).publish(an_image())
    rig.tracker.gate.clear()
    rig.spin_until(rig.tracker.in_step.is_set, "the model is at work")
    waiting = rig.call_async(kind, name, **fields)
    refused = rig.call(AddObjects, "add_objects", prompts=[click("late")])
    assert "busy for 0.05 s; nothing was changed" in refused.message  # the other one is as late by now
    assert not waiting.done()
    rig.tracker.gate.set()
    rig.spin_until(waiting.done, "the answer comes")
    assert waiting.result().success, waiting.result().message
    assert (rig.tracker.object_ids == ()) is (name != "enable")


def test_what_frees_a_model_that_hangs_stays_queued_and_says_so(
    make_ros_rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_ros.node.background.BEGUN_TIMEOUT_S", 0.05)
    rig = make_ros_rig(service_timeout_s=0.05)
    rig.start()
    assert add(rig, click("mug")).success
    rig.publisher(Image, "image", qos_profile_sensor_data).publish(an_image())
    rig.tracker.gate.clear()
    rig.spin_until(rig.tracker.in_step.is_set, "the model is at work")
    response = rig.call(Clear, "clear")
    assert not response.success and "it will be done as soon as the model is free" in response.message
    rig.tracker.gate.set()
    rig.spin_until(lambda: rig.tracker.object_ids == (), "the objects are removed")


def test_a_command_that_has_begun_and_never_ends_is_answered(
    make_ros_rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam2_ros.node.background.BEGUN_TIMEOUT_S", 0.05)
    rig = make_ros_rig(service_timeout_s=0.05)
    rig.start()
    released = threading.Event()
    monkeypatch.setattr(rig.tracker, "save_state", lambda: released.wait(DEADLINE_S))
    try:
        response = rig.call(SaveSession, "save_session", path=str(tmp_path / "never.pt"))
        assert not response.success and "begun and not finished within 0.05 s" in response.message
    finally:
        released.set()


def test_files_on_a_disk_that_does_not_answer_do_not_pile_up(
    make_ros_rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr("sam2_ros.node.background.FILE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("sam2_ros.node.services.read_session", lambda path: released.wait(DEADLINE_S))
    rig = make_ros_rig()
    rig.start()
    try:
        for _ in range(MAX_FILE_ACCESSES):
            response = rig.call(LoadSession, "load_session", path=str(tmp_path / "a.pt"))
            assert "not done within 0.05 s" in response.message
        response = rig.call(LoadSession, "load_session", path=str(tmp_path / "a.pt"))
        assert f"{MAX_FILE_ACCESSES} files are being read or written: ask again later" in response.message
    finally:
        released.set()


def test_a_command_that_has_begun_and_takes_long_holds_nobody_else_up(make_ros_rig: Any, tmp_path: Path) -> None:
    rig = make_ros_rig(service_timeout_s=0.3)
    rig.start()
    begun, released, save = threading.Event(), threading.Event(), rig.tracker.save_state

    def slow() -> dict[str, Any]:
        begun.set()
        assert released.wait(DEADLINE_S), "the test never let it go on"
        return save()

    rig.tracker.save_state = slow
    saving = rig.call_async(SaveSession, "save_session", path=str(tmp_path / "session"))
    rig.spin_until(begun.is_set, "it begins")
    too_late_s = time.monotonic() + 0.5
    while time.monotonic() < too_late_s:
        assert rig.call(ListObjects, "list_objects").success
    assert not saving.done()
    released.set()
    rig.spin_until(saving.done, "the answer comes")
    assert saving.result().success


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(object_id="new"), "empty prompt"),
        (click("known"), "exists already"),
        (click("new", action=Prompt.REFINE), "no object 'new' to refine"),
        (click("new", action=Prompt.UNDO), "no object 'new' to undo"),
        (Prompt(points=[Point()], point_labels=[]), "1 points and 0 labels"),
        (Prompt(mask=Image(width=1, height=1, step=1, encoding="rgb16")), "must be mono8 or 8UC1, got 'rgb16'"),
        (click("new", x=0.5, y=0.5, normalized=True), "no image has come yet"),
    ],
)
def test_rejected_prompts_say_why_and_change_nothing(ros_rig: Any, prompt: Prompt, reason: str) -> None:
    add(ros_rig, click("known"))
    before = listed(ros_rig)
    response = add(ros_rig, prompt)
    assert not response.success and not response.results[0].accepted
    assert reason in response.results[0].error and reason in response.message
    assert listed(ros_rig) == before
    assert ros_rig.tracker.calls == ["prompt known"]


@pytest.mark.parametrize(
    ("kind", "name", "fields", "reason"),
    [
        (AddObjects, "add_objects", {}, "no prompts: expected at least one"),
        (AddObjects, "add_objects", {"prompts": [Prompt()], "timeout_s": -1.0}, "timeout_s must be 0"),
        (AddObjects, "add_objects", {"prompts": [Prompt()], "timeout_s": float("nan")}, "timeout_s must be 0"),
        (RemoveObjects, "remove_objects", {}, "expected at least one; ~/clear removes all"),
        (RemoveObjects, "remove_objects", {"object_ids": ["known", "x"]}, "'x'; known: known"),
    ],
)
def test_rejected_requests_say_why_and_change_nothing(
    ros_rig: Any, kind: Any, name: str, fields: dict[str, Any], reason: str
) -> None:
    add(ros_rig, click("known"))
    response = ros_rig.call(kind, name, **fields)
    assert not response.success and reason in response.message
    assert [object_id for object_id, _, _ in listed(ros_rig)] == ["known"]


def test_remove_clear_and_reset(ros_rig: Any) -> None:
    add(ros_rig, click("a"), click("b"), click("c"))
    assert ros_rig.call(RemoveObjects, "remove_objects", object_ids=["c", "a"]).removed == ["c", "a"]
    assert listed(ros_rig) == [("b", 2, TrackedObject.PENDING)]
    cleared = ros_rig.call(Clear, "clear")
    assert cleared.success and cleared.removed == ["b"] and listed(ros_rig) == []
    assert add(ros_rig, click("d")).results[0].label == 4
    reset = ros_rig.call(Reset, "reset")
    assert reset.success and reset.removed == ["d"]
    assert add(ros_rig, click("e")).results[0].label == 1


def test_enable_stops_and_resumes_with_the_same_objects(ros_rig: Any) -> None:
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    objects = ros_rig.collect(TrackedObjectArray, "objects")
    add(ros_rig, click("a"))
    assert ros_rig.call(SetBool, "enable", data=False).success
    received = ros_rig.node._session.stats
    images.publish(an_image(stamp_s=1.0))
    ros_rig.spin_until(lambda: received().received == 1, "the image is ignored")
    assert ros_rig.call(SetBool, "enable", data=True).success
    images.publish(an_image(stamp_s=2.0))
    ros_rig.spin_until(lambda: bool(objects), "tracking goes on")
    assert objects[0].header.stamp.sec == 2 and objects[0].frame_index == 0
    assert [item.object_id for item in objects[0].objects] == ["a"]


def test_prompts_by_topic(ros_rig: Any) -> None:
    prompts = ros_rig.publisher(Prompt, "prompt")
    prompts.publish(click("known", action=Prompt.REFINE))  # rejected, into the log
    prompts.publish(Prompt(action=9))  # likewise
    prompts.publish(click("known"))
    ros_rig.spin_until(lambda: ros_rig.tracker.calls == ["prompt known"], "the good one is taken")


def test_clicks_add_or_refine_as_the_parameters_say(ros_rig: Any) -> None:
    clicks = ros_rig.publisher(Point, "click")

    def click_with(mode: str, selected: str, expected_calls: list[str]) -> None:
        done = ros_rig.node.set_parameters(
            [Parameter("click_mode", value=mode), Parameter("selected_object", value=selected)]
        )
        assert all(result.successful for result in done)
        ros_rig.tracker.calls.clear()
        clicks.publish(Point(x=float("nan")))  # rejected, into the log
        clicks.publish(Point(x=4.0, y=3.0))
        ros_rig.spin_until(lambda: ros_rig.tracker.calls == expected_calls, f"click with {mode} on {selected!r}")

    click_with("add", "", ["prompt object_1"])
    click_with("auto", "mug", ["prompt mug"])
    click_with("auto", "mug", ["refine mug"])
    click_with("refine", "object_1", ["refine object_1"])
    assert [object_id for object_id, _, _ in listed(ros_rig)] == ["object_1", "mug"]


def test_overlay_and_masks_on_demand(ros_rig: Any) -> None:
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    overlays = ros_rig.collect(Image, "overlay")
    objects = ros_rig.collect(TrackedObjectArray, "objects")
    assert ros_rig.node.set_parameters([Parameter("publish_masks", value=True)])[0].successful
    add(ros_rig, click("a"))
    image = an_image(encoding="bgr8")
    images.publish(image)
    ros_rig.spin_until(lambda: bool(overlays and objects), "overlay and objects arrive")
    assert (overlays[0].encoding, overlays[0].width, overlays[0].height) == ("rgb8", 10, 8)
    assert overlays[0].header == image.header
    assert bytes(objects[0].objects[0].mask.data) == b"\xff" * 9


def test_an_image_of_unknown_encoding_is_rejected_and_the_next_one_tracked(ros_rig: Any) -> None:
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    objects = ros_rig.collect(TrackedObjectArray, "objects")
    images.publish(an_image(encoding="nv24"))
    ros_rig.spin_until(lambda: ros_rig.node._session.stats().failed == 1, "the image is rejected")
    assert "'nv24' is not supported" in ros_rig.node._session.stats().last_error
    images.publish(an_image(stamp_s=2.0))
    ros_rig.spin_until(lambda: bool(objects), "the next one is tracked")


def test_diagnostics_tell_rates_and_failures(ros_rig: Any) -> None:
    received: list[DiagnosticArray] = []
    ros_rig.peer.create_subscription(DiagnosticArray, "/diagnostics", received.append, 10)
    images = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(an_image(encoding="nv24"))

    def warned() -> bool:
        return any(message.status[0].level == DiagnosticStatus.WARN for message in received)

    ros_rig.spin_until(warned, "a warning about the image")
    status = next(message.status[0] for message in received if message.status[0].level == DiagnosticStatus.WARN)
    values = {pair.key: pair.value for pair in status.values}
    assert "nv24" in status.message
    assert (values["state"], values["images failed"], values["latency p95 [ms]"]) == ("active", "1", "")
