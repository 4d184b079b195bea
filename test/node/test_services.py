"""Answers of the services that do not need a node."""

from __future__ import annotations

from sam2_ros.node.services import rejected_by_image
from sam2_ros.session.objects import PromptOutcome, TrackingView


def test_who_waits_for_an_object_that_was_removed_meanwhile_hears_so() -> None:
    accepted = PromptOutcome(accepted=True, error="", object_id="mug", label=1)
    empty = TrackingView(header=None, stamp_ns=1, image_rgb=None, result=None, objects=(), frames_dropped=0)
    outcome = rejected_by_image(accepted, empty)
    assert (outcome.accepted, outcome.object_id, outcome.label) == (False, "mug", 0)
    assert "removed before an image came" in outcome.error
