"""Transitions of the node, and what its services say in each state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from sam2_ros.msg import Prompt
from sam2_ros.srv import AddObjects, ListObjects

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
    assert rig.tracker.calls == ["prompt warm_up", "step 0", "step 0", "reset"]


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
    refused = set_parameter(rig, "num_threads", 1)
    assert not refused.successful and "num_threads: takes effect when the node is configured" in refused.reason
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
    assert "not configured: ros2 lifecycle set sam2_node configure" in rig.call(ListObjects, "list_objects").message


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

    monkeypatch.setattr(sam2_node, "Inputs", broken)
    assert rig.node.trigger_activate() == TransitionCallbackReturn.ERROR
    assert state_of(rig) == "unconfigured"
    assert any("on_activate failed" in text and "no subscription today" in text for text in logged)


def test_the_cores_log_goes_to_the_nodes_logger(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_ros_rig()
    logged: list[str] = []
    monkeypatch.setattr(type(rig.node.get_logger()), "warning", lambda self, text, **_: logged.append(text))
    logging.getLogger("sam2_ros.tracking.somewhere").warning("%d frames", 3)
    assert logged == ["3 frames"]
