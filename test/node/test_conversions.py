"""Messages to numpy and back, with small images typed out."""

from __future__ import annotations

import math
import struct
import sys

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from image_messages import image_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sam2_ros.image_io.encodings import ImageError, image_to_rgb
from sam2_ros.msg import Prompt, TrackedObject
from sam2_ros.node import conversions
from sam2_ros.node.conversions import array_to_image, image_to_labels, label_image_to_message, read_prompt
from sam2_ros.session.objects import ObjectView, PromptAction, PromptOutcome, TrackingView
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptError, TrackedMask

RGB = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], dtype=np.uint8)  # 2 x 2 pixels
GRAY = np.array([[10, 20], [30, 40]], dtype=np.uint8)

# What the bits of an integer are as a float64. No arithmetic: a processor may flush it to zero.
INTEGER_240 = struct.unpack("<d", struct.pack("<q", 240))[0]


def test_array_to_image_and_back() -> None:
    header = Header(frame_id="camera")
    message = array_to_image(RGB[:, ::-1], "rgb8", header)  # not contiguous
    assert (message.header.frame_id, message.height, message.width, message.step) == ("camera", 2, 2, 6)
    np.testing.assert_array_equal(image_to_rgb(message), RGB[:, ::-1])


def test_label_images() -> None:
    small = label_image_to_message(GRAY, Header())
    assert (small.encoding, small.step, bytes(small.data)) == ("mono8", 2, bytes([10, 20, 30, 40]))
    large = label_image_to_message(np.array([[1, 256]], dtype=np.uint16), Header())
    assert (large.encoding, large.step, large.is_bigendian) == ("mono16", 4, int(sys.byteorder == "big"))
    assert np.frombuffer(large.data, dtype=np.uint16).tolist() == [1, 256]


def test_stamps() -> None:
    stamp = conversions.ns_to_stamp(3_000_000_005)
    assert (stamp.sec, stamp.nanosec) == (3, 5)
    assert conversions.stamp_to_ns(stamp) == 3_000_000_005


def test_a_stamp_with_too_many_nanoseconds_stays_one_that_a_message_can_hold() -> None:
    stamp = Time(sec=2**31 - 1, nanosec=2**32 - 1)
    assert conversions.ns_to_stamp(conversions.stamp_to_ns(stamp)) == Time(sec=2**31 - 1, nanosec=999_999_999)


def test_read_prompt_with_everything() -> None:
    request = read_prompt(
        Prompt(
            object_id="mug",
            class_id="cup",
            action=Prompt.REFINE,
            points=[Point(x=1.0, y=2.0, z=9.0), Point(x=3.0, y=4.0)],
            point_labels=[1, 0],
            box_xyxy=[0.0, 1.0, 2.0, 3.0],
            mask=image_message(np.array([[0, 1], [255, 0]], dtype=np.uint8), "8UC1", padding=3),
            normalized=True,
        )
    )
    assert (request.object_id, request.class_id, request.normalized) == ("mug", "cup", True)
    assert request.action is PromptAction.REFINE
    assert request.points_xy is not None and request.points_xy.tolist() == [[1, 2], [3, 4]]
    assert request.point_labels is not None and request.point_labels.tolist() == [1, 0]
    assert request.box_xyxy is not None and request.box_xyxy.tolist() == [0, 1, 2, 3]
    assert request.mask is not None and request.mask.tolist() == [[False, True], [True, False]]


