"""Settings in seconds: stamps of another clock, or of the far future, neither end an object nor bring it back."""

from __future__ import annotations

import pytest
from red_network import LEFT, RIGHT, RedNetwork, red_frame

from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, Scene

CLICK = {"points": [[34, 34]], "labels": [1]}  # on LEFT
TRACKED, OCCLUDED, LOST = ObjectState.TRACKED, ObjectState.OCCLUDED, ObjectState.LOST


@pytest.mark.parametrize(
    ("stamps_s", "times_s", "states"),
    [
        ((11.0, 12.0, 13.5), None, (OCCLUDED, OCCLUDED, LOST)),
        ((11.0, 3600.0, 12.0, 13.5), (11.0, 11.0, 12.0, 13.5), (OCCLUDED, OCCLUDED, OCCLUDED, LOST)),
        ((11.0, 500.0, 12.0, 501.0), (11.0, 11.0, 12.0, 12.0), (OCCLUDED,) * 4),
    ],
    ids=["one clock", "an image from the future", "two clocks in turn"],
)
def test_an_object_is_lost_after_seconds_that_have_passed(
    stamps_s: tuple[float, ...], times_s: tuple[float, ...] | None, states: tuple[ObjectState, ...]
) -> None:
    tracker = Tracker(RedNetwork(), lost_after_frames=1000, lost_after_s=3.0)
    tracker.add_prompt("mug", **CLICK)
    assert tracker.step(red_frame(LEFT), 10.0)["mug"].state is TRACKED
    found = [tracker.step(red_frame(), *each)["mug"].state for each in zip(stamps_s, times_s or stamps_s, strict=True)]
    assert tuple(found) == states


def test_a_camera_is_not_frozen_because_of_one_stamp_of_the_future() -> None:
    tracker = Tracker(RedNetwork(), scene_changes=True)
    image = red_frame(LEFT, RIGHT)
    scenes = [tracker.step(image, *each).scene for each in ((10.0, 10.0), (10.1, 10.1), (3600.0, 10.1), (12.5, 12.5))]
    assert scenes == [Scene.STEADY, Scene.STEADY, Scene.STEADY, Scene.FROZEN]
