"""The thread for the network, whose tasks go before jobs, and the stream that tells the pages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from sam2_ros.annotate.events import _MAX_WAITING, EventStream
from sam2_ros.annotate.worker import JobStatus, ModelWorker

DEADLINE_S = 30.0


@pytest.fixture
def told() -> list[JobStatus]:
    return []


@pytest.fixture
def worker(told: list[JobStatus]) -> Iterator[ModelWorker]:
    worker = ModelWorker(told.append)
    yield worker
    worker.close()


def wait_until_idle(worker: ModelWorker) -> None:
    while worker.running:
        worker.submit(lambda: None).result(DEADLINE_S)


def test_a_task_goes_before_the_next_step_of_a_job(worker: ModelWorker, told: list[JobStatus]) -> None:
    order: list[str] = []
    started, is_asked = threading.Event(), threading.Event()

    def steps(job_id: str) -> Iterator[tuple[int, int, str]]:
        for done in range(3):
            order.append(f"step {done}")
            started.set()
            assert is_asked.wait(DEADLINE_S)
            yield done, 3, ""

    worker.start("test", "r", steps)
    assert started.wait(DEADLINE_S)
    answer = worker.submit(lambda: order.append("task"))
    is_asked.set()
    answer.result(DEADLINE_S)
    wait_until_idle(worker)
    assert order == ["step 0", "task", "step 1", "step 2"]
    assert [status.state for status in told] == ["running"] * 3 + ["done"]


def test_only_the_latest_preparation_is_done(worker: ModelWorker) -> None:
    done: list[int] = []
    gate = threading.Event()
    worker.submit(lambda: gate.wait(DEADLINE_S))
    for number in range(5):
        worker.prepare(lambda number=number: done.append(number))
    gate.set()
    worker.start("test", "r", lambda job_id: iter(()))  # comes after what was prepared
    wait_until_idle(worker)
    assert done == [4]


def test_errors_belong_to_who_asked_and_the_thread_goes_on(worker: ModelWorker, told: list[JobStatus]) -> None:
    def fail() -> None:
        raise ValueError("not so")

    def failing(job_id: str) -> Iterator[tuple[int, int, str]]:
        yield 1, 2, ""
        fail()

    with pytest.raises(ValueError, match="not so"):
        worker.submit(fail).result(DEADLINE_S)
    worker.prepare(fail)
    worker.start("test", "r", failing)
    wait_until_idle(worker)
    assert (told[-1].state, told[-1].message) == ("failed", "not so")
    assert worker.submit(lambda: 7).result(DEADLINE_S) == 7


def test_closing_cancels_jobs_and_lets_them_store_what_they_have() -> None:
    told: list[JobStatus] = []
    stored: list[bool] = []
    started = threading.Event()

    def endless(job_id: str) -> Iterator[tuple[int, int, str]]:
        try:
            while True:
                started.set()
                yield 0, 1, ""
        finally:
            stored.append(True)

    worker = ModelWorker(told.append)
    worker.start("test", "r", endless)
    worker.start("test", "r", endless)
    assert started.wait(DEADLINE_S)
    worker.close()
    assert stored == [True] and [each.job_id for each in told if each.state == "cancelled"] == ["job1", "job2"]
    with pytest.raises(RuntimeError, match="closing"):
        worker.submit(lambda: None)


def test_events_of_other_threads_arrive_in_order_at_every_page() -> None:
    async def read(stream: EventStream, count: int, ready: asyncio.Event) -> list[str]:
        seen = []
        async for message in stream.listen():
            ready.set()
            if message.startswith("event"):
                seen.append(message)
            if len(seen) == count:
                break
        return seen

    async def both() -> list[list[str]]:
        stream = EventStream()
        ready = [asyncio.Event(), asyncio.Event()]
        reading = [asyncio.create_task(read(stream, 3, each)) for each in ready]
        for each in ready:
            await each.wait()
        publish = threading.Thread(target=lambda: [stream.publish("change", {"n": n}) for n in range(3)])
        publish.start()
        return await asyncio.wait_for(asyncio.gather(*reading), DEADLINE_S)

    expected = [f'event: change\ndata: {{"n":{n},"revision":{n + 1}}}\n\n' for n in range(3)]
    assert asyncio.run(both()) == [expected, expected]


def test_a_page_that_does_not_read_is_cut_off_and_closing_ends_streams() -> None:
    async def lag() -> int:
        stream = EventStream()
        listening = stream.listen()
        await anext(listening)
        for number in range(_MAX_WAITING + 10):
            stream.publish("change", {"n": number})
        stream.close()
        count = 0
        async for _ in listening:
            count += 1
        return count

    assert asyncio.run(asyncio.wait_for(lag(), DEADLINE_S)) == _MAX_WAITING
