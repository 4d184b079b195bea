"""Single images between camera images, without ROS: slices, rejections, and that tracking goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_model import noise_frames

from sam2_ros.session.objects import PromptRequest
from sam2_ros.session.segmentation import SegmentRequest, run_in_turns
from sam2_ros.session.session import Session, SessionStoppedError
from sam2_ros.tracking.types import PromptError

DEADLINE_S = 20.0
IMAGE = noise_frames(1, 48, 80)[0]
BOX = PromptRequest(box_xyxy=np.array([10, 20, 40, 44], np.float32))


def click(x: float = 20, y: float = 30, **fields: Any) -> PromptRequest:
    return PromptRequest(points_xy=np.array([[x, y]], np.float32), point_labels=np.array([1], np.int32), **fields)


def request(*prompts: PromptRequest, image: np.ndarray | None = IMAGE, **fields: Any) -> SegmentRequest:
    return SegmentRequest("its header", image, prompts, **fields)


@pytest.fixture
def published() -> list[Any]:
    return []


@pytest.fixture
def session(fake_tracker: Any, published: list[Any]) -> Iterator[Session]:
    session = Session(fake_tracker, decode=lambda message: message.pixels, publish=published.append)
    session.start()
    yield session
    fake_tracker.gate.set()
    assert session.stop(DEADLINE_S)


def offer(session: Session, stamp_s: int) -> None:
    session.offer(SimpleNamespace(header=f"header {stamp_s}", pixels=IMAGE), stamp_s * 10**9)


def test_one_mask_a_prompt_without_any_camera_image(session: Session, fake_tracker: Any) -> None:
    answer = session.segment(request(click(), BOX)).result(DEADLINE_S)
    assert (answer.header, answer.height, answer.width) == ("its header", 48, 80)
    assert [thing.prompt_index for thing in answer.things] == [0, 1]
    assert all(thing.mask.shape == (48, 80) and 0 <= thing.score <= 1 for thing in answer.things)
    assert fake_tracker.calls == [] and session.view.objects == ()


def test_three_masks_a_prompt_best_first(session: Session) -> None:
    answer = session.segment(request(click(), BOX, multimask=True)).result(DEADLINE_S)
    assert [thing.prompt_index for thing in answer.things] == [0, 0, 0, 1, 1, 1]
    scores = [thing.score for thing in answer.things]
    assert scores[:3] == sorted(scores[:3], reverse=True) and scores[3:] == sorted(scores[3:], reverse=True)


def test_normalized_coordinates_are_of_this_image(session: Session) -> None:
    (in_pixels,) = session.segment(request(click(20, 30))).result(DEADLINE_S).things
    (in_parts,) = session.segment(request(click(0.25, 0.625, normalized=True))).result(DEADLINE_S).things
    assert np.array_equal(in_pixels.mask, in_parts.mask)


def test_the_newest_camera_image(session: Session, published: list[Any]) -> None:
    with pytest.raises(PromptError, match="no camera image has been processed yet"):
        session.segment(request(click(), image=None)).result(DEADLINE_S)
    offer(session, 1)
    session.set_enabled(True).result(DEADLINE_S)
    expected = session.segment(request(click())).result(DEADLINE_S)
    answer = session.segment(request(click(), image=None)).result(DEADLINE_S)
    assert answer.header == "header 1"
    assert np.array_equal(answer.things[0].mask, expected.things[0].mask)


def test_everything_takes_a_slice_between_two_images(
    session: Session, fake_tracker: Any, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam2_ros.tracking import mask_generator
    from sam2_ros.tracking.mask_generator import GeneratorSettings

    settings = GeneratorSettings(
        points_per_side=4, points_per_batch=2, pred_iou_thresh=0, stability_score_thresh=0.01, box_nms_thresh=1
    )
    monkeypatch.setattr(mask_generator, "settings_for", lambda name: settings)
    fake_tracker.gate.clear()
    offer(session, 1)
    assert fake_tracker.in_step.wait(DEADLINE_S)
    job = session.segment(request(everything=True))
    offer(session, 2)  # waits beside the job's first slice
    done_after: list[int] = []
    job.add_done_callback(lambda _: done_after.append(len(published)))
    fake_tracker.gate.set()
    answer = job.result(DEADLINE_S)
    assert done_after == [2], "the second camera image waited for the whole job"
    assert len(answer.things) > 1 and {thing.prompt_index for thing in answer.things} == {0}
    scores = [thing.score for thing in answer.things]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (request(), r"either prompts or everything = true, got 0 prompt\(s\) and everything = false"),
        (request(click(), everything=True), r"got 1 prompt\(s\) and everything = true"),
        (request(click(), click(80, 1)), "0 <= x < 80"),
        (request(click(), PromptRequest()), r"prompts\[1\]: empty prompt"),
        (request(PromptRequest(mask=np.ones((4, 4), bool))), "mask: expected the image's size"),
        (request(click(2, 2, normalized=True)), r"prompts\[0\]: normalized points must lie in 0..1"),
    ],
)
def test_bad_requests_are_rejected_and_change_nothing(
    session: Session, fake_tracker: Any, bad: SegmentRequest, why: str
) -> None:
    with pytest.raises(PromptError, match=why):
        session.segment(bad).result(DEADLINE_S)
    assert fake_tracker.calls == []
    assert len(session.segment(request(click())).result(DEADLINE_S).things) == 1


def test_a_stopped_session_says_so(session: Session, fake_tracker: Any) -> None:
    fake_tracker.gate.clear()
    offer(session, 1)
    assert fake_tracker.in_step.wait(DEADLINE_S)
    waiting = session.segment(request(click()))
    assert not session.stop(timeout_s=0)  # still at work
    fake_tracker.gate.set()
    assert session.stop(DEADLINE_S)
    for job in (waiting, session.segment(request(click()))):
        with pytest.raises(SessionStoppedError, match="stopped"):
            job.result(DEADLINE_S)


class Queue:
    """Commands that run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], None], Future[None]]] = []

    def submit(self, run: Callable[[], None]) -> Future[None]:
        self.waiting.append((run, Future()))
        return self.waiting[-1][1]

    def run_one(self) -> None:
        run, done = self.waiting.pop(0)
        try:
            done.set_result(run())
        except Exception as error:
            done.set_exception(error)


def counting(closed: list[str]) -> Generator[int, None, str]:
    try:
        yield 1
        yield 2
        return "done"
    finally:
        closed.append("closed")


def test_slices_queue_up_again_one_at_a_time() -> None:
    queue = Queue()
    whole = run_in_turns(queue.submit, counting([]))
    for _ in range(3):
        assert len(queue.waiting) == 1 and not whole.done()
        queue.run_one()
    assert whole.result(0) == "done" and not queue.waiting


def test_cancelling_ends_the_work_at_the_next_slice() -> None:
    queue, closed = Queue(), []
    whole = run_in_turns(queue.submit, counting(closed))
    queue.run_one()
    assert whole.cancel()
    queue.run_one()
    assert closed == ["closed"] and not queue.waiting
    with pytest.raises(CancelledError):
        whole.result(0)


def test_what_a_slice_raises_reaches_the_caller() -> None:
    def failing() -> Generator[None, None, None]:
        yield
        raise ValueError("no good")

    queue = Queue()
    whole = run_in_turns(queue.submit, failing())
    queue.run_one()
    queue.run_one()
    with pytest.raises(ValueError, match="no good"):
        whole.result(0)