def test_read_prompt_with_nothing_is_left_to_the_tracker_to_reject() -> None:
    request = read_prompt(Prompt())
    assert request.points_xy is request.point_labels is request.box_xyxy is request.mask is None


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(action=9), "unknown action 9; expected ADD=0"),
        (Prompt(object_id="x" * 257), "object_id: expected at most 256 characters, got 257"),
        (Prompt(object_id="x" * 256, class_id="y" * 5000), "class_id: expected at most 256 characters, got 5000"),
        (Prompt(points=[Point()], point_labels=[]), "1 points and 0 labels"),
        (Prompt(box_xyxy=[1.0, 2.0, 3.0]), "box_xyxy must be empty or x0, y0, x1, y1; got 3 values"),
        (
            Prompt(points=[Point(x=320.0, y=INTEGER_240)], point_labels=[1]),
            r"points: got 1\.18.*e-321.*Point\(x=320\.0\)",
        ),
        (Prompt(box_xyxy=[1.0, 2.0, 3.0, 1e-44]), "box_xyxy: got 9.*e-45.*give floats"),
        (Prompt(mask=image_message(GRAY, "mono16")), "must be mono8 or 8UC1, got 'mono16'"),
        (Prompt(mask=image_message(GRAY, "mono8", cut=1)), "mask cannot be read: image data too short"),
        (Prompt(mask=Image(width=2, encoding="mono8")), "mask cannot be read: image of size zero"),
    ],
)
def test_prompts_that_make_no_sense(prompt: Prompt, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        read_prompt(prompt)


def test_action_and_state_values_are_those_of_the_messages() -> None:
    for action in PromptAction:
        assert getattr(Prompt, action.name) == action
    for state in ObjectState:
        assert getattr(TrackedObject, state.name) == state


def test_outcome_to_message() -> None:
    message = conversions.outcome_to_message(PromptOutcome(accepted=False, error="why", object_id="mug", label=0))
    assert (message.accepted, message.error, message.object_id, message.label) == (False, "why", "mug", 0)


def a_view(header: Header) -> TrackingView:
    mask = np.zeros((4, 5), dtype=np.bool_)
    mask[1, 2] = mask[1, 3] = mask[2, 2] = True
    visible = TrackedMask("mug", 1, ObjectState.TRACKED, 0.75, 0.5, mask, 3, (2, 1, 4, 3), (7 / 3, 4 / 3))
    hidden = TrackedMask("bowl", 2, ObjectState.LOST, 0.25, 0.0, np.zeros_like(mask), 0, None, None)
    result = FrameResult(7, (visible, hidden), mask.astype(np.uint8), 12.5)
    objects = (ObjectView(visible, "cup", 1_000_000_000, 2_000_000_001), ObjectView(hidden, "", 0, 0))
    stamp_ns = conversions.stamp_to_ns(header.stamp)
    return TrackingView(header, stamp_ns, np.zeros((4, 5, 3), dtype=np.uint8), result, objects, frames_dropped=3)


def test_view_to_message() -> None:
    header = Header(frame_id="camera", stamp=conversions.ns_to_stamp(5_000_000_000))
    message = conversions.view_to_message(a_view(header), with_masks=True, now_ns=5_040_000_000)
    assert message.header == header
    assert (message.frame_index, message.frames_dropped, message.inference_ms, message.age_ms) == (7, 3, 12.5, 40.0)
    visible, hidden = message.objects
    assert (visible.object_id, visible.label, visible.class_id) == ("mug", 1, "cup")
    assert (visible.state, visible.score, visible.mask_quality, visible.area) == (TrackedObject.TRACKED, 0.75, 0.5, 3)
    assert (visible.roi.x_offset, visible.roi.y_offset, visible.roi.width, visible.roi.height) == (2, 1, 2, 2)
    assert (visible.centroid.x, visible.centroid.y) == pytest.approx((7 / 3, 4 / 3))
    assert (visible.first_seen.sec, visible.last_seen.nanosec) == (1, 1)
    assert (visible.mask.encoding, visible.mask.width, visible.mask.height, visible.mask.step) == ("mono8", 2, 2, 2)
    assert list(visible.mask.data) == [255, 255, 255, 0]
    assert (hidden.state, hidden.area, hidden.roi.width) == (TrackedObject.LOST, 0, 0)
    assert math.isnan(hidden.centroid.x) and math.isnan(hidden.centroid.y)
    assert len(hidden.mask.data) == 0 and not hidden.has_pose


def test_view_to_message_without_masks_and_without_a_stamp() -> None:
    message = conversions.view_to_message(a_view(Header()), with_masks=False, now_ns=5_040_000_000)
    assert message.age_ms == 0.0  # an age of 50 years would help nobody
    assert len(message.objects[0].mask.data) == 0


def test_view_before_the_first_image() -> None:
    message = conversions.view_to_message(TrackingView(None, 0, None, None, (), 0), with_masks=True)
    assert (message.header.stamp.sec, message.frame_index, len(message.objects)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("encoding", "data", "step", "is_bigendian"),
    [
        ("mono8", bytes([1, 2, 9, 3, 4, 9]), 3, 0),  # a padded row
        ("mono16", bytes([1, 0, 2, 0, 3, 0, 4, 0]), 4, 0),
        ("mono16", bytes([0, 1, 0, 2, 0, 3, 0, 4]), 4, 1),
    ],
)
def test_label_images_are_read_as_they_were_meant(encoding: str, data: bytes, step: int, is_bigendian: int) -> None:
    message = Image(height=2, width=2, encoding=encoding, step=step, is_bigendian=is_bigendian, data=data)
    assert image_to_labels(message).tolist() == [[1, 2], [3, 4]]


def test_a_label_image_of_another_encoding_is_rejected() -> None:
    with pytest.raises(ImageError, match="mono8 or mono16, got 'rgb8'"):
        image_to_labels(Image(encoding="rgb8", width=1, height=1))
