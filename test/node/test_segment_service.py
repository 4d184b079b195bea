"""``~/segment_image`` over real middleware, in this process, with a small random network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tiny_model import noise_frames

from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import array_to_image, ns_to_stamp
from sam2_ros.srv import ListObjects, SegmentImage
from sam2_ros.tracking.image_predictor import ImagePredictor

PIXELS = noise_frames(1, 48, 80)[0]
HEADER = Header(frame_id="still", stamp=ns_to_stamp(5_000_000_000))


def click(x: float = 20.0, y: float = 30.0) -> Prompt:
    return Prompt(points=[Point(x=x, y=y)], point_labels=[1])


def segment(rig: Any, *prompts: Prompt, **fields: Any) -> SegmentImage.Response:
    return rig.call(SegmentImage, "segment_image", prompts=list(prompts), timeout_s=20.0, **fields)


def test_masks_are_those_of_the_image_predictor(ros_rig: Any) -> None:
    response = segment(ros_rig, click(), image=array_to_image(PIXELS, "rgb8", HEADER), multimask=True)
    assert response.success and response.message == "3 mask(s)"
    assert (response.header, response.height, response.width) == (HEADER, 48, 80)
    predictor: ImagePredictor = ros_rig.tracker.image_predictor()
    predictor.set_image(PIXELS)
    expected = predictor.predict([(20, 30)], [1]).ordered()
    for message, mask, score in zip(response.masks, expected.masks, expected.scores, strict=True):
        assert (message.prompt_index, message.area) == (0, int(mask.sum()))
        assert message.score == pytest.approx(score)
        roi, full = message.roi, np.zeros((48, 80), bool)
        cropped = np.frombuffer(message.mask.data, np.uint8).reshape(message.mask.height, message.mask.width)
        assert set(np.unique(cropped)) <= {0, 255} and message.mask.header == HEADER
        full[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width] = cropped != 0
        assert np.array_equal(full, mask)
    assert ros_rig.call(ListObjects, "list_objects").objects.objects == []


def test_the_newest_camera_image_is_taken_without_one(ros_rig: Any) -> None:
    rejected = segment(ros_rig, click())
    assert not rejected.success and "no camera image has been processed yet" in rejected.message
    label_images = ros_rig.collect(Image, "label_image")
    camera = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    camera.publish(array_to_image(PIXELS, "rgb8", HEADER))
    ros_rig.spin_until(lambda: bool(label_images), "the image is processed")
    response = segment(ros_rig, click(), click(60.0, 10.0))
    assert response.success and response.header == HEADER
    assert [mask.prompt_index for mask in response.masks] == [0, 1]


def test_everything_answers(ros_rig: Any) -> None:
    response = segment(ros_rig, image=array_to_image(PIXELS, "rgb8", HEADER), everything=True)
    assert response.success and (response.height, response.width) == (48, 80), response.message
    # With the official thresholds nothing that a random network says is good enough.
    assert response.message == f"{len(response.masks)} mask(s)"


def test_a_busy_model_is_waited_for_no_longer_than_asked(ros_rig: Any) -> None:
    camera = ros_rig.publisher(Image, "image", qos_profile_sensor_data)
    ros_rig.tracker.gate.clear()
    camera.publish(array_to_image(PIXELS, "rgb8", HEADER))
    ros_rig.spin_until(ros_rig.tracker.in_step.is_set, "the model is at work")
    image = array_to_image(PIXELS, "rgb8", HEADER)
    rejected = ros_rig.call(SegmentImage, "segment_image", image=image, prompts=[click()], timeout_s=0.05)
    assert not rejected.success and "not done within 0.05 s" in rejected.message
    ros_rig.tracker.gate.set()
    assert segment(ros_rig, click(), image=image).success


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"prompts": []}, "expected either prompts or everything"),
        ({"prompts": [click()], "everything": True}, "expected either prompts or everything"),
        ({"prompts": [click(), Prompt(points=[Point()])]}, "prompts[1]: expected one point label per point"),
        ({"prompts": [click(x=99.0)]}, "0 <= x < 80"),
        ({"prompts": [click()], "timeout_s": -1.0}, "timeout_s must be 0"),
        ({"prompts": [click()], "image": Image(width=4, height=4, encoding="rgb8", step=12)}, "data too short"),
        (
            {"prompts": [click()], "image": Image(width=4, height=4, encoding="odd", step=12)},
            "the image cannot be read",
        ),
    ],
)
def test_bad_requests_are_rejected_with_the_reason(ros_rig: Any, fields: dict[str, Any], why: str) -> None:
    image = array_to_image(PIXELS, "rgb8", HEADER)
    response = ros_rig.call(SegmentImage, "segment_image", **{"image": image, "timeout_s": 20.0, **fields})
    assert not response.success and why in response.message
    assert (len(response.masks), response.width, response.height) == (0, 0, 0)


def test_a_box_that_is_clipped_is_said(ros_rig: Any) -> None:
    boxes = [Prompt(box_xyxy=[10.0, 10.0, 40.0, 40.0]), Prompt(box_xyxy=[-5.0, 10.0, 90.0, 40.0])]
    response = segment(ros_rig, *boxes, image=array_to_image(PIXELS, "rgb8", HEADER))
    clipped = "prompts[1]: the box [-5.0, 10.0, 90.0, 40.0] reaches outside the image and is clipped to [0.0,"
    assert response.success and response.message.startswith(f"2 mask(s); {clipped}")
