"""``Sam2Client`` over real middleware, with a node whose tracker is a fake."""

from __future__ import annotations

import functools
import itertools
import re
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from fake_tracker import DEADLINE_S
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.client import Sam2Client
from sam2_ros.client_results import RESULTS_KEPT, Sam2Error
from sam2_ros.node.conversions import array_to_image, make_prompt, ns_to_stamp
from sam2_ros.tracking.types import ObjectState

ROOT = Path(__file__).parents[1]
SECOND = 1_000_000_000


class Robot:
    """The node under test, spun by a thread of its own, and its camera."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self._camera = rig.publisher(Image, "image", qos_profile_sensor_data)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._end.is_set():
            self.rig.executor.spin_once(timeout_sec=0.02)

    def show(self, stamp_s: float = 1.0) -> None:
        header = Header(stamp=ns_to_stamp(round(stamp_s * SECOND)), frame_id="camera")
        self._camera.publish(array_to_image(np.zeros((8, 10, 3), np.uint8), "rgb8", header))

    def close(self) -> None:
        self._end.set()
        self._thread.join(DEADLINE_S)


@pytest.fixture
def robot(ros_rig: Any) -> Iterator[Robot]:
    robot = Robot(ros_rig)
    yield robot
    robot.close()


@pytest.fixture
def sam2(robot: Robot) -> Iterator[Sam2Client]:
    with Sam2Client(robot.rig.peer, timeout_s=DEADLINE_S) as client:
        yield client


class Film:
    """A camera that runs while the block does: for answers that need an image."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for count in itertools.count(1):
            if self._end.wait(0.02):
                return
            self._robot.show(count / 50)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(DEADLINE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:.0f} s"
        time.sleep(0.005)


def test_an_object_is_added_with_whole_numbers_and_comes_with_its_first_mask(robot: Robot, sam2: Sam2Client) -> None:
    with Film(robot):
        reply = sam2.add("mug", points=(4, 3), class_id="cup")
        assert (reply.object_id, reply.label, reply.state) == ("mug", 1, ObjectState.TRACKED)
        assert reply.box_xyxy == (3, 2, 6, 5) and reply.stamp_ns > 0
        assert reply.mask is not None and reply.mask.shape == (3, 3) and reply.mask.all()
        result = next(sam2.results(timeout_s=DEADLINE_S))
    assert [each.object_id for each in result] == ["mug"] and "mug" in result and "cup" not in result
    mug = result["mug"]
    assert mug.mask.shape == (8, 10) and mug.mask.dtype == np.bool_ and int(mug.mask.sum()) == mug.area_px == 9
    assert result.message.objects[0].class_id == "cup" and result.stamp_ns > 0
    with pytest.raises(KeyError, match="no object 'cup' in this image; known: mug"):
        result["cup"]


def test_every_way_to_change_objects(robot: Robot, sam2: Sam2Client) -> None:
    calls = robot.rig.tracker.calls
    assert sam2.add(points=[(4, 3), (5, 3)], labels=[1, 0], wait=False).object_id == "object_1"
    assert sam2.add("box", box=(1, 1, 4, 4), wait=False).label == 2
    assert sam2.refine("box", points=[[2, 2]], wait=False).label == 2
    assert sam2.refine("box", box=[1, 1, 3, 3], replace=True, wait=False).label == 2
    assert sam2.undo("box", wait=False).label == 2
    assert [each.object_id for each in sam2.list()] == ["object_1", "box"]
    assert sam2.remove("box") == ("box",)
    assert sam2.clear() == ("object_1",)
    assert sam2.reset() == ()
    sam2.enable(False)
    sam2.enable()
    expected = [
        "prompt object_1",
        "prompt box",
        "refine box",
        "replace box",
        "undo box",
        "remove box",
        "clear",
        "reset",
    ]
    assert calls == expected


