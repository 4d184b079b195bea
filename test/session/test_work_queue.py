"""Which images wait for the worker, and which are left out."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

import pytest

from sam2_ros.session.parameters import NodeParameters, parse
from sam2_ros.session.stats import StatsCollector
from sam2_ros.session.work_queue import QUEUED_IMAGES, Mailbox, SessionStoppedError

SECOND = 1_000_000_000
DEADLINE_S = 20.0


class Box:
    """A mailbox with its clock in the test's hand."""

    def __init__(self, **values: object) -> None:
        self.now_s = 0.0
        self.parameters = parse(values)
        self.stats = StatsCollector(lambda: self.now_s)
        self.restarts: list[float] = []
        self.mailbox = Mailbox(self.stats, lambda: self.parameters, self.restarts.append, lambda: self.now_s)

    def offer(self, *values: int, stamp_s: float = 1.0) -> None:
        for value in values:
            self.mailbox.offer(value, int(stamp_s * SECOND))

    def take_image(self) -> object:
        work = self.mailbox.take()
        assert work is not None and work[1] is not None
        return work[1].message


def test_the_newest_image_wins_and_the_others_are_counted() -> None:
    box = Box()
    box.offer(1, 2, 3)
    assert box.take_image() == 3
    assert (box.stats.snapshot().received, box.stats.snapshot().dropped) == (3, 2)


def test_every_frame_comes_in_order_with_commands_before_the_next(caplog: pytest.LogCaptureFixture) -> None:
    box = Box(process_every_frame=True)
    box.offer(1, 2, 3)
    box.mailbox.submit(lambda: None)
    first = box.mailbox.take()
    assert first is not None and len(first[0]) == 1
    assert [box.take_image(), box.take_image()] == [2, 3]
    assert box.stats.snapshot().dropped == 0


