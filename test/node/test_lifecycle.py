"""Transitions of the node, and what its services say in each state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from sam2_ros.msg import Prompt, TrackedObjectArray
from sam2_ros.node.conversions import array_to_image
from sam2_ros.srv import AddObjects, ListObjects, SegmentImage

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


def state_of(rig: Any) -> str:
    return str(rig.node._state_machine.current_state[1])


def set_parameter(rig: Any, name: str, value: Any) -> Any:
    return rig.node.set_parameters([Parameter(name, value=value)])[0]


def test_the_whole_round(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(autostart=False)
    rig.start()
    assert state_of(rig) == "unconfigured"
    for _ in range(2):  # everything is made anew the second time
        assert rig.node.trigger_configure() == OK and state_of(rig) == "inactive"
        assert rig.node.trigger_activate() == OK and state_of(rig) == "active"
        assert rig.node.trigger_deactivate() == OK
        assert rig.node.trigger_activate() == OK
        assert rig.node.trigger_deactivate() == OK
        assert rig.node.trigger_cleanup() == OK and state_of(rig) == "unconfigured"
    assert rig.node.trigger_shutdown() == OK and state_of(rig) == "finalized"


def test_configuring_warms_up_and_leaves_no_trace(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    rig.node.autostart()
    prompt, *steps, reset = rig.tracker.calls
    assert (prompt, reset) == ("prompt warm_up", "reset")
    assert len(steps) == 2 and steps[0] == steps[1] and steps[0].startswith("step "), steps  # both of the same image


def test_a_bad_checkpoint_leaves_the_node_unconfigured_with_the_reason_until_it_is_mended(
    make_ros_rig: Callable[..., Any],
) -> None:
    rig = make_ros_rig(checkpoint="missing.pt")
    rig.factory_error = FileNotFoundError("no checkpoint missing.pt")
    rig.start()
    assert state_of(rig) == "unconfigured"
    assert rig.node.trigger_configure() == FAILURE and state_of(rig) == "unconfigured"
    response = rig.call(ListObjects, "list_objects")
    assert not response.success
    assert "not configured: could not load the model of missing.pt" in response.message
    assert "FileNotFoundError: no checkpoint missing.pt" in response.message
    rig.factory_error = None
    assert set_parameter(rig, "checkpoint", "").successful
    rig.start()
    assert state_of(rig) == "active"
    assert rig.call(ListObjects, "list_objects").success


def test_a_bad_parameter_fails_the_configuration(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(checkpoint="w.pt", weights="embedded")
    assert "one of" in set_parameter(rig, "model", "nan0").reason
    assert "use one of them" in set_parameter(rig, "weights", "random").reason


def test_only_live_parameters_change_while_configured(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    assert set_parameter(rig, "num_threads", 2).successful
    rig.start()
    rejected = set_parameter(rig, "num_threads", 1)
    assert not rejected.successful and "num_threads: takes effect when the node is configured" in rejected.reason
    assert rig.node.get_parameter("num_threads").value == 2
    assert set_parameter(rig, "num_threads", 2).successful  # what it is already: as when a whole file is loaded
    assert set_parameter(rig, "publish_masks", True).successful
    assert not set_parameter(rig, "click_mode", "remove").successful


def test_objects_survive_deactivation(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    rig.start()
    prompt = Prompt(object_id="mug", box_xyxy=[1.0, 2.0, 5.0, 6.0])
    assert rig.call(AddObjects, "add_objects", prompts=[prompt]).success
    assert rig.node.trigger_deactivate() == OK
    assert rig.peer.count_subscribers("/image") == 0
    assert rig.node.trigger_activate() == OK
    assert [item.object_id for item in rig.call(ListObjects, "list_objects").objects.objects] == ["mug"]


def test_a_caller_who_waits_is_answered_when_the_node_is_cleaned_up(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    rig.start()
    prompt = Prompt(object_id="mug", box_xyxy=[1.0, 2.0, 5.0, 6.0])
    future = rig.call_async(AddObjects, "add_objects", prompts=[prompt], wait=True, timeout_s=20.0)
    rig.spin_until(lambda: rig.tracker.calls == ["prompt mug"], "the prompt is taken")
    assert rig.node.trigger_deactivate() == OK and rig.node.trigger_cleanup() == OK
    rig.spin_until(future.done, "the caller is answered")
    assert not future.result().success and "stopped" in future.result().message
    assert "not configured: ros2 lifecycle set /sam2_node configure" in rig.call(ListObjects, "list_objects").message


def test_an_exception_in_a_transition_is_logged_and_the_node_cleaned_up(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam2_ros.node import sam2_node

    rig = make_ros_rig(autostart=False)
    assert rig.node.trigger_configure() == OK
    logged: list[str] = []
    monkeypatch.setattr(type(rig.node.get_logger()), "error", lambda self, text, **_: logged.append(text))

    def broken(*_: Any) -> None:
        raise RuntimeError("no subscription today")

    monkeypatch.setattr(sam2_node, "Subscriptions", broken)
    assert rig.node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert state_of(rig) == "unconfigured"
    assert any("on_activate failed" in text and "no subscription today" in text for text in logged)
    statuses: list[Any] = []
    rig.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: statuses.extend(message.status), 10)
    rig.spin_until(lambda: bool(statuses), "diagnostics arrive")
    assert statuses[0].level == DiagnosticStatus.ERROR
    assert "on_activate failed: RuntimeError: no subscription today" in statuses[0].message
    assert "no subscription today" in rig.call(ListObjects, "list_objects").message


@pytest.mark.parametrize(
    "transition",
    [
        Transition(id=Transition.TRANSITION_CONFIGURE),
        Transition(id=Transition.TRANSITION_ACTIVATE),
        Transition(id=99),
        Transition(label="configure"),
        Transition(label="nonsense"),
    ],
    ids=["configured already", "active already", "no such number", "label", "no such label"],
)
def test_an_impossible_transition_is_rejected_and_tracking_goes_on(
    make_ros_rig: Callable[..., Any], transition: Transition
) -> None:
    rig = make_ros_rig()
    rig.start()
    prompt = Prompt(object_id="mug", box_xyxy=[1.0, 2.0, 5.0, 6.0])
    assert rig.call(AddObjects, "add_objects", prompts=[prompt]).success
    assert not rig.call(ChangeState, "change_state", transition=transition).success
    assert state_of(rig) == "active"
    assert [item.object_id for item in rig.call(ListObjects, "list_objects").objects.objects] == ["mug"]
    assert rig.call(ChangeState, "change_state", transition=Transition(label="deactivate")).success
    assert state_of(rig) == "inactive"


def test_images_that_wait_are_left_out_by_deactivation_and_nothing_is_said_meanwhile(
    make_ros_rig: Callable[..., Any],
) -> None:
    rig = make_ros_rig(process_every_frame=True)
    rig.start()
    objects = rig.collect(TrackedObjectArray, "objects")
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    rig.tracker.gate.clear()
    for value in (1, 2, 3):
        images.publish(an_image(value))
    rig.spin_until(lambda: rig.node._session.stats().received == 3 and rig.tracker.in_step.is_set(), "they are taken")
    assert rig.node.trigger_deactivate() == OK
    rig.tracker.gate.set()
    assert rig.call(SetBool, "enable", data=True).success  # the model is done with the image
    rig.spin_until(lambda: not rig.node._session.waiting_ns, "its result is out of the way")
    assert rig.node.trigger_activate() == OK
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(an_image(4))
    rig.spin_until(lambda: bool(objects), "the new image's result arrives")
    assert [message.header.frame_id for message in objects] == ["4"]
    assert [call for call in rig.tracker.calls if call.startswith("step")] == ["step 1", "step 4"]


def an_image(value: int, stamp_s: int = 0) -> Image:
    header = Header(frame_id=str(value), stamp=Time(sec=stamp_s))
    return array_to_image(np.full((8, 10, 3), value, np.uint8), "rgb8", header)


def test_transforms_are_forgotten_when_time_goes_back(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_ros_rig()
    rig.start()
    forgotten = threading.Event()
    monkeypatch.setattr(rig.node._transforms, "forget", forgotten.set)
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    for count, stamp_s in enumerate((10, 11), 1):
        images.publish(an_image(1, stamp_s))
        rig.spin_until(lambda count=count: rig.node._session.stats().processed == count, "the image is processed")
    assert not forgotten.is_set()

    def show_the_past() -> bool:
        images.publish(an_image(1, 2))
        return forgotten.is_set()

    rig.spin_until(show_the_past, "the jump is believed, after a second")


def test_a_signal_ends_the_wait_for_a_model_that_does_not_come(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    loading, loaded = threading.Event(), threading.Event()

    def load(parameters: Any) -> Any:
        loading.set()
        assert loaded.wait(20), "the test never let it go on"
        return rig.tracker

    rig.node._model._make = load
    ending = threading.Thread(target=lambda: (loading.wait(20), rig.context.shutdown()))
    ending.start()
    try:
        with pytest.raises(rclpy_implementation.RCLError, match="context is invalid"):  # as main expects it
            rig.node.autostart()
    finally:
        loaded.set()
        ending.join()


def test_the_cores_log_goes_to_the_nodes_logger(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_ros_rig()
    logged: list[str] = []
    monkeypatch.setattr(type(rig.node.get_logger()), "warning", lambda self, text, **_: logged.append(text))
    logging.getLogger("sam2_ros.tracking.somewhere").warning("%d frames", 3)
    assert logged == ["3 frames"]


@pytest.mark.parametrize("is_active", [False, True])
def test_who_waits_for_an_image_that_cannot_come_hears_why(make_ros_rig: Callable[..., Any], is_active: bool) -> None:
    rig = make_ros_rig(autostart=False)
    assert rig.node.trigger_configure() == OK
    if is_active:
        assert rig.node.trigger_activate() == OK
        assert rig.call(SetBool, "enable", data=False).success
    why = "tracking is disabled: call ~/enable" if is_active else "is inactive: ros2 lifecycle set /sam2_node activate"
    prompt = Prompt(object_id="mug", box_xyxy=[1.0, 2.0, 5.0, 6.0])
    added = rig.call(AddObjects, "add_objects", prompts=[prompt], wait=True, timeout_s=0.01)
    assert added.success and why in added.message
    segmented = rig.call(SegmentImage, "segment_image", prompts=[prompt])
    assert not segmented.success and why in segmented.message
