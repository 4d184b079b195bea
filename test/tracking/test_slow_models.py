"""Prompts for images between those that a slow model processes: the nearest one is meant, and none far away."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from tiny_model import assert_same_result, noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

pytestmark = pytest.mark.numeric

HEIGHT, WIDTH = 48, 80
FRAMES = noise_frames(10, HEIGHT, WIDTH)
CLICK = {"points": [[20, 20]], "labels": [1]}
SLOW_S = (100.0, 102.0, 104.1, 106.0, 108.0)  # a model that needs two seconds for an image


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model(seed=4)


def shown(model: SAM2, stamps_s: Sequence[float], **settings: float) -> Tracker:
    """A tracker that has seen an image at each of these times."""
    tracker = Tracker(model, buffer_frames=10, **settings)
    for image, stamp_s in zip(FRAMES, stamps_s, strict=False):
        tracker.step(image, stamp_s)
    return tracker


@pytest.mark.parametrize(("stamp_s", "frame"), [(100.9, 0), (101.1, 1), (103.1, 2), (105.0, 2), (107.4, 4)])
def test_an_image_between_two_of_a_slow_model_means_the_nearest(model: SAM2, stamp_s: float, frame: int) -> None:
    tracker = shown(model, SLOW_S)
    tracker.add_prompt("mug", **CLICK, stamp_s=stamp_s)
    tracker.step(FRAMES[5], 110.0)
    assert list(tracker._state.tracks["mug"].conditioning) == [frame]


@pytest.mark.parametrize(("stamp_s", "frame"), [(108.6, 4), (108.9, 4), (109.2, 5), (110.0, 5)])
def test_a_prompt_that_comes_before_its_image_waits_for_the_nearest(model: SAM2, stamp_s: float, frame: int) -> None:
    tracker = shown(model, SLOW_S)
    tracker.add_prompt("mug", **CLICK, stamp_s=stamp_s)
    result = tracker.step(FRAMES[5], 110.0)
    assert not result.rejected and result["mug"].state is not ObjectState.PENDING
    assert list(tracker._state.tracks["mug"].conditioning) == [frame]


def test_it_is_as_if_the_prompt_had_been_for_that_image(model: SAM2) -> None:
    results = []
    for meant in ({"stamp_s": 108.7}, {"frame_index": 4}):
        tracker = shown(model, SLOW_S)
        tracker.add_prompt("mug", **CLICK, **meant)
        tracker.add_prompt("mug", points=[[60, 30]], labels=[0], action=PromptAction.REFINE, **meant)
        results += [[tracker.step(image, 110.0 + 2 * later) for later, image in enumerate(FRAMES[5:8])]]
    for ours, expected in zip(*results, strict=True):
        assert_same_result(ours, expected)


def test_a_prompt_is_clipped_to_the_image_that_it_turns_out_to_be_for(
    model: SAM2, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = shown(model, SLOW_S)
    with caplog.at_level(logging.INFO, logger="sam2_ros"):
        tracker.add_prompt("mug", box=[60, 30, 70, 40], stamp_s=108.6, frame_size=(HEIGHT, WIDTH))
        small = noise_frames(1, 24, 40)[0]  # in the image that comes it would lie outside
        result = tracker.step(small, 110.0)
    assert not result.rejected and list(tracker._state.tracks["mug"].conditioning) == [4]


@pytest.mark.parametrize(
    ("stamps_s", "stamp_s", "why"),
    [
        (SLOW_S[:2], 101.0, "of a single gap nobody knows whether it is a pause"),
        ((*SLOW_S, 128.0), 115.0, "a pause of a slow model's camera"),
        ((1.0, 1.1, 1.2, 4.4, 4.5), 2.8, "a pause of a fast one's"),
        ((0.5, 20.0, 40.0, 60.0), 33.0, "more than five times the slop"),
        ((5.0, 100.0, 5.1, 100.1, 5.2, 100.2), 6.0, "two clocks in turn are no slow model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_far_away_are_not_meant(model: SAM2, stamps_s: Sequence[float], stamp_s: float, why: str) -> None:
    tracker = shown(model, stamps_s)
    with pytest.raises(PromptError, match="image was taken"):
        tracker.add_prompt("mug", **CLICK, stamp_s=stamp_s)
    assert tracker.object_ids == (), why


@pytest.mark.parametrize(("slop_s", "is_accepted"), [(0.0, False), (0.1, False), (0.3, True)])
def test_the_slop_bounds_it(model: SAM2, slop_s: float, is_accepted: bool) -> None:
    tracker = shown(model, SLOW_S, stamp_slop_s=slop_s)
    for stamp_s in (103.1, 108.8):
        name = f"at {stamp_s}"
        try:
            tracker.add_prompt(name, **CLICK, stamp_s=stamp_s)
        except PromptError:
            assert not is_accepted
    rejected = [object_id for object_id, _ in tracker.step(FRAMES[5], 110.0).rejected]
    assert tracker.object_ids == (("at 103.1", "at 108.8") if is_accepted else ())
    assert rejected == ([] if is_accepted else ["at 108.8"])
