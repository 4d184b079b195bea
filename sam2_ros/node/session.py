"""One tracker, one worker thread, one newest image: the node without ROS.

Images overwrite each other in a one-slot mailbox. Prompts and other commands queue up and are taken, in order,
*between* images by the only thread that ever touches the tracker, so nothing locks the model and no caller waits for
it unless it wants to: every command returns a ``concurrent.futures.Future`` at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.node.object_book import ObjectBook, TrackerLike, TrackingView
from sam2_ros.node.prompts import PromptOutcome, PromptRequest
from sam2_ros.node.segmenting import Segmentation, SegmentRequest, run_in_slices, segment_in_slices
from sam2_ros.node.session_stats import SessionStats, StatsCollector
from sam2_ros.tracking.types import PromptError

logger = logging.getLogger(__name__)

TIME_JUMP_BACK_S = 0.5  # stamps that go back by more than this are a restarted bag, not images out of order
STOPPED = "the tracking session has been stopped"
NO_VIEW = TrackingView(header=None, stamp_ns=0, image_rgb=None, result=None, objects=(), frames_dropped=0)


class SessionStoppedError(RuntimeError):
    """The command was not carried out because the worker has ended; the message says why."""


@dataclass(frozen=True)
class PromptTicket:
    """Answers to a batch of prompts, filled in by the worker. Cancelling ``outcomes`` in time withdraws the batch."""

    outcomes: Future[tuple[PromptOutcome, ...]]
    first_view: Future[TrackingView]  # the first image processed with them; only with ``wait``, and if any was accepted


@dataclass(frozen=True)
class _Arrival:
    message: Any
    stamp_ns: int
    arrival_s: float


@dataclass(frozen=True)
class _Command:
    run: Callable[[], Any]
    done: Future[Any] = field(default_factory=Future)


class Session:
    """Feeds a tracker from a stream. ``decode`` makes (H, W, 3) RGB of an image message; ``publish`` gets each result.

    Both run on the worker. ``decode`` raises ValueError for an image it cannot read. Nothing an image or a command
    does ends the worker; should it end all the same, ``failure`` says why and every command is answered with that.
    """

    def __init__(
        self,
        tracker: TrackerLike,
        *,
        decode: Callable[[Any], NDArray[np.uint8]],
        publish: Callable[[TrackingView], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker = tracker
        self._book = ObjectBook(tracker)
        self._decode = decode
        self._publish = publish
        self._clock = clock
        self._stats = StatsCollector(clock)
        self._changed = threading.Condition()  # guards the next seven
        self._image: _Arrival | None = None
        self._commands: deque[_Command] = deque()
        self._latest_stamp_ns = 0
        self._stopping = False
        self._enabled = True
        self._failure = ""
        self._thread = threading.Thread(target=self._work, name="sam2_worker", daemon=True)
        self._waiting: list[Future[TrackingView]] = []  # the worker's own, as the next
        self._frame_size: tuple[int, int] | None = None  # (H, W) of the next image, or of the last one
        self._view = NO_VIEW  # written by the worker, frozen

    # Called from any thread ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the worker after the image it is working on; False when it did not end in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def offer(self, message: Any, stamp_ns: int) -> None:
        """Make ``message`` the next image; one that still waits is dropped. Never blocks on the model."""
        self._stats.note_received()
        with self._changed:
            if not self._enabled or self._stopping:
                return
            back_s = (self._latest_stamp_ns - stamp_ns) / 1e9
            if back_s > TIME_JUMP_BACK_S:
                logger.warning("image stamps went back by %.2f s (a bag that starts again?): tracking is reset", back_s)
                self._image = None  # from before the jump
                self._commands.append(_Command(self._reset))
            self._latest_stamp_ns = stamp_ns
            if self._image is not None:
                self._stats.note_dropped()
            self._image = _Arrival(message, stamp_ns, self._clock())
            self._changed.notify_all()

    def prompt(self, requests: Sequence[PromptRequest], *, wait: bool = False) -> PromptTicket:
        """Apply prompts to the next image, each taken or refused by itself; ``wait`` fills ``first_view`` too."""
        first_view: Future[TrackingView] = Future()
        batch = tuple(requests)
        outcomes = self._submit(lambda: self._apply(batch, first_view if wait else None))
        return PromptTicket(outcomes, first_view)

    def remove(self, object_ids: Iterable[str]) -> Future[tuple[str, ...]]:
        """Remove all of these objects or, with a PromptError, none; the removed ids."""
        wanted = tuple(object_ids)
        return self._submit(lambda: self._book.remove(wanted))

    def clear(self) -> Future[tuple[str, ...]]:
        """Remove all objects; the removed ids."""
        return self._submit(self._book.clear)

    def reset(self) -> Future[tuple[str, ...]]:
        """Start again as if new: no objects, counters and labels from the start; the removed ids."""
        return self._submit(self._reset)

    def segment(self, request: SegmentRequest) -> Future[Segmentation]:
        """Segment a single image with the tracker's network, a slice between two camera images.

        What is tracked is not touched. Cancelling the future ends the work.
        """
        return run_in_slices(self._submit, self._segment_in_slices(request))

    def set_enabled(self, enabled: bool) -> Future[bool]:
        """While not enabled images are ignored; objects and prompts stay. Returns what was set."""
        return self._submit(lambda: self._set_enabled(enabled))

    @property
    def view(self) -> TrackingView:
        """What is tracked now, as of the latest processed image."""
        return self._view

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    def failure(self) -> str:
        """Why the worker has died; empty while it is well."""
        return self._failure

    def stats(self) -> SessionStats:
        return self._stats.snapshot()

    def _submit(self, run: Callable[[], Any]) -> Future[Any]:
        command = _Command(run)
        with self._changed:
            if self._stopping:
                command.done.set_exception(SessionStoppedError(self._failure or STOPPED))
                return command.done
            self._commands.append(command)
            self._changed.notify_all()
        return command.done

    # Called on the worker --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        reason = STOPPED
        try:
            while self._wait_for_work():
                self._do_work()
        except BaseException as error:  # what images and commands raise is caught below: this is a bug of ours
            reason = f"the worker has died ({type(error).__name__}: {error}): clean up and configure the node again"
            logger.critical("%s", reason, exc_info=True)
            self._failure = reason
        with self._changed:
            self._stopping = True
            unanswered = [command.done for command in self._commands]
            self._commands.clear()
        for future in (*unanswered, *self._waiting):
            if future.set_running_or_notify_cancel():
                future.set_exception(SessionStoppedError(reason))

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._commands or self._image is not None)
            return not self._stopping

    def _do_work(self) -> None:
        with self._changed:
            commands, image = list(self._commands), self._image
            self._commands.clear()
            self._image = None
        image_rgb = self._read(image) if image is not None else None
        if image_rgb is not None:
            self._frame_size = (image_rgb.shape[0], image_rgb.shape[1])
        for command in commands:
            self._carry_out(command)
        if image is not None and image_rgb is not None and self._enabled:
            self._process(image, image_rgb)

    def _carry_out(self, command: _Command) -> None:
        if not command.done.set_running_or_notify_cancel():
            return  # the caller gave up before it began
        try:
            answer = command.run()
            self._view = replace(self._view, objects=self._book.views())  # before the answer: callers look at once
        except PromptError as error:  # expected: goes to the caller, who says so
            command.done.set_exception(error)
        except Exception as error:
            logger.exception("a command failed")
            command.done.set_exception(error)
        else:
            command.done.set_result(answer)

    def _read(self, image: _Arrival) -> NDArray[np.uint8] | None:
        try:
            return self._decode(image.message)
        except ValueError as error:
            self._stats.note_failure(f"image refused: {error}", with_traceback=False)
        except Exception as error:
            self._stats.note_failure(f"image could not be read: {type(error).__name__}: {error}")
        return None

    def _process(self, image: _Arrival, image_rgb: NDArray[np.uint8]) -> None:
        try:
            result = self._tracker.step(image_rgb)
        except Exception as error:
            self._stats.note_failure(f"image could not be processed: {type(error).__name__}: {error}")
            return
        for object_id, why in result.rejected:
            logger.warning("the prompt for %s was refused when it met its image: %s", object_id, why)
        self._book.observe(result, image.stamp_ns)
        self._view = view = TrackingView(
            image.message.header, image.stamp_ns, image_rgb, result, self._book.views(), self._stats.dropped
        )
        waiting, self._waiting = self._waiting, []
        for future in waiting:  # before publishing: the callers have waited long enough
            if future.set_running_or_notify_cancel():
                future.set_result(view)
        try:
            self._publish(view)
        except Exception as error:
            self._stats.note_failure(f"result could not be published: {type(error).__name__}: {error}")
            return
        self._stats.note_processed(image.arrival_s, result.inference_ms)

    def _apply(
        self, batch: tuple[PromptRequest, ...], first_view: Future[TrackingView] | None
    ) -> tuple[PromptOutcome, ...]:
        outcomes = self._book.apply_all(batch, self._frame_size)
        if first_view is not None and any(outcome.accepted for outcome in outcomes):
            self._waiting.append(first_view)
        return outcomes

    def _segment_in_slices(self, request: SegmentRequest) -> Generator[None, None, Segmentation]:
        return (yield from segment_in_slices(self._tracker.image_predictor(), request, self._view))

    def _reset(self) -> tuple[str, ...]:
        removed = self._book.reset()
        self._stats.restart_dropped()
        self._view = NO_VIEW
        return removed

    def _set_enabled(self, enabled: bool) -> bool:
        with self._changed:
            self._enabled = enabled
            if not enabled:
                self._image = None
        return enabled