def test_a_command_about_an_image_in_the_queue_waits_for_it_and_those_behind_it_too() -> None:
    box = Box(process_every_frame=True)
    for value in (1, 2, 3):
        box.offer(value, stamp_s=value)
    done: list[str] = []
    box.mailbox.submit(lambda: done.append("at once"))
    box.mailbox.submit(lambda: done.append("for 2.5"), stamp_ns=5 * SECOND // 2)
    box.mailbox.submit(lambda: done.append("after it"))
    box.mailbox.submit(lambda: done.append("of the future"), stamp_ns=99 * SECOND)
    expected = [["at once"], [], ["for 2.5", "after it", "of the future"]]
    for value, names in enumerate(expected, 1):
        work = box.mailbox.take()
        assert work is not None and work[1] is not None and work[1].message == value
        done.clear()
        for command in work[0]:
            command.run()
        assert done == names


def test_a_full_queue_drops_what_comes_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    box = Box(process_every_frame=True)
    with caplog.at_level(logging.WARNING):
        box.offer(*range(QUEUED_IMAGES + 5))
    assert caplog.text.count("play the bag more slowly") == 1
    assert box.stats.snapshot().dropped == 5
    assert [box.take_image() for _ in range(QUEUED_IMAGES)] == list(range(QUEUED_IMAGES))
    box.offer(99)
    assert box.take_image() == 99


def test_a_queue_that_stays_full_is_said_once_and_again_when_there_was_room(caplog: pytest.LogCaptureFixture) -> None:
    box = Box(process_every_frame=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for number in range(4 * QUEUED_IMAGES):
                box.offer(number)
                if number % 3 == 0:  # a model at a third of the camera's rate
                    box.take_image()
            while box.mailbox.has_image:
                box.take_image()
    assert caplog.text.count("play the bag more slowly") == 2


def test_a_higher_limit_counts_at_once() -> None:
    box = Box(max_rate_hz=0.001)
    box.offer(1)
    box.now_s = 1.0
    box.offer(2)
    assert box.stats.snapshot().skipped == 1
    box.parameters = parse({"max_rate_hz": 10.0})
    for number in range(100):
        box.now_s = 2.0 + number / 100
        box.offer(number)
    assert box.stats.snapshot().skipped - 1 in (89, 90, 91), "ten a second from now on"


@pytest.mark.parametrize(("camera_hz", "limit_hz"), [(30, 20), (30, 30), (200, 15), (30, 45), (10, 1)])
def test_the_mean_rate_stays_below_the_limit_and_near_it(camera_hz: int, limit_hz: int) -> None:
    box = Box(max_rate_hz=float(limit_hz))
    taken = 0
    for tick in range(20 * camera_hz):
        box.now_s = tick / camera_hz
        box.offer(tick)
        skipped = box.stats.snapshot().skipped
        taken = tick + 1 - skipped
    expected = 20 * min(camera_hz, limit_hz)
    assert 0.95 * expected <= taken <= expected + 1
    assert box.stats.snapshot().dropped == taken - 1  # nobody took them here


def test_after_a_jump_back_what_waited_from_before_it_is_gone() -> None:
    box = Box(process_every_frame=True)
    box.offer(1, 2, stamp_s=100)
    box.offer(3, stamp_s=5)
    work = box.mailbox.take()
    assert work is not None and work[1] is not None and work[1].message == 3
    for command in work[0]:
        command.run()
    assert box.restarts == [95.0]


def test_while_disabled_nothing_waits() -> None:
    box = Box()
    box.offer(1)
    box.mailbox.set_enabled(False)
    box.offer(2)
    box.mailbox.set_enabled(True)
    box.offer(3)
    assert box.take_image() == 3 and box.stats.snapshot().dropped == 0


def test_closing_tells_who_waits_and_who_comes_later() -> None:
    box = Box()
    waits: Future[None] = box.mailbox.submit(lambda: None)
    gave_up: Future[None] = box.mailbox.submit(lambda: None)
    assert gave_up.cancel()
    box.mailbox.close("the end")
    box.offer(1)
    assert box.mailbox.take() is None
    for future in (waits, box.mailbox.submit(lambda: None)):
        with pytest.raises(SessionStoppedError, match="the end"):
            future.result(0)


def test_the_defaults_leave_nothing_out() -> None:
    assert (NodeParameters().max_rate_hz, NodeParameters().max_image_age_s) == (0.0, 0.0)


def claim(mailbox: Mailbox) -> object:
    arrival = mailbox.claim(threading.Event())
    return None if arrival is None else arrival.message


def test_a_claimed_image_stays_and_newer_ones_wait_behind_it() -> None:
    box = Box()
    box.offer(1, 2)
    assert claim(box.mailbox) == 2
    box.offer(3, 4)
    assert box.mailbox.has_image
    assert [box.take_image(), box.take_image()] == [2, 4]
    assert not box.mailbox.has_image
    assert box.stats.snapshot().dropped == 2
    box.offer(5, 6)  # nothing is claimed any more
    assert box.take_image() == 6


def test_a_command_about_an_image_behind_the_claimed_one_waits_for_it() -> None:
    box = Box()
    box.offer(1, stamp_s=1)
    assert claim(box.mailbox) == 1
    box.offer(2, stamp_s=2)
    box.mailbox.submit(lambda: None, stamp_ns=2 * SECOND)
    first, second = box.mailbox.take(), box.mailbox.take()
    assert first is not None and second is not None
    assert [len(first[0]), len(second[0])] == [0, 1]


def test_claiming_waits_for_an_image_until_it_is_told_that_it_is_over() -> None:
    box, over, claimed = Box(), threading.Event(), []
    waiting = threading.Thread(target=lambda: claimed.append(box.mailbox.claim(over)))
    waiting.start()
    box.offer(1)
    waiting.join(DEADLINE_S)
    assert [arrival.message for arrival in claimed] == [1]
    box.take_image()
    waiting = threading.Thread(target=lambda: claimed.append(box.mailbox.claim(over)))
    waiting.start()
    over.set()
    box.mailbox.wake()
    waiting.join(DEADLINE_S)
    assert claimed[1:] == [None]
    box.offer(2)
    assert box.mailbox.claim(over) is None
    box.mailbox.close("the end")
    assert claim(box.mailbox) is None


@pytest.mark.parametrize("lost", ["time jumps back", "disabled"])
def test_a_claimed_image_goes_with_the_others(lost: str) -> None:
    box = Box()
    box.offer(1, stamp_s=100)
    assert claim(box.mailbox) == 1
    if lost == "disabled":
        box.mailbox.set_enabled(False)
        box.mailbox.set_enabled(True)
    box.offer(2, stamp_s=101 if lost == "disabled" else 1)
    assert box.take_image() == 2
