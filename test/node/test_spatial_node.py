"""Depth, calibration and clicks in space through the node, over real middleware; the masks are given."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, PointStamped, PoseStamped
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from visualization_msgs.msg import Marker, MarkerArray

from sam2_ros.bringup.arguments import ARGUMENTS, programs
from sam2_ros.demo.camera import FRAME_ID, DemoCamera
from sam2_ros.demo.stream import StreamFrame, StreamInfo
from sam2_ros.demo.tabletop.scene import Tabletop
from sam2_ros.msg import Prompt, TrackedObject, TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.node.optional.detections import DetectionSubscription
from sam2_ros.perception.depth import DEPTH_IMAGES_KEPT
from sam2_ros.perception.object_geometry import POINT_DTYPE
from sam2_ros.srv import AddObjects, Reset

SECOND = 1_000_000_000
FRAME = "camera_optical"


class Bench:
    """A node of a rig with a camera before it that shows one flat wall, 2 m away, 32 x 24 px, focal length 40 px."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        rig.start()
        sensor = qos_profile_sensor_data
        self.images = rig.publisher(Image, "image", sensor)
        self.infos = rig.publisher(CameraInfo, "camera_info", sensor)
        self.objects: list[TrackedObjectArray] = rig.collect(TrackedObjectArray, "objects")
        self._stamp_ns = SECOND

    def calibrate(self, focal: float = 40.0) -> None:
        k = [focal, 0.0, 15.5, 0.0, focal, 11.5, 0.0, 0.0, 1.0]
        self.infos.publish(CameraInfo(header=Header(frame_id=FRAME), width=32, height=24, k=k if focal else [0.0] * 9))
        self.rig.spin_until(lambda: self.rig.node._depth.camera_frame == FRAME, "the calibration arrives")

    def header(self) -> Header:
        return Header(frame_id=FRAME, stamp=ns_to_stamp(self._stamp_ns))

    def offer(self) -> None:
        """Publish one image."""
        self.images.publish(array_to_image(np.zeros((24, 32, 3), dtype=np.uint8), "rgb8", self.header()))

    def show_depth(self, publisher: Any, stamp_ns: int) -> None:
        """The wall's depth, and wait until the node has it."""
        header = Header(frame_id=FRAME, stamp=ns_to_stamp(stamp_ns))
        publisher.publish(array_to_image(np.full((24, 32), 2000, dtype=np.uint16), "16UC1", header))
        self.rig.spin_until(lambda: self.rig.node._depth._newest_ns == stamp_ns, "the depth arrives")

    def show(self) -> TrackedObjectArray:
        """One image through the node; its objects."""
        before = len(self.objects)
        self.offer()
        self.rig.spin_until(lambda: len(self.objects) > before, "objects come")
        self._stamp_ns += SECOND // 10
        return self.objects[-1]

    def add(self, object_id: str, x: float = 16.0, y: float = 12.0) -> None:
        prompt = Prompt(object_id=object_id, points=[Point(x=x, y=y)], point_labels=[1])
        assert self.rig.call(AddObjects, "add_objects", prompts=[prompt]).success


