"""Single images between camera images, without ROS: slices, rejections, and that tracking goes on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_model import noise_frames

from sam2_ros.session import session as session_module
from sam2_ros.session.objects import PromptRequest
from sam2_ros.session.parameters import parse
from sam2_ros.session.segmentation import (
    MAX_REQUESTS,
    POINTS_PER_SLICE,
    PROMPTS_PER_SLICE,
    Segmentation,
    SegmentationQueue,
    SegmentRequest,
    TooManyRequestsError,
    segment_in_slices,
)
from sam2_ros.session.session import NO_VIEW, Session
from sam2_ros.session.work_queue import SessionStoppedError
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
    assert all(0 <= thing.score <= 1 for thing in answer.things)
    assert fake_tracker.calls == [] and session.view.objects == ()


def test_three_masks_a_prompt_best_first(session: Session) -> None:
    answer = session.segment(request(click(), BOX, multimask=True)).result(DEADLINE_S)
    assert [thing.prompt_index for thing in answer.things] == [0, 0, 0, 1, 1, 1]
    scores = [thing.score for thing in answer.things]
    assert scores[:3] == sorted(scores[:3], reverse=True) and scores[3:] == sorted(scores[3:], reverse=True)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_box_that_reaches_outside_is_clipped_and_said_in_any_unit(session: Session, normalized: bool) -> None:
    def found(box_xyxy: list[float], normalized: bool) -> Segmentation:
        prompt = PromptRequest(box_xyxy=np.array(box_xyxy, np.float32), normalized=normalized)
        return session.segment(request(prompt)).result(DEADLINE_S)

    height, width = IMAGE.shape[:2]
    scale = 1 if normalized else np.array([width, height, width, height])
    outside = found(list(np.array([-0.1, 0.25, 0.5, 1.2]) * scale), normalized)
    inside = found([0.0, 0.25 * height, 0.5 * width, float(height)], False)
    assert "clipped" in outside.notes[0] and not inside.notes
    np.testing.assert_array_equal(outside.things[0].mask, inside.things[0].mask)


@pytest.mark.parametrize("box_xyxy", [[3.0, 4.0, 300.0, 200.0], [0.1, 0.1, float("nan"), 0.5], [-1.5, 0.0, 0.5, 0.5]])
def test_a_box_in_pixels_that_is_called_normalized_is_rejected(session: Session, box_xyxy: list[float]) -> None:
    prompt = PromptRequest(box_xyxy=np.array(box_xyxy, np.float32), normalized=True)
    with pytest.raises(PromptError, match=r"normalized box_xyxy must lie in -1..2"):
        session.segment(request(prompt)).result(DEADLINE_S)


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


def everything_of(points_per_side: int, points_per_batch: int) -> Any:
    """Settings with which a random network finds something."""
    from sam2_ros.tracking.mask_generator import GeneratorSettings

    return GeneratorSettings(
        points_per_side, points_per_batch, pred_iou_thresh=0, stability_score_thresh=0.01, box_nms_thresh=1
    )


def slices_and_answer(asked: SegmentRequest, fake_tracker: Any) -> tuple[int, Segmentation]:
    slices = drained(segment_in_slices(fake_tracker.image_predictor(), asked, lambda: NO_VIEW))
    return len(slices), slices[-1]


def test_many_prompts_are_answered_in_slices_with_cropped_masks(fake_tracker: Any) -> None:
    prompts = [BOX if number % 3 == 2 else click(2 * number % 80, number % 48) for number in range(40)]
    count, answer = slices_and_answer(request(*prompts), fake_tracker)
    assert count == 1 + -(-40 // PROMPTS_PER_SLICE), "one to encode the image, then so many prompts each"
    assert [thing.prompt_index for thing in answer.things] == list(range(40))
    predictor = fake_tracker.image_predictor()
    predictor.set_image(IMAGE)
    for thing in answer.things:
        expected = predictor.predict_best([to_prompt(prompts[thing.prompt_index])])[0].masks[0]
        assert np.mean(full_size(thing) != expected) < 0.01  # batches of another size round otherwise
        assert thing.mask.size == (0 if thing.box_xyxy is None else area_of(thing.box_xyxy)), "not cropped"


class SpotPredictor:
    """3 x 3 px around the point of each prompt, and nothing as the second mask."""

    def set_image(self, image_rgb: np.ndarray) -> None:
        self.size = image_rgb.shape[:2]

    def predict_batch(self, prompts: list[Any]) -> list[Any]:
        from sam2_ros.tracking.image_predictor import ImagePrediction

        predictions = []
        for prompt in prompts:
            masks = np.zeros((2, *self.size), bool)
            x, y = prompt.points_xy[0].astype(int)
            masks[0, y - 1 : y + 2, x - 1 : x + 2] = True
            predictions.append(ImagePrediction(masks, np.array([0.9, 0.5], np.float32), masks.astype(np.float32)))
        return predictions


def test_of_a_mask_only_what_is_in_its_box_is_kept() -> None:
    asked = request(click(20, 30), click(50, 10), multimask=True)
    *_, answer = drained(segment_in_slices(SpotPredictor(), asked, lambda: NO_VIEW))  # type: ignore[arg-type]
    found = [(thing.prompt_index, thing.box_xyxy, thing.mask.shape) for thing in answer.things]
    assert found == [
        (0, (19, 29, 22, 32), (3, 3)),
        (0, None, (0, 0)),
        (1, (49, 9, 52, 12), (3, 3)),
        (1, None, (0, 0)),
    ]
    assert all(thing.mask.base is None for thing in answer.things), "a view keeps the whole mask"


@pytest.mark.parametrize(("size_hw", "slices"), [((480, 640), 3), ((1080, 1920), 20), ((2160, 3840), 40)])
def test_of_a_large_image_fewer_prompts_are_in_a_slice(size_hw: tuple[int, int], slices: int) -> None:
    asked = request(*(click() for _ in range(40)), image=np.zeros((*size_hw, 3), np.uint8), multimask=True)
    yielded = drained(segment_in_slices(SpotPredictor(), asked, lambda: NO_VIEW))  # type: ignore[arg-type]
    assert len(yielded) == 1 + slices


def drained(slices: Any) -> list[Any]:
    """What it yields, and at last what it returns."""
    yielded: list[Any] = []
    while True:
        try:
            yielded.append(next(slices))
        except StopIteration as end:
            return [*yielded, end.value]


def to_prompt(asked: PromptRequest) -> Any:
    from sam2_ros.tracking.prompts import make_prompt

    return make_prompt(asked.points_xy, asked.point_labels, asked.box_xyxy)


def area_of(box_xyxy: tuple[int, int, int, int]) -> int:
    x0, y0, x1, y1 = box_xyxy
    return (x1 - x0) * (y1 - y0)


def full_size(thing: Any) -> np.ndarray:
    mask = np.zeros(IMAGE.shape[:2], bool)
    x0, y0, x1, y1 = thing.box_xyxy or (0, 0, 0, 0)
    mask[y0:y1, x0:x1] = thing.mask
    return mask


def test_everything_is_answered_in_short_slices_whatever_the_models_batch(
    fake_tracker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam2_ros.tracking import mask_generator

    monkeypatch.setattr(mask_generator, "settings_for", lambda name: everything_of(8, 64))
    count, answer = slices_and_answer(request(everything=True), fake_tracker)
    assert count == 1 + 64 // POINTS_PER_SLICE + 1, "the image, the points, what is left of them"
    assert len(answer.things) > 1 and {thing.prompt_index for thing in answer.things} == {0}
    assert all(thing.mask.size == area_of(thing.box_xyxy) for thing in answer.things)
    scores = [thing.score for thing in answer.things]
    assert scores == sorted(scores, reverse=True)


def test_between_two_images_there_is_one_slice_however_many_requests_wait(
    fake_tracker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = fake_tracker.calls
    parameters = parse({"process_every_frame": True})  # all images wait from the beginning
    session = Session(
        fake_tracker, decode=lambda message: message.pixels, publish=lambda _: None, parameters=lambda: parameters
    )
    session.start()

    def four_slices() -> Generator[None, None, str]:
        for _ in range(3):
            order.append("slice")
            yield
        order.append("slice")
        return "answer"

    monkeypatch.setattr(session_module, "segment_in_slices", lambda *_: four_slices())
    fake_tracker.gate.clear()
    offer(session, 1)
    assert fake_tracker.in_step.wait(DEADLINE_S)
    jobs = [session.segment(request(everything=True)) for _ in range(MAX_REQUESTS)]
    for stamp_s in range(2, 22):
        offer(session, stamp_s)
    fake_tracker.gate.set()
    assert [job.result(DEADLINE_S) for job in jobs] == ["answer"] * MAX_REQUESTS
    assert session.stop(DEADLINE_S)
    kinds = [call.split()[0] for call in order]
    assert kinds[:32] == ["step", "slice"] * 16


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


def working(log: list[str], name: str, count: int = 2) -> Generator[None, None, Any]:
    """So many slices, the last of which has the answer."""
    try:
        for number in range(1, count):
            log.append(f"{name}{number}")
            yield
        log.append(f"{name}{count}")
        return f"answer {name}"
    finally:
        log.append(f"{name} ends")


def test_one_request_after_the_other_a_slice_at_a_time() -> None:
    queue, log = SegmentationQueue(), []
    answers = [queue.add(working(log, name)) for name in "ab"]
    assert log == [] and queue.has_work
    queue.advance()
    assert log == ["a1"] and not answers[0].done()
    queue.advance()
    assert answers[0].result(0) == "answer a" and not answers[1].done()
    queue.advance()
    queue.advance()
    assert answers[1].result(0) == "answer b" and not queue.has_work
    queue.advance()
    assert log == ["a1", "a2", "a ends", "b1", "b2", "b ends"]


def test_more_than_a_few_at_once_are_rejected_until_one_is_answered_or_withdrawn() -> None:
    queue, log = SegmentationQueue(), []
    answers = [queue.add(working(log, str(number), 1)) for number in range(MAX_REQUESTS)]

    def assert_full() -> None:
        with pytest.raises(TooManyRequestsError, match=f"{MAX_REQUESTS} such requests wait already, .*: ask again"):
            queue.add(working(log, "late")).result(0)

    assert_full()
    queue.advance()
    assert answers[0].done()
    queue.add(working(log, "next", 1))
    assert_full()
    assert answers[2].cancel()
    queue.add(working(log, "another", 1))
    assert_full()
    for _ in range(MAX_REQUESTS):
        queue.advance()
    assert [line for line in log if line.endswith("ends")] == [
        f"{name} ends" for name in ("0", "1", "3", "next", "another")
    ]


def test_cancelling_ends_the_work_at_the_next_slice() -> None:
    queue, log = SegmentationQueue(), []
    answer = queue.add(working(log, "a", 3))
    queue.advance()
    assert answer.cancel()
    queue.advance()
    assert log == ["a1", "a ends"] and not queue.has_work
    with pytest.raises(CancelledError):
        answer.result(0)


def test_what_a_slice_raises_reaches_its_caller_alone(caplog: pytest.LogCaptureFixture) -> None:
    def failing(error: Exception) -> Generator[None, None, Any]:
        yield
        raise error

    queue, log = SegmentationQueue(), []
    bug, bad, good = (
        queue.add(each) for each in (failing(OSError("no")), failing(PromptError("bad")), working(log, "a"))
    )
    for _ in range(6):
        queue.advance()
    with pytest.raises(OSError, match="no"):
        bug.result(0)
    with pytest.raises(PromptError, match="bad"):
        bad.result(0)
    assert good.result(0) == "answer a"
    assert [record.getMessage() for record in caplog.records] == ["an image could not be segmented"]


def test_a_closed_queue_answers_everybody_with_the_reason() -> None:
    queue = SegmentationQueue()
    waiting = queue.add(working([], "a"))
    queue.advance()
    queue.close(SessionStoppedError("over"))
    for answer in (waiting, queue.add(working([], "b"))):
        with pytest.raises(SessionStoppedError, match="over"):
            answer.result(0)
    assert not queue.has_work