def test_what_the_node_rejects_is_an_error_with_its_reason_and_changes_nothing(sam2: Sam2Client) -> None:
    sam2.add("mug", points=(4, 3), wait=False)
    for call, reason in (
        (lambda: sam2.add("mug", points=(4, 3), wait=False), "exists already"),
        (lambda: sam2.refine("cup", points=(4, 3), wait=False), "no object 'cup' to refine"),
        (lambda: sam2.add("cup", wait=False), "empty prompt"),
        (lambda: sam2.remove("mug", "cup"), "unknown object"),
        (lambda: sam2.segment(), "no camera image"),
    ):
        with pytest.raises(Sam2Error, match=reason):
            call()
    assert [each.object_id for each in sam2.list()] == ["mug"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"points": (1, 2, 3)}, "points: expected groups of 2 numbers, got 3"),
        ({"points": (1, 2), "labels": [1, 0]}, "labels: expected one for each of 1 points, got 2"),
        ({"box": (1, 2)}, "box: expected groups of 4 numbers"),
        ({"box": range(8)}, "box: expected x0, y0, x1, y1, got 8"),
        ({"mask": np.zeros(3)}, r"mask: expected \(H, W\), got \(3,\)"),
        ({"points": "left"}, "could not convert"),
    ],
)
def test_values_of_no_shape_are_rejected_before_they_are_sent(values: dict[str, Any], reason: str) -> None:
    given = {"points": None, "labels": None, "box": None, "mask": None, **values}
    with pytest.raises(ValueError, match=reason):
        make_prompt("mug", **given, normalized=False, stamp=None)


@pytest.mark.parametrize("stamp", [2_500_000_000, ns_to_stamp(2_500_000_000), Header(stamp=ns_to_stamp(2_500_000_000))])
def test_a_stamp_is_given_as_a_stamp_a_header_or_nanoseconds(stamp: Any) -> None:
    message = make_prompt("mug", (1, 2), None, None, None, False, stamp)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (2, 500_000_000)


@pytest.mark.parametrize(
    "make_executor", [SingleThreadedExecutor, functools.partial(MultiThreadedExecutor, 2)], ids=["one thread", "two"]
)
def test_calls_that_wait_are_safe_in_an_image_callback(robot: Robot, make_executor: Callable[..., Any]) -> None:
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=robot.rig.context.get_domain_id())
    mine = rclpy.create_node("mine", context=context)
    executor = make_executor(context=context)
    executor.add_node(mine)
    answers: list[Any] = []

    def on_image(message: Image) -> None:
        """What a user's node does with the first image: it asks for masks in it, and has an object followed."""
        if answers:
            return
        image_rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        answers.append(sam2.segment(image_rgb, points=(4, 3)))
        answers.append(sam2.add("mug", points=(4, 3)))  # waits for an image that comes after this one
        answers.append(sam2.list())

    with Sam2Client(mine, timeout_s=DEADLINE_S) as sam2, Film(robot):
        mine.create_subscription(Image, "image", on_image, qos_profile_sensor_data)
        end_s = time.monotonic() + DEADLINE_S
        while len(answers) < 3 and time.monotonic() < end_s:
            executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    mine.destroy_node()
    context.try_shutdown()
    (mask,), added, listed = answers
    assert mask.mask.shape == (8, 10) and added.state is ObjectState.TRACKED
    assert [each.object_id for each in listed] == ["mug"]


def test_futures_come_at_once_and_a_callback_of_theirs_must_not_wait(robot: Robot, sam2: Sam2Client) -> None:
    said: list[BaseException | None] = []
    done = threading.Event()

    def on_done(_: Any) -> None:
        try:
            sam2.list()
        except RuntimeError as error:
            said.append(error)
        sam2.list_async().add_done_callback(lambda future: (said.append(future.exception()), done.set()))

    future = sam2.add_async("mug", points=(4, 3))
    future.add_done_callback(on_done)
    assert not future.done(), "there is no image yet"
    with Film(robot):
        assert future.result(DEADLINE_S).state is ObjectState.TRACKED
        assert done.wait(DEADLINE_S)
    assert "waits for itself: use the _async call" in str(said[0]) and said[1] is None