class TruthTracker:
    """Hands every call on to the fake tracker and puts the true mask into each result."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.masks: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        result = self._inner.step(*args, **kwargs)
        if not all(item.object_id in self.masks for item in result.objects):
            return result  # the warm-up
        label_image = np.zeros_like(result.label_image)
        for item in result.objects:
            label_image[self.masks[item.object_id]] = item.label
        objects = tuple(replace(item, mask=self.masks[item.object_id]) for item in result.objects)
        return replace(result, objects=objects, label_image=label_image)


@pytest.fixture
def make_bench(make_ros_rig: Callable[..., Any]) -> Callable[..., Bench]:
    return lambda **overrides: Bench(make_ros_rig(**overrides))


def warnings_of(rig: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(type(rig.node.get_logger()), "warning", lambda self, text, **_: said.append(text))
    return said


@pytest.fixture(scope="module")
def tabletop() -> Tabletop:
    return Tabletop(height_px=120, width_px=160)


def test_a_rendered_scene_has_its_objects_where_they_are(
    make_ros_rig: Callable[..., Any], fake_tracker: Any, tabletop: Tabletop
) -> None:
    """The demo's camera, its depth in millimetres, and true masks: from topic to topic."""
    frame = tabletop.render(0)
    tracker = TruthTracker(fake_tracker)
    tracker.masks = {name: frame.ids == value for value, name in enumerate(tabletop.names, start=1)}
    rig = make_ros_rig(use_depth=True)
    rig.tracker = tracker
    rig.start()
    camera = DemoCamera(StreamInfo("tabletop", 1, False, tabletop.camera_matrix), context=rig.context)
    rig.executor.add_node(camera)
    received: dict[str, list[Any]] = {
        "objects": rig.collect(TrackedObjectArray, "objects"),
        "target_pose": rig.collect(PoseStamped, "target_pose"),
        "markers": rig.collect(MarkerArray, "markers"),
        "object_points": rig.collect(PointCloud2, "object_points"),
    }
    clicks = tabletop.click_points(0)
    prompts = [
        Prompt(
            object_id=c.name,
            points=[Point(x=c.x_px, y=c.y_px)],
            point_labels=[1],
            class_id="ignore" * (c.name == "book"),
        )
        for c in clicks
    ]
    assert rig.call(AddObjects, "add_objects", prompts=prompts).success
    rig.spin_until(lambda: camera.count_subscribers("depth") > 0, "the node wants depth")
    depth_mm = np.round(frame.depth_m * 1000).astype(np.uint16)

    def complete() -> bool:
        # The first images may come before their depth or the calibration has.
        camera.publish(StreamFrame(0, frame.image_rgb, depth_mm), 0)
        posed = all(received.values()) and all(item.has_pose for item in received["objects"][-1].objects)
        return posed and len(received["markers"][-1].markers) > 1  # markers come after the objects

    rig.spin_until(complete, "poses of all objects")
    camera.destroy_node()

    objects = {item.object_id: item for item in received["objects"][-1].objects}
    # (x, y, z) of the middle of each in the world, and how far that may be from the middle of what is seen of it.
    middles = {"packet": (-0.015, 0.07, 0.10), "tin": (0.300, 0.105, 0.075), "ball": (-0.245, 0.205, 0.072)}
    for name, middle in middles.items():
        at = objects[name].pose.position
        pose = frame.world_from_camera
        found = pose.rotation @ (at.x, at.y, at.z) + pose.position_m
        assert np.linalg.norm(found - middle) < 0.06, name
    sides = sorted((objects["packet"].size.x, objects["packet"].size.y, objects["packet"].size.z))
    assert sides[2] == pytest.approx(0.22, abs=0.05)  # upright: 0.205 m, and the top is seen as well

    oldest = objects[clicks[0].name]
    assert received["target_pose"][-1].header.frame_id == FRAME_ID
    assert abs(received["target_pose"][-1].pose.position.z - oldest.pose.position.z) < 0.01
    shown = {marker.text for marker in received["markers"][-1].markers if marker.type == Marker.TEXT_VIEW_FACING}
    assert shown == set(objects)
    cloud = np.frombuffer(received["object_points"][-1].data, dtype=POINT_DTYPE)
    labels = {item.label for item in objects.values() if item.class_id != "ignore"}
    assert set(cloud["label"]) == labels and len(labels) == len(objects) - 1


