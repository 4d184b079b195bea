"""Answers of the services that do not need a node."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import Point
from tiny_model import noise_frames, tiny_model

from sam2_ros.msg import Prompt
from sam2_ros.node.services import judged_by_image, read_or_reject, read_request, summarize
from sam2_ros.session.objects import ObjectRegistry, ObjectView, PromptOutcome, PromptRequest, TrackingView
from sam2_ros.srv import SegmentImage
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptAction, PromptError, TrackedMask


def test_who_waits_for_an_object_that_was_removed_meanwhile_hears_so() -> None:
    accepted = PromptOutcome(accepted=True, error="", object_id="mug", label=1)
    empty = TrackingView(header=None, stamp_ns=1, image_rgb=None, result=None, objects=(), frames_dropped=0)
    outcome = judged_by_image(accepted, empty)
    assert (outcome.accepted, outcome.object_id, outcome.label) == (False, "mug", 0)
    assert "removed before an image came" in outcome.error


def test_a_call_has_a_limited_number_of_prompts() -> None:
    prompts = [Prompt(points=[Point()], point_labels=[1])] * 257
    with pytest.raises(PromptError, match="prompts: expected at most 256 in a call, got 257"):
        read_request(SegmentImage.Request(prompts=prompts))
    assert len(read_request(SegmentImage.Request(prompts=prompts[1:])).prompts) == 256


def test_an_answer_does_not_repeat_a_name_that_is_too_long() -> None:
    rejected = read_or_reject(Prompt(object_id="x" * 10_000_000))
    assert isinstance(rejected, PromptOutcome) and not rejected.accepted
    assert rejected.object_id == "x" * 256 and len(rejected.error) < 100


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (PromptOutcome(True, "", "mug", 1), "1 of 1 prompt(s) accepted"),
        (PromptOutcome(True, "", "mug", 1, "the box is clipped"), "1 of 1 prompt(s) accepted; mug: the box is clipped"),
        (PromptOutcome(False, "empty prompt", "", 0), "0 of 1 prompt(s) accepted; a new object: empty prompt"),
    ],
)
def test_a_summary_says_what_was_changed_and_what_was_rejected(outcome: PromptOutcome, said: str) -> None:
    assert summarize([outcome]) == said


def test_an_object_is_named_once_in_an_answer() -> None:
    tracker = Tracker(tiny_model(), buffer_frames=3)
    registry = ObjectRegistry(tracker)
    click = {"points_xy": np.array([[20, 20]], np.float32), "point_labels": np.array([1], np.int32)}
    assert registry.accept_prompts([PromptRequest("girl", **click)], (48, 80))[0].accepted
    tracker.step(noise_frames(1, 48, 80)[0])
    for action in (PromptAction.UNDO, PromptAction.ADD, PromptAction.REFINE):
        said = summarize([*registry.accept_prompts([PromptRequest("girl", action=action)], (48, 80))])
        assert said.count("girl: ") == 1, said


def test_a_box_that_is_clipped_at_once_is_said_in_the_answer() -> None:
    tracker = Tracker(tiny_model())
    tracker.step(noise_frames(1, 48, 80)[0])
    request = PromptRequest("mug", box_xyxy=np.array([-5, 5, 40, 40], np.float32))
    (outcome,) = ObjectRegistry(tracker).accept_prompts([request], (48, 80))
    assert outcome.accepted and "mug: the box" in summarize([outcome]) and "clipped" in outcome.note


def test_what_the_first_image_changed_is_said_to_who_waits_for_it() -> None:
    accepted = PromptOutcome(accepted=True, error="", object_id="mug", label=1)
    mask = np.zeros((4, 4), np.bool_)
    tracked = TrackedMask("mug", 1, ObjectState.TRACKED, 0.9, 0.9, mask, 0, None, None)
    result = FrameResult(0, (tracked,), mask.astype(np.uint8), 1.0, notes=(("mug", "the box is clipped"),))
    view = TrackingView(None, 1, np.zeros((4, 4, 3), np.uint8), result, (ObjectView(tracked, "", 1, 1),), 0)
    assert judged_by_image(accepted, view).note == "the box is clipped"
