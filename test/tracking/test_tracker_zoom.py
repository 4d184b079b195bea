"""With zoom an object is looked for in a window round its last mask: to the pixel, now and later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from red_network import LEFT, RIGHT, SIZE_HW, RedNetwork, mask_of, moved, red_frame, window_of, zooming
from tiny_model import assert_same_result, noise_frames, tiny_model

from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptAction
from sam2_ros.tracking.zoom.window import Window

pytestmark = pytest.mark.numeric

REPLACE = PromptAction.REPLACE


@pytest.fixture(scope="module")
def network() -> RedNetwork:
    return RedNetwork()


def test_masks_land_on_the_pixels_that_the_network_saw(network: RedNetwork) -> None:
    """A window of as many pixels as the network's masks have: what comes back is exact."""
    tracker = zooming(network, red_frame(LEFT))
    for x, y in ((0, 0), (1, 0), (0, 3), (-2, -1), (4, 3)):
        box = moved(LEFT, x, y)
        tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
        result = tracker.step(red_frame(box))
        assert result["a"].window_xyxy == (26, 25, 42, 41)
        assert np.array_equal(result["a"].mask, mask_of(box))
        assert np.array_equal(result.label_image, mask_of(box))
        assert result["a"].box_xyxy == box and result["a"].area_px == 64
        assert result["a"].low_res_logits is not None and result["a"].low_res_logits.shape == (16, 16)


