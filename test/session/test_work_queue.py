"""Which images wait for the model thread, and which are left out."""

from __future__ import annotations

import logging
from concurrent.futures import Future

import numpy as np
import pytest

from sam2_ros.session.parameters import NodeParameters, parse
from sam2_ros.session.stats import StatsCollector
from sam2_ros.session.work_queue import QUEUED_IMAGES, QueuedImage, SessionStoppedError, WorkQueue

SECOND = 1_000_000_000
DEADLINE_S = 20.0


class Bench:
    """A queue with its clock in the test's hand."""

    def __init__(self, **values: object) -> None:
        self.now_s = 0.0
        self.parameters = parse(values)
        self.stats = StatsCollector(lambda: self.now_s)
        self.queue = WorkQueue(self.stats, lambda: self.parameters, lambda: None, lambda: self.now_s)

    def offer(self, *values: int, stamp_s: float = 1.0) -> None:
        for value in values:
            self.queue.offer(value, int(stamp_s * SECOND))

    def take(self) -> QueuedImage:
        work = self.queue.take()
        assert work is not None and work[1] is not None
        return work[1]

    def take_image(self) -> object:
        return self.take().message

    def accounted_for(self) -> int:
        """Images that are taken, wait or are counted; the fuzz below compares it with what came."""
        counts = self.stats.snapshot()
        return counts.dropped + counts.skipped + len(self.queue._images)


def test_the_newest_image_wins_and_the_others_are_counted() -> None:
    bench = Bench()
    bench.offer(1, 2, 3)
    assert bench.take_image() == 3
    assert (bench.stats.snapshot().received, bench.stats.snapshot().dropped) == (3, 2)