def test_without_depth_there_are_masks_and_the_reason(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(use_depth=True)
    said = warnings_of(bench.rig, monkeypatch)
    status: list[DiagnosticArray] = []
    bench.rig.peer.create_subscription(DiagnosticArray, "/diagnostics", status.append, 10)
    bench.calibrate()
    bench.add("mug")
    (item,) = bench.show().objects
    assert (item.state, item.has_pose) == (TrackedObject.TRACKED, False)
    bench.show()
    assert [text for text in said if "no depth image came yet" in text] == said
    assert len(said) == 1

    def explained() -> bool:
        values = {pair.key: pair.value for message in status for pair in message.status[0].values}
        return "no depth image came yet" in values.get("no depth because", "")

    bench.rig.spin_until(explained, "diagnostics say so too")


@pytest.fixture
def mug_bench(make_ros_rig: Callable[..., Any], fake_tracker: Any) -> Bench:
    """A bench with a mug that fills the image."""
    rig = make_ros_rig(use_depth=True)
    rig.tracker = tracker = TruthTracker(fake_tracker)
    tracker.masks["mug"] = np.ones((24, 32), dtype=np.bool_)
    bench = Bench(rig)
    bench.calibrate()
    bench.add("mug")
    return bench


def test_depth_of_an_image_that_takes_the_model_long_is_kept(mug_bench: Bench, fake_tracker: Any) -> None:
    depth = mug_bench.rig.publisher(Image, "depth", qos_profile_sensor_data)
    fake_tracker.gate.clear()
    mug_bench.offer()
    mug_bench.rig.spin_until(fake_tracker.in_step.is_set, "the model is at work")
    for number in range(3 * DEPTH_IMAGES_KEPT):
        mug_bench.show_depth(depth, SECOND + number * SECOND // 10)
    fake_tracker.gate.set()
    mug_bench.rig.spin_until(lambda: bool(mug_bench.objects), "objects come")
    assert mug_bench.objects[0].objects[0].has_pose


def test_after_a_reset_no_depth_of_before_is_used(mug_bench: Bench) -> None:
    bench = mug_bench
    depth = bench.rig.publisher(Image, "depth", qos_profile_sensor_data)
    bench.show_depth(depth, SECOND)
    assert bench.show().objects[0].has_pose
    assert bench.rig.call(Reset, "reset").success
    bench.add("mug")
    bench._stamp_ns = SECOND  # the very image that the depth of before was for
    assert not bench.show().objects[0].has_pose


def test_markers_end_with_the_tracking(mug_bench: Bench) -> None:
    bench = mug_bench
    markers: list[MarkerArray] = bench.rig.collect(MarkerArray, "markers")
    depth = bench.rig.publisher(Image, "depth", qos_profile_sensor_data)

    def shown() -> bool:
        bench.show_depth(depth, bench._stamp_ns)
        bench.show()
        return bool(markers) and len(markers[-1].markers) > 1

    def gone() -> bool:
        return bool(markers) and [marker.action for marker in markers[-1].markers] == [Marker.DELETEALL]

    bench.rig.spin_until(shown, "the mug has markers")
    assert {marker.lifetime.sec for marker in markers[-1].markers[1:]} == {5}, "image_timeout_s"
    assert bench.rig.call(SetBool, "enable", data=False).success
    bench.rig.spin_until(gone, "they are removed while tracking is disabled")
    assert markers[-1].markers[0].header.frame_id == FRAME
    assert bench.rig.call(SetBool, "enable", data=True).success
    bench.rig.spin_until(shown, "they are shown again")
    markers.clear()
    bench.rig.node.trigger_deactivate()
    bench.rig.spin_until(gone, "they are removed by deactivation")


def test_a_calibration_that_was_published_once_before_the_node_is_received(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
    publisher = rig.peer.create_publisher(CameraInfo, "camera_info", latched)
    publisher.publish(CameraInfo(header=Header(frame_id=FRAME), width=32, height=24))
    rig.start()
    rig.spin_until(lambda: rig.node._depth.camera_frame == FRAME, "the calibration arrives")


def test_markers_are_cleared_when_depth_is_gone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(use_depth=True)
    markers: list[MarkerArray] = bench.rig.collect(MarkerArray, "markers")
    bench.show()
    bench.rig.spin_until(lambda: bool(markers), "markers come")
    assert [marker.action for marker in markers[-1].markers] == [Marker.DELETEALL]


@pytest.mark.parametrize(
    ("point", "where", "focal", "reason"),
    [
        ((0.1, 0.0, 2.0), FRAME, 40.0, ""),
        ((0.1, 0.0, -2.0), FRAME, 40.0, "the point is behind the camera: -2.000 m along its view"),
        (
            (9.0, 0.0, 2.0),
            FRAME,
            40.0,
            "the camera does not see the point: it is at x 196, y 12 of an image of 32 x 24",
        ),
        ((float("nan"), 0.0, 2.0), FRAME, 40.0, "expected a finite point"),
        ((0.1, 0.0, 2.0), "map", 40.0, "the point is in frame 'map' and the camera in 'camera_optical'"),
        ((0.1, 0.0, 2.0), FRAME, 0.0, "the camera is not calibrated"),
    ],
)
def test_a_point_of_rviz_becomes_a_click(
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    point: tuple[float, float, float],
    where: str,
    focal: float,
    reason: str,
) -> None:
    bench = make_bench()
    said = warnings_of(bench.rig, monkeypatch)
    bench.calibrate(focal)
    bench.show()
    clicks = bench.rig.publisher(PointStamped, "clicked_point")
    x, y, z = point
    clicks.publish(PointStamped(header=Header(frame_id=where), point=Point(x=x, y=y, z=z)))
    if reason:
        bench.rig.spin_until(lambda: bool(said), "a rejection")
        assert said[0].startswith("clicked_point rejected: ") and reason in said[0]
        return
    bench.rig.spin_until(lambda: "prompt object_1 at 1 s" in bench.rig.tracker.calls, "the click arrives")
    (item,) = bench.show().objects
    # 0.1 m to the right at 2 m are 2 px from the middle at 15.5.
    assert (item.centroid.x, item.centroid.y) == pytest.approx((17.5, 11.5), abs=0.51)


def test_a_point_before_the_first_image_is_rejected(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    said = warnings_of(bench.rig, monkeypatch)
    clicks = bench.rig.publisher(PointStamped, "clicked_point")
    clicks.publish(PointStamped(header=Header(frame_id=FRAME), point=Point(z=1.0)))
    bench.rig.spin_until(lambda: bool(said), "a rejection")
    assert "no image was processed yet" in said[0]


def test_use_depth_takes_effect_when_configured(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert bench.rig.peer.count_subscribers("/depth") == 0
    bench.add("mug")
    assert not bench.show().objects[0].has_pose and bench.rig.node._depth.trouble == ""  # nothing was looked for
    for name, value in (("use_depth", True), ("image_transport", "compressed")):
        rejected = bench.rig.node.set_parameters([Parameter(name, value=value)])[0]
        assert not rejected.successful and f"{name}: takes effect when the node is configured" in rejected.reason
    for name, value in (
        ("depth_scale", 1e-4),
        ("keep_out_margin_px", 0),
        ("ignore_classes", "arm"),
        ("jpeg_quality", 9),
    ):
        assert bench.rig.node.set_parameters([Parameter(name, value=value)])[0].successful


def stand_in_detections(header: Header, **centres: tuple[float, float]) -> Any:
    """A ``Detection2DArray``, whose package has no wheel: a box of 8 x 8 px around the centre of each class."""

    def one(class_id: str, x: float, y: float) -> Any:
        centre = SimpleNamespace(position=SimpleNamespace(x=x, y=y))
        hypothesis = SimpleNamespace(class_id=class_id, score=0.9)
        box = SimpleNamespace(center=centre, size_x=8.0, size_y=8.0)
        return SimpleNamespace(results=[SimpleNamespace(hypothesis=hypothesis)], bbox=box)

    return SimpleNamespace(header=header, detections=[one(name, *centre) for name, centre in centres.items()])


def test_from_a_detectors_word_to_the_pose_of_what_is_followed(
    make_ros_rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the parameters that ``follow:=person`` of the launch file sets, and a stand-in for the detector."""
    for name in ("vision_msgs", "vision_msgs.msg"):  # where it is installed, the node would subscribe by itself
        monkeypatch.setitem(sys.modules, name, None)
    given = {name: default for name, default, _ in ARGUMENTS}
    given |= {"follow": "person", "depth_topic": "/depth", "detections_topic": "/boxes"}
    (program,) = programs(given, "", lambda _package: True)
    parameters = program.parameters[-1]
    assert isinstance(parameters, dict)
    rig = make_ros_rig(**parameters)
    rig.tracker = TruthTracker(rig.tracker)
    rig.tracker.masks["object_1"] = np.zeros((24, 32), bool)
    rig.tracker.masks["object_1"][6:18, 10:22] = True
    bench = Bench(rig)
    poses = rig.collect(PoseStamped, "target_pose")
    depths = rig.publisher(Image, "depth", qos_profile_sensor_data)
    bench.calibrate()
    header = bench.header()
    bench.show_depth(depths, bench._stamp_ns)
    bench.show()
    rig.node._detections = DetectionSubscription(rig.node, rig.node._session, rig.node._current_parameters, Image)
    rig.node._detections.observe(rig.node._session.view)
    rig.node._detections._on_detections(stand_in_detections(header, chair=(26.0, 5.0), Person=(16.0, 12.0)))
    bench.show_depth(depths, bench._stamp_ns)
    (followed,) = bench.show().objects
    assert followed.class_id == "Person", "the chair is nobody's word"
    rig.spin_until(lambda: bool(poses), "its pose comes")
    assert poses[-1].header.frame_id == FRAME
    assert poses[-1].pose.position.z == pytest.approx(2.0, abs=0.01)