def test_an_object_that_moves_is_followed(network: RedNetwork) -> None:
    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", points=[[12, 34]], labels=[1])
    for x in range(0, 80, 4):
        box = moved((8, 30, 16, 38), x, x // 3)
        found = tracker.step(red_frame(box, seed=x))["a"]
        assert found.state == ObjectState.TRACKED and found.box_xyxy is not None
        assert found.window_xyxy is not None
        assert found.window_xyxy[2] - found.window_xyxy[0] < 45
        if x >= 20:
            assert np.abs(np.subtract(found.box_xyxy, box)).max() <= 1
    assert found.window_xyxy[0] > 60


def test_an_object_that_stands_is_seen_in_the_same_pixels(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    windows = {tracker.step(red_frame(LEFT, seed=seed))["a"].window_xyxy for seed in range(5)}
    assert len(windows) == 1
    ((x0, _, x1, _),) = (window for window in windows if window is not None)
    assert 15 <= x1 - x0 <= 20


def test_each_of_two_objects_has_a_window_of_its_own(network: RedNetwork) -> None:
    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    tracker.add_prompt("b", mask=mask_of(RIGHT))
    for _ in range(8):
        result = tracker.step(red_frame(LEFT, RIGHT))
    for object_id, box in (("a", LEFT), ("b", RIGHT)):
        assert np.abs(np.subtract(result[object_id].box_xyxy, box)).max() <= 1
        assert result.label_image[box[1] + 4, box[0] + 4] == result[object_id].label


def test_clicks_boxes_and_masks_mean_the_pixels_of_the_image(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", points=[[34, 33], [26, 40]], labels=[1, 0])
    tracker.step(red_frame(LEFT))
    assert network.points_xy is not None
    np.testing.assert_allclose(network.points_xy, [[8 / 16, 8 / 16], [0, 15 / 16]], atol=1e-6)
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", box=[30, 30, 38, 42 - 1])
    tracker.step(red_frame(LEFT))
    np.testing.assert_allclose(network.points_xy, [[4 / 16, 5 / 16], [12 / 16, 1]], atol=1e-6)
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", mask=mask_of((28, 27, 32, 39)))
    assert np.array_equal(tracker.step(red_frame(LEFT))["a"].mask, mask_of((28, 27, 32, 39)))


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param({"points": [[100, 10]], "labels": [1]}, id="a click beside it"),
        pytest.param({"points": [[34, 34], [5, 70]], "labels": [1, 0]}, id="one of two clicks"),
        pytest.param({"box": [20, 20, 90, 60]}, id="a box that reaches out of it"),
        pytest.param({"mask": mask_of(RIGHT)}, id="a mask beside it"),
    ],
)
def test_a_prompt_that_the_window_does_not_hold_is_taken_in_the_whole_image(
    network: RedNetwork, prompt: dict[str, Any]
) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker.add_prompt("a", **prompt)
    result = tracker.step(red_frame(LEFT))
    assert result.rejected == () and result["a"].window_xyxy is None
    if "points" in prompt:
        assert network.points_xy is not None
        np.testing.assert_allclose(network.points_xy, np.divide(prompt["points"], SIZE_HW[::-1]), atol=1e-6)
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


@pytest.mark.parametrize(
    "prompt", [{"mask": mask_of(LEFT)}, {"box": [29, 28, 40, 40]}, {"points": [[34, 34]], "labels": [1]}]
)
def test_an_object_that_starts_is_looked_for_in_the_whole_image_and_then_in_its_window(
    network: RedNetwork, monkeypatch: pytest.MonkeyPatch, prompt: dict[str, Any]
) -> None:
    """So its first memory shows it as large as the later frames do."""
    tracker, encode, seen = Tracker(network, zoom=True), network.encode_image, []

    def counted(images_bchw: torch.Tensor) -> Any:
        features = encode(images_bchw)
        seen.append(float(features.red_b1hw.mean()))
        return features

    monkeypatch.setattr(network, "encode_image", counted)
    for start in ({}, {"action": REPLACE}):
        seen.clear()
        tracker.add_prompt("a", **prompt, **start)
        assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None
        assert len(seen) == 2 and seen[0] < 0.01 and seen[1] > 5 * seen[0]
        tracker.step(red_frame(LEFT))
        assert len(seen) == 3


def test_an_object_that_is_seen_in_the_whole_image_alone_starts_there(
    network: RedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls = network.decode_masks, []

    def absent_at_the_second(*args: Any, **options: Any) -> Any:
        calls.append(args)
        found = decode(*args, **options)
        return found if len(calls) != 2 else replace(found, object_score_logits_b1=torch.full((1, 1), -5.0))

    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", points=[[34, 34]], labels=[1])
    monkeypatch.setattr(network, "decode_masks", absent_at_the_second)
    found = tracker.step(red_frame(LEFT))["a"]
    assert len(calls) == 2 and found.state == ObjectState.TRACKED and found.window_xyxy is None
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


def test_an_object_out_of_sight_is_looked_for_in_the_whole_image(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT), lost_after_frames=2, recover_after_frames=2)
    seen = [tracker.step(red_frame())["a"] for _ in range(4)]
    assert [each.state for each in seen] == [ObjectState.OCCLUDED] * 2 + [ObjectState.LOST] * 2
    assert [each.window_xyxy is None for each in seen] == [False, True, True, True]
    found = [tracker.step(red_frame(RIGHT))["a"] for _ in range(4)]
    # Not believed in its first frame, so the second is still the whole image.
    assert [each.state for each in found] == [ObjectState.LOST] + [ObjectState.TRACKED] * 3
    assert [each.window_xyxy is None for each in found] == [True, True, False, False]
    assert found[-1].box_xyxy is not None and np.abs(np.subtract(found[-1].box_xyxy, RIGHT)).max() <= 1


def test_with_more_than_two_objects_the_whole_image_is_looked_at(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker.add_prompt("b", mask=mask_of(RIGHT))
    assert tracker.step(red_frame(LEFT, RIGHT))["a"].window_xyxy is not None
    tracker.add_prompt("c", mask=mask_of((60, 60, 70, 70)))
    for _ in range(2):
        assert {each.window_xyxy for each in tracker.step(red_frame(LEFT))} == {None}
    tracker.remove("c")
    tracker.remove("b")
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


def test_three_objects_are_tracked_as_without_zoom() -> None:
    model = tiny_model(seed=4)
    rectangle = np.zeros((48, 80), bool)
    rectangle[12:36, 20:60] = True
    prompts = {"a": {"points": [[20, 20]], "labels": [1]}, "b": {"box": [30, 10, 60, 40]}, "c": {"mask": rectangle}}
    trackers = Tracker(model, zoom=True, buffer_frames=6), Tracker(model, buffer_frames=6)
    for index, image in enumerate(noise_frames(8)):
        for tracker in trackers:
            if index == 0:
                for object_id, prompt in prompts.items():
                    tracker.add_prompt(object_id, **prompt)
            if index == 5:
                tracker.add_prompt("b", points=[[20, 20]], labels=[0], frame_index=2)
        zoomed, plain = (tracker.step(image) for tracker in trackers)
        assert_same_result(zoomed, plain)
        assert {each.window_xyxy for each in zoomed} == {None}


def test_without_zoom_nothing_looks_through_a_window(network: RedNetwork) -> None:
    tracker = Tracker(network, buffer_frames=3)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    for _ in range(4):
        assert tracker.step(red_frame(LEFT))["a"].window_xyxy is None
    assert window_of(tracker) is None
    assert all(past.frame.image_rgb is None for past in tracker._state.past.values())  # no memory for nothing
