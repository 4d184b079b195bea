"""Where a session's results go: to the callers who wait for a first mask, and to the publishing thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace

from sam2_ros.session.objects import PromptOutcome, TrackingView
from sam2_ros.session.work_queue import fail_all
from sam2_ros.tracking.types import PromptError

MAX_WAITERS = 256  # for a first mask; without a camera nobody is answered


@dataclass(frozen=True)
class TrackedImage:
    """A result on its way to be published, with the times that the statistics need."""

    view: TrackingView
    arrival_s: float  # when the image arrived
    tracked_s: float  # when the model finished


class PublishingThread:
    """Publishes one result after the other, in order, and loses none.

    The slot may be filled only while it ``is_free``: the session tracks no further image until then, so results do not
    pile up and camera images are dropped before the model rather than after it. ``on_free`` is called on this thread
    each time the slot becomes free; ``on_failure`` when ``publish`` raises, which ends the thread.

    A daemon thread: a middleware that hangs does not keep the process from ending.
    """

    def __init__(
        self,
        publish: Callable[[TrackedImage], None],
        on_free: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._publish = publish
        self._on_free = on_free
        self._on_failure = on_failure
        self._changed = threading.Condition()  # guards all below
        self._slot: TrackedImage | None = None
        self._published: TrackedImage | None = None  # the one that is being published
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sam2_publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_free(self) -> bool:
        with self._changed:
            return self._slot is None

    @property
    def stamps_ns(self) -> list[int]:
        """Stamps of the images whose results are not published yet."""
        with self._changed:
            return [each.view.stamp_ns for each in (self._published, self._slot) if each is not None]

    def put(self, tracked: TrackedImage) -> None:
        with self._changed:
            assert self._slot is None, "the session takes an image only while the slot is free"
            self._slot = tracked
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread once it has published what is in the slot."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; False when it did not end in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (tracked := self._take()) is not None:
                self._on_free()
                self._publish(tracked)
                del tracked  # otherwise its image would stay in memory until the next one
        except BaseException as error:  # ``publish`` catches what images can cause: this is a bug of ours
            self._on_failure(error)

    def _take(self) -> TrackedImage | None:
        with self._changed:
            self._published = None
            self._changed.wait_for(lambda: self._slot is not None or self._closed)
            self._published, self._slot = self._slot, None
            return self._published


@dataclass(frozen=True)
class PromptTicket:
    """Answers to a batch of prompts. Cancelling ``outcomes`` before the prompts are carried out withdraws them."""

    outcomes: Future[tuple[PromptOutcome, ...]]
    first_view: Future[TrackingView]  # the first image processed with them; only with ``wait``, and if any was accepted


@dataclass(frozen=True)
class _Waiter:
    future: Future[TrackingView]
    object_ids: frozenset[str]
    rejected: tuple[tuple[str, str], ...] = ()


class PromptWaiters:
    """Callers who wait for the first image that was processed with their prompts. Used on the model thread only.

    A prompt for a past image counts as processed when its object has been replayed up to the current image.
    """

    def __init__(self) -> None:
        self._waiting: list[_Waiter] = []

    def check_room(self) -> None:
        """PromptError when so many wait that none may be added. Those that gave up do not count."""
        self._waiting = [each for each in self._waiting if not each.future.cancelled()]
        if len(self._waiting) >= MAX_WAITERS:
            raise PromptError(
                f"{len(self._waiting)} requests wait for a first mask already: nothing was changed. Ask again without "
                "wait, or when images come"
            )

    def add(self, future: Future[TrackingView], object_ids: Collection[str]) -> None:
        self._waiting.append(_Waiter(future, frozenset(object_ids)))

    def answer(self, view: TrackingView) -> None:
        """Answer callers whose objects are up to date; ``view.result`` has all rejections since they began to wait."""
        assert view.result is not None, "only a processed image can answer"
        still_waiting = []
        for each in self._waiting:
            rejected = each.rejected + view.result.rejected
            if each.object_ids & set(view.frames_behind):
                if not each.future.cancelled():
                    still_waiting.append(replace(each, rejected=rejected))
            elif each.future.set_running_or_notify_cancel():
                each.future.set_result(replace(view, result=replace(view.result, rejected=rejected)))
        self._waiting = still_waiting

    def fail(self, error: Exception) -> None:
        """Answer all callers with an error, because the session has ended."""
        waiting, self._waiting = self._waiting, []
        fail_all((each.future for each in waiting), error)
