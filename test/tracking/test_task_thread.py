"""Workers that share a model take turns, on one thread."""

from __future__ import annotations

import threading

import pytest

from sam2_ros.tracking.concurrency import TaskThread

DEADLINE_S = 20.0


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

    threads = [threading.Thread(target=model_thread.run, args=(first,))]
    threads += [threading.Thread(target=model_thread.run, args=(lambda name=name: work(name),)) for name in "abcde"]
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
    assert TaskThread().run(lambda: threading.current_thread().daemon)


def test_answers_and_errors_come_back() -> None:
    model_thread = TaskThread()
    assert model_thread.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        model_thread.run(lambda: 1 / 0)
    assert model_thread.run(lambda: 8) == 8


def test_what_is_cancelled_in_time_is_not_run_and_what_runs_cannot_be_cancelled() -> None:
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
