"""One thread for the network: tasks that a person waits for run before the next step of background jobs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class JobStatus:
    """How far a job is; a new value each time."""

    job_id: str
    kind: str
    recording: str
    state: str = "waiting"  # then "running", and at the end "done", "cancelled" or "failed"
    done: int = 0
    total: int = 0
    message: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "cancelled", "failed")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Steps = Iterator[tuple[int, int, str]]  # done, total, message; closed when the job is cancelled


class ModelWorker:
    """Runs tasks, and between them the steps of jobs, in one thread.

    Tasks go first, in order of arrival; then what was last prepared for; then one step of the oldest job. So a click
    waits for one frame of a propagation at most.
    """

    def __init__(self, on_status: Callable[[JobStatus], None]) -> None:
        """``on_status`` hears of each job's progress, in the worker's thread; it must not fail."""
        self._on_status = on_status
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._prepare: Callable[[], Any] | None = None
        self._jobs: deque[tuple[str, Steps]] = deque()
        self._statuses: dict[str, JobStatus] = {}
        self._cancelled: set[str] = set()
        self._count = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="sam2_annotate", daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Queue a task that somebody waits for."""
        answer: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the server is closing")
            self._tasks.append((task, answer))
            self._changed.notify()
        return answer

    def prepare(self, task: Callable[[], Any]) -> None:
        """Run a task when nobody waits for another, unless a later ``prepare`` takes its place. Its errors are dropped:
        they occur again where the result is needed."""
        with self._changed:
            self._prepare = task
            self._changed.notify()

    def start(self, kind: str, recording: str, make: Callable[[str], Steps]) -> JobStatus:
        """Queue a job; ``make`` gets its id and returns its steps."""
        with self._changed:
            self._count += 1
            status = JobStatus(f"job{self._count}", kind, recording)
            self._statuses[status.job_id] = status
            self._jobs.append((status.job_id, make(status.job_id)))
            self._changed.notify()
        return status

    def cancel(self, job_id: str) -> JobStatus:
        """Stop a job before its next step; what it did is kept. KeyError for an unknown id."""
        with self._changed:
            status = self._statuses[job_id]
            if not status.is_over:
                self._cancelled.add(job_id)
                self._changed.notify()
            return status

    @property
    def running(self) -> tuple[JobStatus, ...]:
        """Jobs that are not over, oldest first."""
        with self._changed:
            return tuple(status for status in self._statuses.values() if not status.is_over)

    def close(self) -> None:
        """Cancel what is running or waiting, and wait for the thread."""
        with self._changed:
            self._is_closed = True
            self._cancelled.update(job_id for job_id, _ in self._jobs)
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._tasks or self._prepare or self._jobs or self._is_closed):
                    self._changed.wait()
                if self._is_closed and not self._jobs:
                    for _, answer in self._tasks:
                        answer.cancel()
                    return
                task = self._tasks.popleft() if self._tasks else None
                prepare = None
                if task is None:
                    prepare, self._prepare = self._prepare, None
            if task is not None:
                _answer(*task)
            elif prepare is not None:
                try:
                    prepare()
                except Exception:
                    logger.debug("preparing a frame failed", exc_info=True)
            else:
                self._step()

    def _step(self) -> None:
        """One step of the oldest job, or its end."""
        job_id, steps = self._jobs[0]
        before = self._statuses[job_id]
        try:
            if job_id in self._cancelled:
                steps.close()  # type: ignore[attr-defined]  # a generator: what it holds back is stored
                self._end(replace(before, state="cancelled"))
                return
            done, total, message = next(steps)
            self._tell(replace(before, state="running", done=done, total=total, message=message))
        except StopIteration:
            self._end(replace(before, state="done"))
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                logger.exception("%s failed", before.kind)
            self._end(replace(before, state="failed", message=str(error) or type(error).__name__))

    def _end(self, status: JobStatus) -> None:
        with self._changed:
            self._jobs.popleft()
            self._cancelled.discard(status.job_id)
        self._tell(status)

    def _tell(self, status: JobStatus) -> None:
        with self._changed:
            self._statuses[status.job_id] = status
        self._on_status(status)


def _answer(task: Callable[[], Any], answer: Future[Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(task())
    except BaseException as error:  # raised where the answer is awaited
        answer.set_exception(error)