def test_every_frame_comes_in_order_with_commands_before_the_next(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(process_every_frame=True)
    bench.offer(1, 2, 3)
    bench.queue.submit(lambda: None)
    first = bench.queue.take()
    assert first is not None and len(first[0]) == 1
    assert [bench.take_image(), bench.take_image()] == [2, 3]
    assert bench.stats.snapshot().dropped == 0


def test_a_command_about_an_image_in_the_queue_waits_for_it_and_those_behind_it_too() -> None:
    bench = Bench(process_every_frame=True)
    for value in (1, 2, 3):
        bench.offer(value, stamp_s=value)
    done: list[str] = []
    bench.queue.submit(lambda: done.append("at once"))
    bench.queue.submit(lambda: done.append("for 2.5"), stamp_ns=5 * SECOND // 2)
    bench.queue.submit(lambda: done.append("after it"))
    bench.queue.submit(lambda: done.append("of the future"), stamp_ns=99 * SECOND)
    expected = [["at once"], [], ["for 2.5", "after it", "of the future"]]
    for value, names in enumerate(expected, 1):
        work = bench.queue.take()
        assert work is not None and work[1] is not None and work[1].message == value
        done.clear()
        for command in work[0]:
            command.run()
        assert done == names


def test_a_full_queue_drops_what_comes_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(process_every_frame=True)
    with caplog.at_level(logging.WARNING):
        bench.offer(*range(QUEUED_IMAGES + 5))
    assert caplog.text.count("play the bag more slowly") == 1
    assert bench.stats.snapshot().dropped == 5
    assert [bench.take_image() for _ in range(QUEUED_IMAGES)] == list(range(QUEUED_IMAGES))
    bench.offer(99)
    assert bench.take_image() == 99


def test_a_queue_that_stays_full_is_said_once_and_again_when_there_was_room(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(process_every_frame=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for number in range(4 * QUEUED_IMAGES):
                bench.offer(number)
                if number % 3 == 0:  # a model at a third of the camera's rate
                    bench.take_image()
            while bench.queue.has_work(with_image=True):
                bench.take_image()
    assert caplog.text.count("play the bag more slowly") == 2


def test_a_higher_limit_counts_at_once() -> None:
    bench = Bench(max_rate_hz=0.001)
    bench.offer(1)
    bench.now_s = 1.0
    bench.offer(2)
    assert bench.stats.snapshot().skipped == 1
    bench.parameters = parse({"max_rate_hz": 10.0})
    for number in range(100):
        bench.now_s = 2.0 + number / 100
        bench.offer(number)
    assert bench.stats.snapshot().skipped - 1 in (89, 90, 91), "ten a second from now on"


@pytest.mark.parametrize(("camera_hz", "limit_hz"), [(30, 20), (30, 30), (200, 15), (30, 45), (10, 1)])
def test_the_mean_rate_stays_below_the_limit_and_near_it(camera_hz: int, limit_hz: int) -> None:
    bench = Bench(max_rate_hz=float(limit_hz))
    taken = 0
    for tick in range(20 * camera_hz):
        bench.now_s = tick / camera_hz
        bench.offer(tick)
        skipped = bench.stats.snapshot().skipped
        taken = tick + 1 - skipped
    expected = 20 * min(camera_hz, limit_hz)
    assert 0.95 * expected <= taken <= expected + 1
    assert bench.stats.snapshot().dropped == taken - 1  # nobody took them here


def jump(bench: Bench) -> None:
    """100, 100, a pause, 5, 5: the last one makes the jump believed."""
    bench.offer(1, 2, stamp_s=100)
    bench.now_s += 1.5
    bench.offer(3, 4, stamp_s=5)


def test_a_jump_back_loses_no_image_and_is_said_by_the_first_one_after_it() -> None:
    bench = Bench(process_every_frame=True)
    jump(bench)
    taken = [bench.take() for _ in range(4)]
    assert [(image.message, image.back_s) for image in taken] == [(1, 0), (2, 0), (3, 95), (4, 0)]
    assert [image.timeline for image in taken] == [0, 0, 1, 1]


def test_a_jump_is_said_by_the_next_image_when_the_first_ones_are_gone() -> None:
    bench = Bench()
    jump(bench)
    bench.offer(5, stamp_s=5)
    newest = bench.take()
    assert (newest.message, newest.back_s, newest.timeline) == (5, 95, 1)
    bench.queue.forget_time()
    bench.offer(6, 7, stamp_s=1)
    assert bench.take().back_s == 0, "a reset forgets the stamps of before"


def test_every_image_is_counted_whatever_happens() -> None:
    random = np.random.default_rng(7)
    for every_frame in (False, True):
        bench = Bench(process_every_frame=every_frame)
        stamp_s, taken, came = 100.0, 0, 0
        for action in random.integers(0, 12, 2000):
            bench.now_s += float(random.exponential(0.2))
            if action < 7:
                stamp_s += float(random.choice([0.033, 0.033, 0.033, -30.0, 200.0]))
                bench.offer(came, stamp_s=stamp_s)
                came += 1
            elif action < 9:
                work = bench.queue.take()
                taken += work is not None and work[1] is not None
            elif action == 9:
                bench.queue.forget_images()
            else:
                bench.queue.set_enabled(bool(random.integers(0, 3)))
            assert taken + bench.accounted_for() == came == bench.stats.snapshot().received


def test_while_disabled_nothing_waits() -> None:
    bench = Bench()
    bench.offer(1)
    bench.queue.set_enabled(False)
    bench.offer(2)
    bench.queue.set_enabled(True)
    bench.offer(3)
    assert bench.take_image() == 3
    counts = bench.stats.snapshot()
    assert (counts.dropped, counts.skipped) == (1, 1), "that waited, that came while disabled"


def test_closing_tells_who_waits_and_who_comes_later() -> None:
    bench = Bench()
    waits: Future[None] = bench.queue.submit(lambda: None)
    gave_up: Future[None] = bench.queue.submit(lambda: None)
    assert gave_up.cancel()
    bench.queue.close("the end")
    bench.offer(1)
    assert bench.queue.take() is None
    for future in (waits, bench.queue.submit(lambda: None)):
        with pytest.raises(SessionStoppedError, match="the end"):
            future.result(0)


def test_the_defaults_leave_nothing_out() -> None:
    assert (NodeParameters().max_rate_hz, NodeParameters().max_image_age_s) == (0.0, 0.0)


def test_without_room_for_a_result_commands_are_taken_and_images_wait() -> None:
    bench = Bench()
    bench.offer(1)
    assert not bench.queue.has_work(with_image=False)
    bench.queue.submit(lambda: None)
    assert bench.queue.has_work(with_image=False)
    work = bench.queue.take(with_image=False)
    assert work is not None and len(work[0]) == 1 and work[1] is None
    assert bench.take_image() == 1


def test_whoever_may_take_is_told_of_images_and_commands_with_no_lock_held() -> None:
    seen: list[bool] = []
    queue = WorkQueue(StatsCollector(lambda: 0.0), NodeParameters, lambda: seen.append(queue.has_work(with_image=True)))
    queue.offer("image", 0)
    queue.take()
    queue.submit(lambda: None)
    assert seen == [True, True]
