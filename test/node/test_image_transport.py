"""Compressed images in and out, and what the graph around the image topic tells the monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sam2_ros.image_io.compressed import compressed_to_rgb
from sam2_ros.msg import TrackedObjectArray
from sam2_ros.node.conversions import array_to_image, ns_to_stamp, rgb_to_compressed
from sam2_ros.node.diagnostics import explain_silence, inspect_image_topic, is_output
from sam2_ros.node.sam2_node import Sam2Node
from sam2_ros.srv import SegmentImage

GRAY = np.full((48, 64, 3), 90, dtype=np.uint8)


def header(stamp_s: int) -> Header:
    return Header(frame_id="camera", stamp=ns_to_stamp(stamp_s * 1_000_000_000))


def test_compressed_images_are_tracked_in(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(image_transport="compressed")
    rig.start()
    assert rig.peer.count_subscribers("/image") == 0
    objects = rig.collect(TrackedObjectArray, "objects")
    images = rig.publisher(CompressedImage, "image/compressed", qos_profile_sensor_data)
    images.publish(rgb_to_compressed(GRAY, header(1)))
    rig.spin_until(lambda: bool(objects), "objects come")
    assert objects[0].header == header(1)
    assert rig.tracker.calls == ["step 90"]


def test_a_damaged_image_is_rejected_and_the_next_one_taken(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(image_transport="compressed")
    rig.start()
    objects = rig.collect(TrackedObjectArray, "objects")
    images = rig.publisher(CompressedImage, "image/compressed", qos_profile_sensor_data)
    images.publish(CompressedImage(header=header(1), format="jpeg", data=b"\xff\xd8\xff no more"))
    rig.spin_until(lambda: rig.node._session.stats().failed == 1, "the image is rejected")
    assert "compressed image is cut off" in rig.node._session.stats().last_error
    images.publish(rgb_to_compressed(GRAY, header(2)))
    rig.spin_until(lambda: bool(objects), "objects come")
    assert objects[0].header == header(2)


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_an_image_with_more_pixels_than_cameras_send_is_rejected(
    make_ros_rig: Callable[..., Any], transport: str
) -> None:
    rig = make_ros_rig(image_transport=transport, max_image_megapixels=0.01)
    rig.start()
    huge = np.full((101, 100, 3), 90, dtype=np.uint8)
    if transport == "raw":
        images = rig.publisher(Image, "image", qos_profile_sensor_data)
        images.publish(array_to_image(huge, "rgb8", header(1)))
    else:
        images = rig.publisher(CompressedImage, "image/compressed", qos_profile_sensor_data)
        images.publish(rgb_to_compressed(huge, header(1), "png"))
    rig.spin_until(lambda: rig.node._session.stats().failed == 1, "the image is rejected")
    assert "100 x 101 px, expected at most 10000 pixels" in rig.node._session.stats().last_error
    answer = rig.call(SegmentImage, "segment_image", image=array_to_image(huge, "rgb8", header(1)), everything=True)
    assert not answer.success and "100 x 101 px, expected at most 10000 pixels" in answer.message


@pytest.mark.parametrize("raw_too", [False, True])
def test_the_overlay_as_jpeg(make_ros_rig: Callable[..., Any], raw_too: bool) -> None:
    rig = make_ros_rig(jpeg_quality=50)
    rig.start()
    compressed = rig.collect(CompressedImage, "overlay/compressed")
    raw = rig.collect(Image, "overlay") if raw_too else []
    images = rig.publisher(Image, "image", qos_profile_sensor_data)
    images.publish(array_to_image(GRAY, "rgb8", header(1)))
    rig.spin_until(lambda: bool(compressed) and bool(raw) == raw_too, "the overlay comes")
    assert compressed[0].header == header(1) and "jpeg" in compressed[0].format
    np.testing.assert_allclose(compressed_to_rgb(compressed[0]), GRAY, atol=6)
    wanted = cv2.imencode(".jpg", GRAY, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    assert len(compressed[0].data) == len(wanted)


def test_the_other_transport_is_pointed_out(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig()
    rig.start()
    rig.peer.create_publisher(CompressedImage, "image/compressed", 1)
    rig.peer.create_publisher(Image, "left/sam2_node/label_image", 1)
    rig.peer.create_publisher(Image, "camera/image_raw", 1)

    def seen() -> Any:
        return inspect_image_topic(rig.node, rig.node._guard.current)

    rig.spin_until(lambda: "/camera/image_raw" in seen().other_image_topics, "the camera is seen")
    rig.spin_until(lambda: seen().other_transport == "compressed", "the compressed images are seen")
    assert seen().other_image_topics == ("/camera/image_raw",)  # nothing that a tracker publishes
    assert "but compressed images: set image_transport to that" in explain_silence(seen(), 6.0)


def test_names_for_compressed_images_are_those_to_remap_to(make_ros_rig: Callable[..., Any]) -> None:
    rig = make_ros_rig(image_transport="compressed")
    rig.peer.create_publisher(CompressedImage, "camera/image_raw/compressed", 1)

    def seen() -> Any:
        return inspect_image_topic(rig.node, rig.node._guard.current)

    rig.spin_until(lambda: bool(seen().other_image_topics), "the camera is seen")
    assert seen().name == "/image/compressed"
    assert "-r image:=/camera/image_raw," in explain_silence(seen(), 6.0)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/sam2_node/overlay", True),
        ("/left/sam2_node/label_image", True),
        ("/tracker/overlay", True),
        ("/camera/image_raw", False),
        ("/sam2_node_camera/image", False),
    ],
)
def test_outputs_of_trackers_are_no_cameras(topic: str, expected: bool) -> None:
    assert is_output(topic, "tracker") is expected


def test_a_publisher_of_another_type_is_seen(make_ros_rig: Callable[..., Any], ros_domain: int) -> None:
    rig = make_ros_rig()
    rig.start()
    context = rclpy.Context()  # a topic has one type within a context
    rclpy.init(args=[], context=context, domain_id=ros_domain)
    camera = rclpy.create_node("camera", context=context)
    camera.create_publisher(CompressedImage, "image", 1)

    def seen() -> Any:
        return inspect_image_topic(rig.node, rig.node._guard.current)

    expected = (("camera", "sensor_msgs/msg/CompressedImage"),)
    rig.spin_until(lambda: seen().other_types == expected, "the publisher is seen, and its name known")
    assert seen().publishers == ()
    assert "-r /image/compressed:=/image" in explain_silence(seen(), 6.0)
    camera.destroy_node()
    context.try_shutdown()


def test_the_advised_remapping_works(ros_domain: int, fake_tracker: Any) -> None:
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-r", "/image/compressed:=/image"], context=context, domain_id=ros_domain)
    compressed = [Parameter("image_transport", value="compressed")]
    node = Sam2Node(tracker_factory=lambda _: fake_tracker, context=context, parameter_overrides=compressed)
    node.autostart()
    assert node._image_topics()[0] == "/image" == inspect_image_topic(node, node._guard.current).name
    node.close()
    node.destroy_node()
    context.try_shutdown()
