"""The floors: holding still holds still, and flow follows what moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam2_ros.evaluation.metrics import region_similarity
from sam2_ros.evaluation.trackers import FlowTracker, HoldTracker, tracker_by_name
from sam2_ros.tracking.types import ObjectState, PromptError


def moving_square(frames: int, step_px: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A textured square that moves to the right over a smooth background: images and masks."""
    rng = np.random.default_rng(0)
    background = cv2.resize(rng.integers(0, 120, (8, 12), np.uint8), (192, 128), interpolation=cv2.INTER_CUBIC)
    texture = cv2.GaussianBlur(rng.integers(120, 256, (40, 40), np.uint8), (0, 0), 1.5)
    images, masks = [], []
    for index in range(frames):
        image, mask = background.copy(), np.zeros((128, 192), bool)
        x0 = 30 + index * step_px
        image[40:80, x0 : x0 + 40] = texture
        mask[40:80, x0 : x0 + 40] = True
        images.append(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))
        masks.append(mask)
    return images, masks


def test_hold_keeps_the_first_mask() -> None:
    images, masks = moving_square(4, step_px=3)
    tracker = HoldTracker()
    label = tracker.add_prompt("square", mask=masks[0])
    results = [tracker.step(image) for image in images]
    assert [result.frame_index for result in results] == [0, 1, 2, 3]
    for result in results:
        np.testing.assert_array_equal(result["square"].mask, masks[0])
        np.testing.assert_array_equal(result.label_image == label, masks[0])
        assert result["square"].box_xyxy == (30, 40, 70, 80)


def test_flow_follows_a_moving_square_where_holding_loses_it() -> None:
    images, masks = moving_square(8, step_px=3)
    tracker = FlowTracker()
    tracker.add_prompt("square", mask=masks[0])
    for image in images:
        result = tracker.step(image)
    assert region_similarity(masks[0], masks[-1]) < 0.35
    assert region_similarity(result["square"].mask, masks[-1]) > 0.85


@pytest.mark.parametrize("make_tracker", [HoldTracker, FlowTracker])
def test_object_that_comes_later_is_taken_on_its_frame(make_tracker: type) -> None:
    images, masks = moving_square(3, step_px=1)
    tracker = make_tracker()
    assert tracker.step(images[0]).objects == ()
    assert tracker.add_prompt("first", mask=masks[1]) == 1
    assert tracker.add_prompt("second", mask=~masks[1]) == 2
    result = tracker.step(images[1])
    np.testing.assert_array_equal(result["first"].mask, masks[1])
    np.testing.assert_array_equal(result["second"].mask, ~masks[1])
    tracker.reset()
    assert tracker.step(images[2]).objects == ()


def test_overlap_in_the_label_image_goes_to_the_earlier_object() -> None:
    tracker = HoldTracker()
    tracker.add_prompt("whole", mask=np.ones((2, 2), bool))
    tracker.add_prompt("part", mask=np.array([[True, False], [False, False]]))
    result = tracker.step(np.zeros((2, 2, 3), np.uint8))
    assert (result.label_image == 1).all()
    assert result["part"].area_px == 1


def test_empty_mask_is_an_object_that_is_not_visible() -> None:
    tracker = HoldTracker()
    tracker.add_prompt("gone", mask=np.zeros((2, 2), bool))
    tracked = tracker.step(np.zeros((2, 2, 3), np.uint8))["gone"]
    assert (tracked.state, tracked.box_xyxy, tracked.area_px) == (ObjectState.OCCLUDED, None, 0)


def test_click_is_rejected() -> None:
    with pytest.raises(PromptError, match="needs the true mask"):
        FlowTracker().add_prompt("a", points=np.zeros((1, 2)), labels=np.ones(1))


def test_mask_of_another_size_is_rejected() -> None:
    tracker = HoldTracker()
    tracker.add_prompt("a", mask=np.ones((2, 3), bool))
    with pytest.raises(PromptError, match=r"\(2, 3\).*\(4, 4\)"):
        tracker.step(np.zeros((4, 4, 3), np.uint8))


def test_floors_have_names_and_take_no_checkpoint() -> None:
    assert isinstance(tracker_by_name("hold"), HoldTracker)
    assert isinstance(tracker_by_name("flow"), FlowTracker)
    with pytest.raises(ValueError, match="has no weights"):
        tracker_by_name("flow", checkpoint="some.pt")  # type: ignore[arg-type]


@pytest.mark.parametrize("make_tracker", [HoldTracker, FlowTracker])
def test_a_video_that_changes_size_is_rejected(make_tracker: type) -> None:
    tracker = make_tracker()
    tracker.add_prompt("a", mask=np.ones((8, 9), bool))
    tracker.step(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="needs one size"):
        tracker.step(np.zeros((7, 9, 3), np.uint8))
