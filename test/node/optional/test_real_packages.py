"""tf2_ros, vision_msgs and cv_bridge themselves, where ROS has them; message_filters: see test_pairing.

The environment of wheels has none of them, and there their stand-ins are used (the other files of this folder).
`colcon test` in a workspace runs these tests too.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from camera_rig import SECOND, CalibratedCamera
from geometry_msgs.msg import Point, PointStamped, Quaternion, TransformStamped, Vector3
from image_messages import image_message
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

from sam2_ros.image_io.encodings import DECODERS, ImageError, image_to_rgb
from sam2_ros.node.conversions import stamp_to_ns
from sam2_ros.node.optional.other_encodings import OtherEncodings

FROM_OPTICAL = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)  # REP-103: z forward, x right; of a body: x forward, y left


def real(package: str) -> ModuleType:
    debian = {"tf2_ros": "tf2-ros-py"}.get(package, package.replace("_", "-"))
    return pytest.importorskip(
        package, reason=f"{package} is not installed and has no wheel: sudo apt install ros-$ROS_DISTRO-{debian}"
    )


@pytest.fixture
def robot(make_ros_rig: Callable[..., Any]) -> CalibratedCamera:
    return CalibratedCamera(make_ros_rig())


# tf2_ros -------------------------------------------------------------------------------------------------------------


class MovingCamera:
    """TF of a robot that drives along the map's x axis at 1 m/s, x = 0 at the stamp 0; its camera looks to the left.

    The camera is mounted at a height of 0.5 m: a static transform, turned as optical frames are.
    """

    def __init__(self, tf2_ros: ModuleType, node: Any) -> None:
        self._moving, self._static = tf2_ros.TransformBroadcaster(node), tf2_ros.StaticTransformBroadcaster(node)
        left = Quaternion(z=0.5**0.5, w=0.5**0.5)
        mounted = TransformStamped(header=Header(frame_id="base"), child_frame_id="mast")
        mounted.transform.translation, mounted.transform.rotation = Vector3(z=0.5), left
        optical = TransformStamped(header=Header(frame_id="mast"), child_frame_id="camera")
        optical.transform.rotation = FROM_OPTICAL
        self._static.sendTransform([mounted, optical])

    def drive(self, *stamps_s: float) -> None:
        for stamp_s in stamps_s:
            base = TransformStamped(header=CalibratedCamera.header(stamp_s, "map"), child_frame_id="base")
            base.transform.translation.x = stamp_s
            self._moving.sendTransform(base)


def click_in_map(robot: CalibratedCamera, x: float, y: float, z: float) -> None:
    clicked = PointStamped(header=Header(frame_id="map"), point=Point(x=x, y=y, z=z))
    robot.rig.node._spatial_inputs._clicked.put(clicked)


def can_look_up(robot: CalibratedCamera, stamp_s: float) -> Callable[[], bool]:
    """Whether the node's buffer has been told the transforms of that time."""
    transforms = robot.rig.node._transforms
    return lambda: not isinstance(transforms.move_point(np.zeros(3), "map", "camera", round(stamp_s * SECOND)), str)


def test_a_click_in_the_map_is_projected_at_the_time_of_the_image(robot: CalibratedCamera) -> None:
    camera = MovingCamera(real("tf2_ros"), robot.rig.peer)
    robot.rig.node._transforms.listen()
    robot.rig.spin_until(lambda: robot.rig.peer.count_subscribers("/tf") > 0, "the node listens")
    camera.drive(4.8, 5.0, 5.4, 6.0)
    robot.rig.spin_until(can_look_up(robot, 6.0), "TF arrives")
    robot.show(5.2)  # between two transforms: the robot was at x = 5.2
    # 2 m to the left of the robot's line, 0.1 m farther on than it was then, 0.1 m above the camera: with the newest
    # transform it would be 16 px from there.
    click_in_map(robot, 5.3, 2.0, 0.6)
    robot.rig.spin_until(lambda: "prompt object_1 at 5.2 s" in robot.rig.tracker.calls, "the click is carried out")
    robot.show(5.4)
    (item,) = robot.rig.node._session.view.objects
    assert item.tracked.centroid_xy == pytest.approx((15.5 + 2, 11.5 - 2), abs=0.51)


def test_a_click_waits_for_the_transform_of_its_image(robot: CalibratedCamera) -> None:
    camera = MovingCamera(real("tf2_ros"), robot.rig.peer)
    robot.rig.node._transforms.listen()
    robot.rig.spin_until(lambda: robot.rig.peer.count_subscribers("/tf") > 0, "the node listens")
    camera.drive(4.0, 5.0)
    robot.rig.spin_until(can_look_up(robot, 5.0), "TF arrives")
    robot.show(5.2)
    click_in_map(robot, 5.2, 2.0, 0.5)
    assert not any(call.startswith("prompt") for call in robot.rig.tracker.calls)
    camera.drive(5.3)
    robot.rig.spin_until(lambda: "prompt object_1 at 5.2 s" in robot.rig.tracker.calls, "the click is carried out")


def test_a_frame_that_nobody_knows_is_said(robot: CalibratedCamera, capfd: pytest.CaptureFixture[str]) -> None:
    real("tf2_ros")
    robot.show(5.0)
    click_in_map(robot, 0.0, 0.0, 0.0)
    robot.rig.spin_until(lambda: robot.rig.node._spatial_inputs._clicked._timer is None, "it gives up")
    said = capfd.readouterr().err
    assert "clicked_point rejected: the point is in frame 'map' and the camera in 'camera': TF does not lead" in said
    assert "does not exist" in said, "tf2's own reason"