def test_waiting_for_a_state(robot: Robot, sam2: Sam2Client) -> None:
    robot.rig.tracker.hidden["mug"] = ObjectState.OCCLUDED
    sam2.add("mug", points=(4, 3), wait=False)
    with Film(robot):
        hidden = sam2.wait_for("mug", ObjectState.OCCLUDED)
        assert hidden.box_xyxy is None and hidden.mask.shape == (8, 10) and not hidden.mask.any()
        with pytest.raises(Sam2Error, match=r"'mug' was not TRACKED within 0.5 s: (it is OCCLUDED|no result came)"):
            sam2.wait_for("mug", timeout_s=0.5)
        del robot.rig.tracker.hidden["mug"]
        assert sam2.wait_for("mug").mask.sum() == 9
        with pytest.raises(Sam2Error, match=r"'cup' was not TRACKED within 0.5 s: (it is not known; known: mug|no)"):
            sam2.wait_for("cup", timeout_s=0.5)


def test_a_callback_gets_every_result_until_it_is_ended(robot: Robot, sam2: Sam2Client) -> None:
    stamps: list[int] = []
    end = sam2.on_objects(lambda result: stamps.append(result.stamp_ns), masks=False)
    with Film(robot):
        wait_until(lambda: len(stamps) >= 3)
        end()
        seen = len(stamps)
        next(sam2.results(timeout_s=DEADLINE_S))
    assert len(stamps) <= seen + 1 and stamps == sorted(set(stamps))


def test_a_slow_reader_misses_images_but_not_the_newest(robot: Robot, sam2: Sam2Client) -> None:
    slow, newest = sam2.results(masks=False), [0]
    sam2.on_objects(lambda result: newest.append(result.stamp_ns), masks=False)
    with Film(robot):
        wait_until(lambda: len(newest) > 2 * RESULTS_KEPT)
    sam2.enable()  # carried out after the last image
    wait_until(lambda: newest[-1] == robot.rig.node._session.view.stamp_ns)
    assert [next(slow).stamp_ns for _ in range(RESULTS_KEPT)] == newest[-RESULTS_KEPT:]


def test_single_images(robot: Robot, sam2: Sam2Client) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    (best,) = sam2.segment(image, points=(30, 20))
    assert best.mask.shape == (48, 64) and best.mask.dtype == np.bool_ and best.prompt_index == 0
    three = sam2.segment(image, box=(10, 10, 40, 40), multimask=True)
    assert len(three) == 3 and [each.score for each in three] == sorted((each.score for each in three), reverse=True)


