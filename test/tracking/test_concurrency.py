"""The model thread serves in turn, and prefetched images give the same results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_model import assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.tracking.concurrency import SideThread, TaskThread, prefetch_images
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptAction

pytestmark = pytest.mark.numeric

DEADLINE_S = 20.0
CLICK = {"points": [(30, 20)], "labels": [1]}


def until_queued(model_thread: TaskThread, count: int) -> None:
    waiting = threading.Event()
    for _ in range(2000):
        if model_thread._tasks.qsize() == count:
            return
        waiting.wait(0.01)
    raise AssertionError(f"{count} never stood in the queue")


def test_who_came_first_goes_first_and_all_on_one_thread() -> None:
    model_thread, begun, go_on = TaskThread(), threading.Event(), threading.Event()
    order: list[str] = []
    idents: set[int] = set()

    def first() -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)
        order.append("first")

    def work(name: str) -> None:
        idents.add(threading.get_ident())
        order.append(name)

    def run(task: Callable[[], None]) -> None:
        model_thread.submit(task).result(DEADLINE_S)

    threads = [threading.Thread(target=run, args=(first,))]
    threads += [threading.Thread(target=run, args=(lambda name=name: work(name),)) for name in "abcde"]
    threads[0].start()
    assert begun.wait(DEADLINE_S)
    for place, thread in enumerate(threads[1:], start=1):
        thread.start()
        until_queued(model_thread, place)
    go_on.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert order == ["first", *"abcde"]
    assert len(idents) == 1 and threading.get_ident() not in idents


def test_a_model_that_hangs_does_not_keep_the_process_from_ending() -> None:
    assert TaskThread().submit(lambda: threading.current_thread().daemon).result(DEADLINE_S)


def test_answers_and_errors_come_back() -> None:
    model_thread = TaskThread()
    assert model_thread.submit(lambda: 7).result(DEADLINE_S) == 7
    with pytest.raises(ZeroDivisionError):
        model_thread.submit(lambda: 1 / 0).result(DEADLINE_S)
    assert model_thread.submit(lambda: 8).result(DEADLINE_S) == 8


def test_a_task_cancelled_in_time_does_not_run_and_a_running_one_cannot_be_cancelled() -> None:
    model_thread, begun, go_on = TaskThread(), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)

    ran: list[str] = []
    running = model_thread.submit(first)
    assert begun.wait(DEADLINE_S)
    withdrawn, last = (
        model_thread.submit(lambda: ran.append("withdrawn")),
        model_thread.submit(lambda: ran.append("last")),
    )
    assert withdrawn.cancel() and not running.cancel()
    go_on.set()
    last.result(DEADLINE_S)
    assert ran == ["last"]


@pytest.mark.parametrize("buffer_frames", [0, 4])
def test_the_masks_of_prefetched_images_are_the_same(buffer_frames: int) -> None:
    model = tiny_model()
    now, ahead = (Tracker(model, buffer_frames=buffer_frames) for _ in range(2))
    for index, image_rgb in enumerate(noise_frames(6)):
        for tracker in (now, ahead):
            if index == 1:
                tracker.add_prompt("a", **CLICK)
            if index == 4 and buffer_frames:  # of a frame that nothing was looked for in
                tracker.add_prompt("b", **CLICK, action=PromptAction.ADD, frame_index=0)
        assert_same_result(ahead.step(ahead.prefetch(image_rgb)), now.step(image_rgb))
    assert now.object_ids == ahead.object_ids == (("a", "b") if buffer_frames else ("a",))


def test_images_encoded_while_others_are_stepped() -> None:
    model = tiny_model()
    alone, beside = Tracker(model), Tracker(model)
    for tracker in (alone, beside):
        tracker.add_prompt("a", **CLICK)
    frames, side = noise_frames(8), SideThread()
    waiting = beside.prefetch(frames[0])
    for index, image_rgb in enumerate(frames[:-1]):
        with side.running(lambda index=index: beside.prefetch(frames[index + 1])) as following:
            result = beside.step(waiting)
        waiting = following.result()
        expected = alone.step(image_rgb)
        assert_same_logits(result["a"].low_res_logits, expected["a"].low_res_logits)
    side.rest()


def test_the_time_it_took_counts() -> None:
    tracker = Tracker(tiny_model())
    image = replace(tracker.prefetch(noise_frames(1)[0]), encode_ms=1e6)
    assert 1e6 < tracker.step(image).inference_ms < 1.1e6


def test_refusals_change_nothing() -> None:
    tracker, other = Tracker(tiny_model()), Tracker(tiny_model())
    (image_rgb,) = noise_frames(1)
    with pytest.raises(ValueError, match="another network's"):
        tracker.step(other.prefetch(image_rgb))
    with pytest.raises(ValueError, match="expected shape"):
        tracker.prefetch(image_rgb[0])
    assert tracker.frame_size is None
    assert tracker.step(image_rgb).frame_index == 0


def test_side_thread_shares_the_threads_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    side = SideThread()
    try:
        torch.set_num_threads(5)
        with side.running(torch.get_num_threads) as theirs:
            assert torch.get_num_threads() == 3
            assert theirs.result(DEADLINE_S) == 2
        assert torch.get_num_threads() == 5
        torch.set_num_threads(1)
        with side.running(torch.get_num_threads) as theirs:
            assert torch.get_num_threads() == 1
        assert theirs.result() == 1
    finally:
        torch.set_num_threads(before)
        side.rest()


def test_side_thread_is_waited_for_and_keeps_what_it_raised() -> None:
    side, begun, go = SideThread(), threading.Event(), threading.Event()

    def task() -> None:
        begun.set()
        assert go.wait(DEADLINE_S)
        raise ValueError("of the task")

    with pytest.raises(KeyError), side.running(task) as theirs:
        assert begun.wait(DEADLINE_S)
        go.set()
        raise KeyError("of the caller")
    assert theirs.done()
    with pytest.raises(ValueError, match="of the task"):
        theirs.result()
    side.rest()


def test_a_stream_is_encoded_ahead_in_order() -> None:
    tracker, alone = Tracker(tiny_model()), Tracker(tiny_model())
    for each in (tracker, alone):
        each.add_prompt("a", **CLICK)
    frames = noise_frames(5)
    seen = 0
    for expected_rgb, image in zip(frames, prefetch_images(tracker, iter(frames)), strict=True):
        assert image.image_rgb is expected_rgb
        theirs, ours = alone.step(expected_rgb)["a"], tracker.step(image)["a"]
        assert_same_logits(ours.low_res_logits, theirs.low_res_logits)
        seen += 1
    assert seen == 5
    assert list(prefetch_images(tracker, [])) == []


def test_what_a_stream_raises_comes_at_its_turn() -> None:
    (good,) = noise_frames(1)
    tracker, seen = Tracker(tiny_model()), []
    with pytest.raises(ValueError, match="expected shape"):
        for image in prefetch_images(tracker, [good, good, good[0]]):
            seen.append(image.image_rgb)
    assert len(seen) == 2
