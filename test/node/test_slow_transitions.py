"""A model that loads for long, or hangs: the executor serves everybody else meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import fake_tracker
import numpy as np
import pytest
from fake_tracker import DEADLINE_S, FakeTracker
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from session_rig import wait_until
from std_msgs.msg import Header

from sam2_ros.node import sam2_node
from sam2_ros.node.conversions import array_to_image
from sam2_ros.srv import ListObjects

CONFIGURE = Transition(id=Transition.TRANSITION_CONFIGURE)


class Loader:
    """Makes trackers when it is let: one for each permit."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.begun: list[Any] = []
        self.error: Exception | None = None

    def __call__(self, parameters: Any) -> FakeTracker:
        self.begun.append(parameters)
        assert self.permits.acquire(timeout=DEADLINE_S), "the test never let it go on"
        if self.error is not None:
            raise self.error
        return FakeTracker()


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.permits.release(9)


@pytest.fixture
def loading(make_ros_rig: Callable[..., Any], loader: Loader) -> Any:
    """A rig whose model is being loaded, after a call of ``~/change_state`` that waits in ``rig.configured``."""
    rig = make_ros_rig(autostart=False)
    rig.node._model._make = loader
    rig.configured = rig.call_async(ChangeState, "change_state", transition=CONFIGURE)
    rig.spin_until(lambda: bool(loader.begun), "loading begins")
    return rig


def state_of(rig: Any) -> str:
    return str(rig.call(GetState, "get_state").current_state.label)


def test_services_answer_while_a_model_loads(loading: Any, loader: Loader) -> None:
    answer = loading.call(ListObjects, "list_objects")
    assert not answer.success and "the model is being loaded" in answer.message
    assert state_of(loading) == "unconfigured"
    assert not loading.call(ChangeState, "change_state", transition=CONFIGURE).success, "it is under way already"
    assert not loading.configured.done() and len(loader.begun) == 1
    loader.permits.release()
    loading.spin_until(loading.configured.done, "the model is loaded")
    assert loading.configured.result().success and state_of(loading) == "inactive"
    assert loading.call(ListObjects, "list_objects").success


def test_a_model_is_said_to_load_until_the_node_is_configured(loading: Any, loader: Loader) -> None:
    """Not that the node must be configured, which is what the service does as soon as the executor is free."""
    loader.permits.release()
    wait_until(lambda: not loading.node._model.is_loading)
    assert "the model is being loaded" in str(loading.node._session_or_reason())
    loading.spin_until(loading.configured.done, "the node is configured")
    assert loading.call(ListObjects, "list_objects").success


def test_parameters_stay_as_the_model_that_loads_has_them(loading: Any, loader: Loader) -> None:
    from rclpy.parameter import Parameter

    (rejected,) = loading.node.set_parameters([Parameter("lost_after_frames", value=7)])
    assert not rejected.successful and "takes effect when the node is configured" in rejected.reason
    loader.permits.release()
    loading.spin_until(loading.configured.done, "the model is loaded")


def test_a_model_that_cannot_be_loaded_is_answered_with_a_failure(loading: Any, loader: Loader) -> None:
    loader.error = FileNotFoundError("no checkpoint")
    loader.permits.release()
    loading.spin_until(loading.configured.done, "it is answered")
    assert not loading.configured.result().success and state_of(loading) == "unconfigured"
    assert "no checkpoint" in loading.call(ListObjects, "list_objects").message
    loader.error = None
    loader.permits.release()
    assert loading.call(ChangeState, "change_state", transition=CONFIGURE).success


def test_a_node_can_be_shut_down_while_its_model_loads(loading: Any, loader: Loader) -> None:
    assert loading.call(ChangeState, "change_state", transition=Transition(label="shutdown")).success
    assert state_of(loading) == "finalized"
    loader.permits.release()
    loading.spin_until(loading.configured.done, "the first call is answered")
    assert not loading.configured.result().success and state_of(loading) == "finalized"


def test_a_model_that_hangs_is_left_behind_and_the_node_starts_again(
    make_ros_rig: Callable[..., Any], loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam2_node, "STOP_LIMIT_S", 1.0)
    monkeypatch.setattr(fake_tracker, "DEADLINE_S", 600.0)  # it hangs for longer than the node is waited for
    rig = make_ros_rig()
    rig.start()
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    rig.tracker.gate.clear()
    images.publish(array_to_image(np.zeros((8, 10, 3), np.uint8), "rgb8", Header()))
    rig.spin_until(rig.tracker.in_step.is_set, "the model hangs")
    assert rig.call(ChangeState, "change_state", transition=Transition(label="deactivate")).success
    cleaned_up = rig.call_async(ChangeState, "change_state", transition=Transition(label="cleanup"))
    assert "stopped" in rig.call(ListObjects, "list_objects").message or not cleaned_up.done()
    assert not rig.call(ChangeState, "change_state", transition=Transition(label="activate")).success
    rig.spin_until(cleaned_up.done, "the node is cleaned up")
    assert cleaned_up.result().success and state_of(rig) == "unconfigured" and rig.node.left_behind
    rig.node._model._make = loader
    loader.permits.release()
    for label in ("configure", "activate"):
        assert rig.call(ChangeState, "change_state", transition=Transition(label=label)).success
    assert state_of(rig) == "active", "on another thread than the one that hangs"


@pytest.mark.parametrize("first_fails", [False, True])
def test_no_camera_is_active_before_all_models_are_loaded(
    make_ros_rig: Callable[..., Any], loader: Loader, first_fails: bool
) -> None:
    rig = make_ros_rig()
    others = [sam2_node.Sam2Node(context=rig.context, namespace=name, tracker_factory=loader) for name in "ab"]
    for node in others:
        rig.executor.add_node(node)
    started = rig.executor.create_task(sam2_node.start, others)
    rig.spin_until(lambda: len(loader.begun) == 1, "the first one loads")
    loader.error = MemoryError("the first one is too large") if first_fails else None
    loader.permits.release()
    rig.spin_until(lambda: len(loader.begun) == 2, "the second one loads")
    assert rig.peer.count_subscribers("/a/image") == 0, "the first one does not subscribe yet"
    loader.error = None
    loader.permits.release()
    rig.spin_until(started.done, "all are started")
    rig.spin_until(lambda: rig.peer.count_subscribers("/b/image") == 1, "the second one subscribes")
    assert (others[0]._watch is None) is first_fails
    for node in others:
        node.close()
        node.destroy_node()