def test_without_a_node_the_call_says_so(ros_rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_ros.client.ANSWER_MARGIN_S", 0.0)
    with (
        Sam2Client(ros_rig.peer, target="/nobody", timeout_s=0.1) as sam2,
        pytest.raises(Sam2Error, match="/nobody/list_objects: no such service: is the node running"),
    ):
        sam2.list()


def test_closing_ends_iterators_and_calls_that_wait(robot: Robot) -> None:
    sam2 = Sam2Client(robot.rig.peer, timeout_s=DEADLINE_S)
    results, waits = sam2.results(), sam2.add_async("mug", points=(4, 3))
    ended: list[int] = []
    reader = threading.Thread(target=lambda: ended.append(len(list(results))))
    reader.start()
    sam2.close()
    reader.join(DEADLINE_S)
    assert ended == [0]
    with pytest.raises(Sam2Error, match="closed"):
        waits.result(DEADLINE_S)
    for call in (sam2.list, sam2.results):
        with pytest.raises(Sam2Error, match="closed"):
            call()


def test_nothing_is_kept_of_calls_that_were_not_answered(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_ros.client.ANSWER_MARGIN_S", 0.0)
    robot.rig.tracker.gate.clear()
    robot.show()
    assert robot.rig.tracker.in_step.wait(DEADLINE_S)
    with Sam2Client(robot.rig.peer, timeout_s=DEADLINE_S) as sam2:
        sam2.list()  # the services are there
        sam2._timeout_s = 0.05
        with pytest.raises(Sam2Error, match="no answer in time"):
            sam2.clear()
        assert not sam2._clients["clear"]._pending_requests
        robot.rig.tracker.gate.set()


def test_the_end_of_ros_ends_iterators_and_calls_that_wait(robot: Robot) -> None:
    """They wait for a thread that has ended then."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=robot.rig.context.get_domain_id())
    node = rclpy.create_node("other", context=context)
    sam2 = Sam2Client(node, target="/nobody", timeout_s=10 * DEADLINE_S)
    results, waits = sam2.results(), sam2.clear_async()
    context.shutdown()
    assert list(results) == []
    with pytest.raises(Sam2Error, match="ROS was shut down"):
        waits.result(DEADLINE_S)
    with pytest.raises(Sam2Error, match="ROS was shut down"):
        sam2.list()
    sam2.close()


def test_a_relative_target_is_in_the_nodes_namespace_and_follows_its_remappings(ros_rig: Any) -> None:
    context = rclpy.Context()
    remap = ["--ros-args", "-r", "tracker/list_objects:=/sam2_node/list_objects"]
    rclpy.init(args=remap, context=context, domain_id=ros_rig.context.get_domain_id())
    mine = rclpy.create_node("mine", context=context, namespace="/left")
    with Sam2Client(mine, target="tracker", timeout_s=DEADLINE_S) as sam2:
        future = sam2.list_async()
        ros_rig.spin_until(future.done, "the node answers")
        assert future.result().objects == ()
        assert sam2._resolve_topic("tracker/objects") == "/left/tracker/objects"
    mine.destroy_node()
    context.try_shutdown()


def test_without_a_node_of_ones_own_the_client_has_a_context_and_ends_it(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sam2Client(timeout_s=DEADLINE_S) as sam2:  # ROS_DOMAIN_ID is the rig's
        assert sam2.list().objects == ()
        context = sam2._owned_context
        assert context is not None and context.ok()
    assert not context.ok()


def hide_after(robot: Robot, call: str) -> None:
    """Let the object "mug" go out of sight once the tracker has got this call."""

    def hide() -> None:
        wait_until(lambda: call in robot.rig.tracker.calls)
        robot.rig.tracker.hidden["mug"] = ObjectState.OCCLUDED

    threading.Thread(target=hide, daemon=True).start()


def test_the_readme_does_what_it_says(robot: Robot, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S) if "Sam2Client" in block)
    # On small images: large ones get lost where many tests share a machine.
    for large, small in (
        ("(320, 240)", "(4, 3)"),
        ("(330, 250), (420, 250)", "(5, 3), (6, 3)"),
        ("(100, 100)", "(2, 2)"),
    ):
        assert large in block, "the example has other coordinates"
        block = block.replace(large, small)
    hide_after(robot, "undo mug")
    with Film(robot):
        exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "TRACKED (3, 2, 6, 5) (3, 3)" in said and "OCCLUDED 0" in said and said.endswith("('mug',)\n")


def test_the_example_says_where_its_object_is(
    robot: Robot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["where_is_it.py", "4", "3"])
    monkeypatch.setattr(
        Sam2Client, "results", lambda self: itertools.islice(self._open_stream(True).read(DEADLINE_S), 2)
    )
    with Film(robot):
        runpy.run_path(str(ROOT / "examples" / "where_is_it.py"), run_name="__main__")
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "object_1 is TRACKED, in the box (3, 2, 6, 5)"
    assert [line.split(" ", 1)[1] for line in others] == ["TRACKED (4.0, 3.0) 9 px"] * 2
    assert robot.rig.tracker.object_ids == ()
