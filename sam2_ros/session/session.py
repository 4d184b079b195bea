"""One tracker and one stream of images: the node without ROS.

Three kinds of threads meet here:

- Any thread queues images and commands. It never waits for the model: every command returns a
  ``concurrent.futures.Future`` at once.
- The *model thread* serves the sessions of a process in turn, and is the only one that touches a tracker, so nothing
  locks the model. One turn (``_take_turn``) decodes one image, carries out the commands queued before it, tracks, and
  answers callers who wait for a first mask.
- The session's *publishing thread* gets each result through a one-slot queue: drawing, JPEG, depth and messages cost
  the model no time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.heap import free_unused_memory, is_out_of_memory, retried_out_of_memory
from sam2_ros.session.events import Event, EventSource
from sam2_ros.session.objects import (
    ObjectRegistry,
    PromptOutcome,
    PromptRequest,
    TrackerLike,
    TrackingView,
)
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.results import PromptTicket, PromptWaiters, PublishingThread, TrackedImage
from sam2_ros.session.segmentation import Segmentation, SegmentationQueue, SegmentRequest, segment_in_slices
from sam2_ros.session.stats import SessionStats, StatsCollector
from sam2_ros.session.work_queue import NOT_YET, Command, ImageReader, QueuedImage, SessionStoppedError, WorkQueue
from sam2_ros.tracking.concurrency import TaskThread
from sam2_ros.tracking.types import FrameResult

logger = logging.getLogger(__name__)

SAVING_SLICE_MS = 30.0  # between two images, of replaying objects that are behind
STOPPED = "the tracking session has been stopped"
NO_VIEW = TrackingView(header=None, stamp_ns=0, image_rgb=None, result=None, objects=(), frames_dropped=0)


class Session:
    """Feeds a tracker from a stream of images.

    No image and no command can end the session. If a bug ends it nevertheless, ``failure`` has the reason, and every
    command is answered with it.

    Args:
        tracker: used on the model thread only.
        decode: image message -> (H, W, 3) uint8 RGB; raises ValueError if it cannot. On the model thread.
        publish: gets each result, in order. On the publishing thread.
        notify: gets each event, on any thread.
        parameters: the current ones.
        model_thread: for sessions that share a network; without it the session has one of its own.
        now_ns: the clock that stamps are compared with.
        clock: seconds, for latencies.
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
        self._tracker = tracker
        self._publish = publish
        self._now_ns = now_ns
        self.events = EventSource(notify)
        self._stats = StatsCollector(clock)
        self._reader = ImageReader(decode, parameters, self._stats, now_ns)
        self._registry = ObjectRegistry(tracker, parameters)
        self._waiters = PromptWaiters()
        self._segmentations = SegmentationQueue()
        self._frame_size: tuple[int, int] | None = None  # (H, W) of the next image, or of the last one
        self._view = NO_VIEW
        self._failure = ""
        self._owns_model_thread = model_thread is None
        self._model_thread = model_thread or TaskThread()
        self._turn_lock = threading.Lock()
        self._turn: Future[None] | None = None  # queued or running
        self._queue = WorkQueue(self._stats, parameters, self._ask_for_turn, clock, now_ns)
        self._publishing = PublishingThread(self._publish_result, self._ask_for_turn, self._fail)

    # Called from any thread ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._publishing.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the session after the image at the model; False if that takes longer than ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        self._queue.close(STOPPED)
        with self._turn_lock:
            turn = self._turn
        if turn is not None and not turn.cancel() and wait_for((turn,), timeout_s).not_done:
            return False  # the running turn ends the rest when it is over
        self._finish()
        if self._owns_model_thread:
            self._model_thread.close()
        return self._publishing.join(max(deadline_s - time.monotonic(), 0.0))

    def offer(self, message: Any, stamp_ns: int) -> None:
        """Queue ``message`` as the next image, or leave it out; see ``WorkQueue``. Never blocks on the model."""
        self._queue.offer(message, stamp_ns)

    def forget_images(self) -> None:
        """Drop the waiting images."""
        self._queue.forget_images()

    def prompt(self, requests: Sequence[PromptRequest], *, wait: bool = False) -> PromptTicket:
        """Apply each prompt to the image it is for, or reject it, each on its own; ``wait`` fills ``first_view``."""
        first_view: Future[TrackingView] = Future()
        batch = tuple(requests)
        outcomes = self._queue.submit(
            lambda: self._accept_prompts(batch, first_view if wait else None),
            stamp_ns=max((request.stamp_ns for request in batch), default=0),
        )
        return PromptTicket(outcomes, first_view)

    def remove(self, object_ids: Iterable[str]) -> Future[tuple[str, ...]]:
        """Remove all of these objects or, with a PromptError, none; the removed ids."""
        wanted = tuple(object_ids)
        return self._queue.submit(lambda: self._remove(wanted), frees=True)

    def clear(self) -> Future[tuple[str, ...]]:
        """Remove all objects; the removed ids."""
        return self._queue.submit(self._clear, frees=True, at_once=True)

    def reset(self) -> Future[tuple[str, ...]]:
        """Remove all objects; counters and labels start anew; the removed ids."""
        return self._queue.submit(lambda: self._reset("~/reset was called"), frees=True, at_once=True)

    def segment(self, request: SegmentRequest) -> Future[Segmentation]:
        """Segment a single image with the tracker's network, a slice between two camera images.

        Tracked objects are not affected. Cancelling the future ends the work. The future raises TooManyRequestsError
        when more than a few requests wait.
        """
        slices = segment_in_slices(self._tracker.image_predictor(), request, lambda: self._view)
        answer = self._segmentations.add(slices)
        self._ask_for_turn()
        return answer

    def set_enabled(self, enabled: bool) -> Future[bool]:
        """While not enabled images are ignored; objects and prompts stay. Returns what was set."""
        return self._queue.submit(lambda: self._set_enabled(enabled), frees=True, at_once=not enabled)

    def save(self) -> Future[dict[str, Any]]:
        """The objects and their memories, for ``persistence.write_session``."""
        return self._queue.submit(self._save)

    def load(self, saved: Mapping[str, Any], path: str) -> Future[TrackingView]:
        """Replace the objects by those that ``persistence.read_session`` has read; the new view.

        The future raises SessionFileError, with nothing changed, when it does not fit.
        """
        return self._queue.submit(lambda: self._load(saved, path), frees=True, at_once=True)

    @property
    def view(self) -> TrackingView:
        """The objects as of the latest processed image: a frozen value that is replaced, so any thread may read it."""
        return self._view

    @property
    def waiting_ns(self) -> list[int]:
        """Stamps of the images whose results are not published yet: in the queue, at the model, or being published."""
        return [*self._publishing.stamps_ns, *self._queue.stamps_ns]

    @property
    def enabled(self) -> bool:
        return self._queue.enabled

    @property
    def clock_trouble(self) -> str:
        """What is wrong with the stamps of the images; empty when nothing is."""
        return self._queue.clock_trouble

    @property
    def failure(self) -> str:
        """The bug that has ended the session; empty while it works."""
        return self._failure

    def stats(self) -> SessionStats:
        return self._stats.snapshot()

    # Turns -----------------------------------------------------------------------------------------------------------

    def _ask_for_turn(self) -> None:
        """Queue a turn at the model thread unless one is queued already or there is nothing to do."""
        with self._turn_lock:
            is_free = self._publishing.is_free
            is_work = self._queue.has_work(with_image=is_free) or (is_free and self._segmentations.has_work)
            if self._turn is None and is_work:
                self._turn = self._model_thread.submit(self._take_turn)

    def _take_turn(self) -> None:
        """On the model thread: carry out the commands that are due, then process the next image."""
        try:
            is_free = self._publishing.is_free
            work = self._queue.take(with_image=is_free)
            if work is not None:
                self._do(*work)
            if work is not None and is_free:
                self._segmentations.advance()  # after the image, which must not be delayed by it
        except BaseException as error:  # errors of images and commands are caught below: this is a bug
            self._fail(error)
        if self._queue.closed:
            self._finish()
        with self._turn_lock:
            self._turn = None
        self._ask_for_turn()  # behind the other sessions' turns

    def _do(self, commands: list[Command], image: QueuedImage | None) -> None:
        image_rgb = self._reader.read(image) if image is not None else None
        if image_rgb is not None:
            self._frame_size = (image_rgb.shape[0], image_rgb.shape[1])  # the next prompts are for
        for place, command in enumerate(commands):
            if not command.carry_out(self._refresh_view):
                self._queue.put_back(commands[place:])
                break
        if image is None:
            return
        self._registry.follow(image.timeline)
        if image.back_s:
            self._restart(image.back_s)
        if image_rgb is not None and self.enabled:
            self._track(image, image_rgb)
        elif image_rgb is not None:  # else the reader has counted it
            self._stats.note_skipped()

    def _fail(self, error: BaseException) -> None:
        """End the session because of a bug. On the model thread or the publishing thread."""
        reason = f"the session has died ({type(error).__name__}: {error}): clean up and configure the node again"
        logger.critical("%s", reason, exc_info=error)
        self._failure = self._failure or reason
        self._queue.close(reason)
        with self._turn_lock:
            if self._turn is None:  # else the turn that is queued or taken finishes
                self._turn = self._model_thread.submit(self._take_turn)

    def _finish(self) -> None:
        """Once the queue is closed and no turn runs: answer all who wait, and let the publishing thread end."""
        stopped = SessionStoppedError(self._queue.closed)
        self._waiters.fail(stopped)
        self._segmentations.close(stopped)
        self._publishing.close()

    # An image, on the model thread -----------------------------------------------------------------------------------

    def _track(self, image: QueuedImage, image_rgb: NDArray[np.uint8]) -> None:
        """Track all objects into the image, and pass the result on."""
        result = self._step(image, image_rgb)
        if result is None:
            return
        tracked_s = self._stats.now_s()
        for object_id, why in result.rejected:
            logger.warning("the prompt for %s was rejected by the image it was for: %s", object_id, why)
        ended = self._registry.update(result, image.stamp_ns, image.time_ns)
        self._view = view = TrackingView(
            image.message.header,
            image.stamp_ns,
            image_rgb,
            result,
            self._registry.views(),
            self._stats.dropped,
            dict(self._tracker.frames_behind),
            image.age_is_known,
        )
        self._waiters.answer(view)  # before publishing: the callers have waited long enough
        self.events.removed(ended, "LOST for longer than remove_lost_after_s", image.message.header)
        self.events.observed(view)
        self._publishing.put(TrackedImage(view, image.arrival_s, tracked_s))

    def _step(self, image: QueuedImage, image_rgb: NDArray[np.uint8]) -> FrameResult | None:
        try:
            times_s = [each_ns / 1e9 if each_ns else None for each_ns in (image.stamp_ns, image.time_ns)]
            return retried_out_of_memory(lambda: self._tracker.step(image_rgb, *times_s))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            memory_is_out = is_out_of_memory(error)
            if not memory_is_out:
                self._stats.note_failure(f"image could not be processed: {why}")
        if memory_is_out:  # not in the handler: there the error still references the model's tensors
            self._drop_newest_object(image, why)
        return None

    def _drop_newest_object(self, image: QueuedImage, why: str) -> None:
        """Continue with one object less, after memory ran out twice in a row for this image."""
        newest = self._tracker.object_ids[-1:]
        what = f"{newest[0]!r}, the newest object, was dropped" if newest else "there is no object to drop"
        message = f"out of memory, {what} ({why})"
        self._stats.note_failure(message, with_traceback=False)
        if newest:
            self._registry.remove(newest)
            self.events.removed(newest, message, image.message.header)
            self._refresh_view()
        free_unused_memory()

    # Commands, on the model thread -----------------------------------------------------------------------------------

    def _refresh_view(self) -> None:
        """Let ``view`` show what commands have changed."""
        behind = dict(self._tracker.frames_behind)
        self._view = replace(self._view, objects=self._registry.views(), frames_behind=behind)

    def _accept_prompts(
        self, batch: tuple[PromptRequest, ...], first_view: Future[TrackingView] | None
    ) -> tuple[PromptOutcome, ...]:
        if first_view is not None:
            self._waiters.check_room()
        batch = tuple(self._registry.resolve_action(request) for request in batch)
        outcomes = self._registry.accept_prompts(batch, self._frame_size)
        self.events.prompted(batch, outcomes, self._registry.take_made_room())
        accepted = {outcome.object_id for outcome in outcomes if outcome.accepted}
        if first_view is not None and accepted:
            self._waiters.add(first_view, accepted)
        return outcomes

    def _remove(self, object_ids: tuple[str, ...]) -> tuple[str, ...]:
        removed = self._registry.remove(object_ids)
        self.events.removed(removed)
        return removed

    def _clear(self) -> tuple[str, ...]:
        removed = self._registry.clear()
        self.events.cleared(removed)
        return removed

    def _reset(self, why: str) -> tuple[str, ...]:
        self._queue.forget_time()
        removed = self._registry.reset()
        self._forget_view()
        self.events.reset(why)
        return removed

    def _restart(self, back_s: float) -> None:
        """After a jump back in time: remove objects as a reset does, but keep those that have not seen an image yet."""
        why = f"image stamps went back by {back_s:.2f} s (a bag that starts again?): tracking is reset"
        kept = self._registry.restart()
        if kept:
            why += f"; {', '.join(kept)} had not seen an image of before and stay"
        logger.warning("%s", why)
        self._forget_view()
        self.events.reset(why, time_went_back=True, kept=kept)

    def _forget_view(self) -> None:
        self._stats.restart_dropped()
        self._view = NO_VIEW
        self._refresh_view()

    def _set_enabled(self, enabled: bool) -> bool:
        self._queue.set_enabled(enabled)
        return enabled

    def _save(self) -> Any:
        if self._tracker.frames_behind and self._tracker.catch_up(SAVING_SLICE_MS):
            return NOT_YET  # replaying all that is behind may take seconds
        return retried_out_of_memory(self._registry.save)

    def _load(self, saved: Mapping[str, Any], path: str) -> TrackingView:
        retried_out_of_memory(lambda: self._registry.load(saved))
        self._refresh_view()
        self.events.loaded(path, self._view.objects)
        return self._view

    # A result, on the publishing thread ------------------------------------------------------------------------------

    def _publish_result(self, tracked: TrackedImage) -> None:
        view = tracked.view
        assert view.result is not None, "only a processed image is published"
        try:
            self._publish(view)
        except Exception as error:
            self._stats.note_failure(f"result could not be published: {type(error).__name__}: {error}")
            return
        age_ms = (self._now_ns() - view.stamp_ns) / 1e6 if view.stamp_ns and view.age_is_known else None
        self._stats.note_processed(tracked.arrival_s, tracked.tracked_s, view.result.inference_ms, age_ms)
