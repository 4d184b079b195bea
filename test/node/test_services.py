"""Answers of the services that do not need a node."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import Point

from sam2_ros.msg import Prompt
from sam2_ros.node.services import read_request, rejected_by_image
from sam2_ros.session.objects import PromptOutcome, TrackingView
from sam2_ros.srv import SegmentImage
from sam2_ros.tracking.types import PromptError


def test_who_waits_for_an_object_that_was_removed_meanwhile_hears_so() -> None:
    accepted = PromptOutcome(accepted=True, error="", object_id="mug", label=1)
    empty = TrackingView(header=None, stamp_ns=1, image_rgb=None, result=None, objects=(), frames_dropped=0)
    outcome = rejected_by_image(accepted, empty)
    assert (outcome.accepted, outcome.object_id, outcome.label) == (False, "mug", 0)
    assert "removed before an image came" in outcome.error


def test_a_call_has_a_limited_number_of_prompts() -> None:
    prompts = [Prompt(points=[Point()], point_labels=[1])] * 257
    with pytest.raises(PromptError, match="prompts: expected at most 256 in a call, got 257"):
        read_request(SegmentImage.Request(prompts=prompts))
    assert len(read_request(SegmentImage.Request(prompts=prompts[1:])).prompts) == 256
