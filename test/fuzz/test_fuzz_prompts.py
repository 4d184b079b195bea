"""Prompts of every kind through the path of ``~/add_objects``: taken, or rejected with a reason and nothing changed."""

from __future__ import annotations

from contextlib import closing

import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image
from session_rig import SessionRig, click
from snapshots import session_snapshot
from strange_messages import check_serialises, images, prompts
from tiny_model import noise_frames, tiny_model

from sam2_ros.model.sam2 import SAM2
from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import outcome_to_message, view_to_message
from sam2_ros.node.services import fill_response, read_or_reject, read_request
from sam2_ros.session.objects import PromptOutcome
from sam2_ros.srv import SegmentImage
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptError

FRAMES = noise_frames(8)
STAMPS = (Time(sec=10), Time(sec=10, nanosec=100_000_000))


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model()


def a_rig(model: SAM2, *, shown: int) -> SessionRig:
    """Two objects and so many images."""
    rig = SessionRig(Tracker(model, buffer_frames=3))
    assert all(outcome.accepted for outcome in rig.prompt(click("mug"), click("", x=30)))
    for index in range(shown):
        show(rig, index)
    return rig


def show(rig: SessionRig, index: int) -> None:
    """The next image: it is processed, and what comes of it can be sent."""
    rig.offer_pixels(FRAMES[index], stamp_s=10 + 0.1 * index)
    rig.settle()
    stats = rig.session.stats()
    assert (stats.failed, stats.processed) == (0, index + 1), stats.last_error
    check_serialises(view_to_message(rig.published[-1], with_masks=True))


def answer(rig: SessionRig, message: Prompt) -> PromptOutcome:
    read = read_or_reject(message)
    return read if isinstance(read, PromptOutcome) else rig.prompt(read)[0]


@given(message=prompts(STAMPS), shown=st.integers(0, 2))
def test_a_prompt_is_taken_or_rejected_with_nothing_changed(model: SAM2, message: Prompt, shown: int) -> None:
    with closing(a_rig(model, shown=shown)) as rig:
        before = session_snapshot(rig.session)
        outcome = answer(rig, message)
        check_serialises(outcome_to_message(outcome))
        assert outcome.accepted == (outcome.error == "") == (outcome.label > 0)
        if not outcome.accepted:
            assert session_snapshot(rig.session) == before
        show(rig, shown)
        assert rig.prompt(click("good", x=20))[0].accepted
        show(rig, shown + 1)
        there = {item.tracked.object_id for item in rig.session.view.objects}
        # One that was taken before the first image may not fit it; then all that waited for its object goes with it.
        misfits = {object_id for view in rig.published for object_id, _ in view.result.rejected}
        assert misfits <= ({outcome.object_id} if outcome.accepted and not shown else set())
        assert {"mug", "object_1", "good"} <= there | misfits


@given(messages=st.lists(prompts(STAMPS), min_size=2, max_size=6))
def test_many_prompts_in_a_row(model: SAM2, messages: list[Prompt]) -> None:
    with closing(a_rig(model, shown=2)) as rig:
        for message in messages:
            before = session_snapshot(rig.session)
            if not answer(rig, message).accepted:
                assert session_snapshot(rig.session) == before
        show(rig, 2)
        show(rig, 3)
        labels = [item.tracked.label for item in rig.session.view.objects]
        assert labels == sorted(set(labels))


@given(image=images(size=(48, 80)), asked=st.lists(prompts(), max_size=2), multimask=st.booleans())
def test_segmenting_an_image_leaves_the_tracked_objects_alone(
    model: SAM2, image: Image, asked: list[Prompt], multimask: bool
) -> None:
    with closing(a_rig(model, shown=1)) as rig:
        before = session_snapshot(rig.session)
        request = SegmentImage.Request(image=image, prompts=asked, multimask=multimask)
        try:
            response = SegmentImage.Response()
            fill_response(response, rig.session.segment(read_request(request)).result(20))
            check_serialises(response)
            assert len(response.masks) == len(asked) * (3 if multimask else 1)
        except PromptError as error:
            assert str(error)
        rig.settle()
        assert session_snapshot(rig.session) == before
        show(rig, 1)
