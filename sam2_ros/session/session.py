"""One tracker, one worker thread, one stream of images: the node without ROS.

The mailbox holds the images and commands that wait. Prompts and other commands are taken, in order, *between* images by
the only thread that ever changes the tracker, so nothing locks the model and no caller waits for it unless it wants to:
every command returns a ``concurrent.futures.Future`` at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.encode_ahead import EncodeAhead
from sam2_ros.session.events import Event, EventSource
from sam2_ros.session.objects import TrackerLike, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.prompts import PromptOutcome, PromptRequest
from sam2_ros.session.saved_book import SessionFileError
from sam2_ros.session.segmentation import Segmentation, SegmentRequest, run_in_slices
from sam2_ros.session.session_work import SessionWork
from sam2_ros.session.stats import SessionStats, StatsCollector
from sam2_ros.session.work_queue import Arrival, Command, Mailbox, SessionStoppedError
from sam2_ros.tracking.task_thread import TaskThread
from sam2_ros.tracking.types import PromptError

logger = logging.getLogger(__name__)

STOPPED = "the tracking session has been stopped"


@dataclass(frozen=True)
class PromptTicket:
    """Answers to a batch of prompts, filled in by the worker. Cancelling ``outcomes`` in time withdraws the batch."""

    outcomes: Future[tuple[PromptOutcome, ...]]
    first_view: Future[TrackingView]  # the first image processed with them; only with ``wait``, and if any was accepted


class Session:
    """Feeds a tracker from a stream. ``decode`` makes (H, W, 3) RGB of an image message; ``publish`` gets each result.

    Both run where the model does: on ``model_thread``, which sessions may share, or on the worker without one; but with
    ``encode_ahead`` the next image is decoded and encoded on a thread beside it. ``decode`` raises ValueError for an
    image it cannot read. ``notify`` gets each event, on any thread. ``now_ns`` is the clock that stamps are compared
    with. Nothing an image or a command does ends the worker; should it end all the same, ``failure`` says why and every
    command is answered with that.
    """

    def __init__(
        self,
        tracker: TrackerLike,
        *,
        decode: Callable[[Any], NDArray[np.uint8]],
        publish: Callable[[TrackingView], None],
        notify: Callable[[Event], None] = lambda event: None,
        parameters: Callable[[], NodeParameters] = NodeParameters,
        model_thread: TaskThread | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model_thread = model_thread
        self.events = EventSource(notify)
        self._stats = StatsCollector(clock)
        self._work = SessionWork(
            tracker, self.events, self._stats, decode=decode, publish=publish, parameters=parameters, now_ns=now_ns
        )
        self._mailbox = Mailbox(self._stats, parameters, self._work.restart, clock)
        self._ahead = EncodeAhead(tracker, decode, self._mailbox, clock)
        self._parameters = parameters
        self._thread = threading.Thread(target=self._run, name="sam2_worker", daemon=True)
        self._failure = ""

    # Called from any thread ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the worker after the image it is working on; False when it did not end in time."""
        self._mailbox.close(STOPPED)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def offer(self, message: Any, stamp_ns: int) -> None:
        """Take ``message`` as the next image, or leave it out; see ``Mailbox``. Never blocks on the model."""
        self._mailbox.offer(message, stamp_ns)

    def forget_images(self) -> None:
        """Leave out the images that wait."""
        self._mailbox.forget_images()

    def prompt(self, requests: Sequence[PromptRequest], *, wait: bool = False) -> PromptTicket:
        """Apply prompts to the images they are for, each taken or refused by itself; ``wait`` fills ``first_view``."""
        first_view: Future[TrackingView] = Future()
        batch = tuple(requests)
        outcomes = self._mailbox.submit(
            lambda: self._work.apply(batch, first_view if wait else None),
            stamp_ns=max((request.stamp_ns for request in batch), default=0),
        )
        return PromptTicket(outcomes, first_view)

    def remove(self, object_ids: Iterable[str]) -> Future[tuple[str, ...]]:
        """Remove all of these objects or, with a PromptError, none; the removed ids."""
        wanted = tuple(object_ids)
        return self._mailbox.submit(lambda: self._work.remove(wanted))

    def clear(self) -> Future[tuple[str, ...]]:
        """Remove all objects; the removed ids."""
        return self._mailbox.submit(self._work.clear)

    def reset(self) -> Future[tuple[str, ...]]:
        """Start again as if new: no objects, counters and labels from the start; the removed ids."""
        return self._mailbox.submit(lambda: self._work.reset("~/reset was called"))

    def segment(self, request: SegmentRequest) -> Future[Segmentation]:
        """Segment a single image with the tracker's network, a slice between two camera images.

        What is tracked is not touched. Cancelling the future ends the work.
        """
        return run_in_slices(self._mailbox.submit, self._work.segment_in_slices(request))

    def set_enabled(self, enabled: bool) -> Future[bool]:
        """While not enabled images are ignored; objects and prompts stay. Returns what was set."""
        return self._mailbox.submit(lambda: self._set_enabled(enabled))

    def save(self) -> Future[dict[str, Any]]:
        """The objects and what is remembered of them, for ``session_files.write_session``."""
        return self._mailbox.submit(self._work.save)

    def load(self, saved: Mapping[str, Any], path: str) -> Future[TrackingView]:
        """Go on with what ``session_files.read_session`` has read, in place of the objects of now; the new view.

        The future raises SessionFileError, with nothing changed, when it does not fit.
        """
        return self._mailbox.submit(lambda: self._work.load(saved, path))

    @property
    def view(self) -> TrackingView:
        """What is tracked now, as of the latest processed image."""
        return self._work.view

    @property
    def waiting_ns(self) -> list[int]:
        """Stamps of the images whose results are still to come: that which is worked on, and those that wait."""
        return self._mailbox.stamps_ns

    @property
    def enabled(self) -> bool:
        return self._mailbox.enabled

    @property
    def failure(self) -> str:
        """Why the worker has died; empty while it is well."""
        return self._failure

    def stats(self) -> SessionStats:
        return self._stats.snapshot()

    # Called on the worker --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        reason = STOPPED
        try:
            while self._work_once():
                pass
        except BaseException as error:  # what images and commands raise is caught below: this is a bug of ours
            reason = f"the worker has died ({type(error).__name__}: {error}): clean up and configure the node again"
            logger.critical("%s", reason, exc_info=True)
            self._failure = reason
        self._mailbox.close(reason)
        self._ahead.close()
        self._work.first_views.fail(SessionStoppedError(reason))

    def _work_once(self) -> bool:
        """Wait for work and do it; False when there will be none any more."""
        if not self._mailbox.wait():
            return False  # not by way of the model's thread: another camera's model may keep it for minutes
        return self._take_and_do() if self._model_thread is None else self._model_thread.run(self._take_and_do)

    def _take_and_do(self) -> bool:
        work = self._mailbox.take()  # what is the newest now that the model is free
        if work is not None:
            self._do(*work)
        return work is not None

    def _do(self, commands: list[Command], image: Arrival | None) -> None:
        ahead = self._ahead.take(image)
        image_rgb = self._work.read(image, ahead) if image is not None else None
        for command in commands:
            self._carry_out(command)
        if image is not None and image_rgb is not None and self.enabled:
            with self._ahead.beside(image, ahead, wanted=self._parameters().encode_ahead):
                self._work.process(image, image_rgb, ahead)

    def _carry_out(self, command: Command) -> None:
        if not command.done.set_running_or_notify_cancel():
            return  # the caller gave up before it began
        try:
            answer = command.run()
            self._work.refresh_view()  # before the answer: callers look at once
        except (PromptError, SessionFileError) as error:  # expected: goes to the caller, who says so
            command.done.set_exception(error)
        except Exception as error:
            logger.exception("a command failed")
            command.done.set_exception(error)
        else:
            command.done.set_result(answer)

    def _set_enabled(self, enabled: bool) -> bool:
        self._mailbox.set_enabled(enabled)
        return enabled
