"""Workers that share a model take turns."""

from __future__ import annotations

import threading

import pytest

from sam2_ros.node.turns import Turns

DEADLINE_S = 20.0


def until_queued(turns: Turns, count: int) -> None:
    with turns._changed:
        for _ in range(2000):
            if len(turns._queue) == count:
                return
            turns._changed.wait(0.01)
    raise AssertionError(f"{count} never stood in the queue")


def test_who_came_first_goes_first() -> None:
    turns = Turns()
    order: list[str] = []

    def work(name: str) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcde"]
    with turns:
        for place, thread in enumerate(threads, start=1):
            thread.start()
            until_queued(turns, 1 + place)
        order.append("first")
    for thread in threads:
        thread.join(DEADLINE_S)
    assert order == ["first", *"abcde"]


def test_a_turn_that_fails_is_over_all_the_same() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns:
        raise RuntimeError
    with turns:
        pass