def test_transforms_of_before_a_jump_are_forgotten(robot: CalibratedCamera) -> None:
    camera = MovingCamera(real("tf2_ros"), robot.rig.peer)
    robot.rig.node._transforms.listen()
    robot.rig.spin_until(lambda: robot.rig.peer.count_subscribers("/tf") > 0, "the node listens")
    camera.drive(5.0, 6.0)
    robot.rig.spin_until(can_look_up(robot, 5.5), "TF arrives")
    robot.rig.node._transforms.forget()
    assert not can_look_up(robot, 5.5)()
    camera.drive(5.0, 6.0)  # the bag plays again; what is static is not sent again
    robot.rig.spin_until(can_look_up(robot, 5.5), "TF arrives again")


def test_the_frames_of_objects_reach_a_listener(robot: CalibratedCamera) -> None:
    tf2_ros = real("tf2_ros")
    buffer = tf2_ros.Buffer()
    listener = tf2_ros.TransformListener(buffer, robot.rig.peer)
    frame = TransformStamped(header=robot.header(5.0), child_frame_id="sam2_node/mug")
    frame.transform.translation = Vector3(x=0.1, z=2.0)

    def is_known() -> bool:
        robot.rig.node._transforms.send([frame])
        return bool(buffer.can_transform("camera", "sam2_node/mug", rclpy_time(0)))

    robot.rig.spin_until(is_known, "TF has the mug")
    found = buffer.lookup_transform("camera", "sam2_node/mug", rclpy_time(0)).transform.translation
    assert (found.x, found.y, found.z) == (0.1, 0.0, 2.0)
    listener.unregister()


def rclpy_time(nanoseconds: int) -> Any:
    from rclpy.time import Time

    return Time(nanoseconds=nanoseconds)


# vision_msgs ---------------------------------------------------------------------------------------------------------


def detections(msg: Any, header: Header, **boxes: tuple[float, float, float, float]) -> Any:
    """A ``Detection2DArray`` of a detector: a box (x0, y0, x1, y1) of each class."""
    array = msg.Detection2DArray(header=header)
    for class_id, (x0, y0, x1, y1) in boxes.items():
        result = msg.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = class_id, 0.9
        found = msg.Detection2D(header=header, results=[result])
        found.bbox.center.position.x, found.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        found.bbox.size_x, found.bbox.size_y = x1 - x0, y1 - y0
        array.detections.append(found)
    return array


def test_a_detectors_boxes_become_objects_and_objects_detections(make_ros_rig: Callable[..., Any]) -> None:
    real("vision_msgs")
    from vision_msgs import msg

    rig = make_ros_rig(detection_mode="add", detection_classes="person")
    robot = CalibratedCamera(rig)
    detector = rig.publisher(msg.Detection2DArray, "detections")
    seen = rig.collect(msg.Detection2DArray, "detections")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.show(5.0)
    detector.publish(detections(msg, robot.header(5.0), chair=(1.0, 1.0, 9.0, 9.0), person=(12.0, 8.0, 20.0, 16.0)))
    rig.spin_until(lambda: rig.tracker.object_ids == ("object_1",), "the person is tracked, and no chair")
    stamps_s = iter(range(6, 1000))

    def came() -> bool:
        robot.show(next(stamps_s))
        return any(message.detections for message in seen)

    rig.spin_until(came, "the objects come as detections")
    message = next(message for message in seen if message.detections)
    (found,) = message.detections
    assert stamp_to_ns(message.header.stamp) % SECOND == 0 and message.header.frame_id == "camera"
    assert found.header == message.header
    assert (found.id, found.results[0].hypothesis.class_id) == ("object_1", "person")
    assert found.results[0].hypothesis.score == pytest.approx(0.9)
    x0, y0, x1, y1 = rig.node._session.view.objects[0].tracked.box_xyxy
    assert (found.bbox.center.position.x, found.bbox.center.position.y) == ((x0 + x1) / 2, (y0 + y1) / 2)
    assert (found.bbox.size_x, found.bbox.size_y) == (x1 - x0, y1 - y0)
    labels = rig.collect(msg.LabelInfo, "label_info", latched)  # by somebody who came later
    rig.spin_until(lambda: bool(labels), "which label is what")
    assert [(each.class_id, each.class_name) for each in labels[-1].class_map] == [(1, "person")]
    assert labels[-1].threshold == 0.5


# cv_bridge -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bridge() -> Any:
    package = real("cv_bridge")
    pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="this cv_bridge is without its compiled part")
    return package.CvBridge()


NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
ROUNDING = 1  # of 255: cv_bridge rounds 16 bits, we take the high byte


@pytest.mark.parametrize("encoding", sorted(set(DECODERS) - {"16UC1", "8UC1", "8UC3", "8UC4"}))
def test_both_read_the_same_from_an_image(bridge: Any, encoding: str) -> None:
    decoder = DECODERS[encoding]
    values = NOISE[..., : decoder.channels].astype(decoder.dtype) * (257 if decoder.dtype == np.uint16 else 1)
    message = image_message(np.squeeze(values), encoding)
    try:
        theirs = bridge.imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:
        assert "Unrecognized image encoding" in str(error) or "Unsupported conversion" in str(error)
        assert encoding in ("nv12", "nv21", "uyvy", "yuyv"), f"{encoding}: cv_bridge used to read it"
        return
    ours = image_to_rgb(message)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= ROUNDING


@pytest.mark.parametrize("encoding", ["nv24", "8UC2", "16UC3", "32FC1", "32FC3", "64FC1", "16SC1", "what"])
def test_what_it_does_not_read_either_is_an_error_of_the_image(bridge: Any, encoding: str) -> None:
    message = image_message(NOISE.astype(np.float64), encoding)  # enough bytes for any of them
    with pytest.raises(ImageError, match=rf"{encoding!r} is not supported.*cv_bridge could not convert it either"):
        image_to_rgb(message, OtherEncodings())
