"""The queue for the model: images, of which the newest or every one is processed, and commands, in order.

Images replace each other in one slot or, with ``process_every_frame``, queue up to a limit. Commands always queue up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.persistence import SessionFileError
from sam2_ros.session.stamps import ClockWatch, SteadyTime, TimeJumpDetector, describe_two_clocks
from sam2_ros.session.stats import StatsCollector
from sam2_ros.tracking.types import PromptError

logger = logging.getLogger(__name__)

QUEUED_IMAGES = 64  # with ``process_every_frame``; 400 MB of 1080p
NOT_YET = object()  # what a command returns that goes on after the next image, if one waits
MAX_COMMANDS = 256  # that wait, with their masks; those that free the node are always taken


class SessionStoppedError(RuntimeError):
    """The command was not carried out because the session has ended; the message says why."""


class TooManyRequestsError(RuntimeError):
    """The request was rejected because too many others wait; nothing was changed. The message says what to do."""


@dataclass(frozen=True)
class QueuedImage:
    """An image message with its time of arrival."""

    message: Any
    stamp_ns: int
    arrival_s: float
    timeline: int = 0  # see ``StampReading``
    back_s: float = 0.0  # how far time has gone back [s] with this image; see ``StampReading``
    age_is_known: bool = True  # its stamp and the node's clock agree about the time
    time_ns: int = 0  # by ``SteadyTime``; 0 without a stamp


@dataclass(frozen=True)
class Command:
    """Something for the model thread to do between two images."""

    run: Callable[[], Any]
    stamp_ns: int = 0  # of the image it is about; 0 = of the next one
    at_once: bool = False  # before the next image, and so are all that wait for later ones
    done: Future[Any] = field(default_factory=Future)

    def carry_out(self, afterwards: Callable[[], None]) -> bool:
        """Run it and answer. False: it has returned ``NOT_YET``, and is to be carried out again.

        ``afterwards`` is called before the answer is there: callers read what it changes right after.
        """
        if not (self.done.running() or self.done.set_running_or_notify_cancel()):
            return True  # the caller gave up before it began
        try:
            answer = self.run()
            afterwards()
        except (PromptError, SessionFileError) as error:  # expected: the caller reports it
            self.done.set_exception(error)
        except Exception as error:
            logger.exception("a command failed")
            self.done.set_exception(error)
        else:
            if answer is NOT_YET:
                return False
            self.done.set_result(answer)
        return True


class WorkQueue:
    """Filled from any thread, emptied by the model thread.

    Args:
        stats: counts what is received, dropped and skipped.
        parameters: the current ones, read for every image.
        on_work: called, without a lock held, after something was queued.
        clock: seconds, for arrivals and ``max_rate_hz``.
        now_ns: the clock that stamps are compared with.
    """

    def __init__(
        self,
        stats: StatsCollector,
        parameters: Callable[[], NodeParameters],
        on_work: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._stats = stats
        self._now_ns = now_ns
        self._parameters = parameters
        self._on_work = on_work
        self._clock = clock
        self._lock = threading.Lock()  # guards all below
        self._images: deque[QueuedImage] = deque()
        self._commands: deque[Command] = deque()
        self._taken: QueuedImage | None = None  # the last one
        self._time_jumps = TimeJumpDetector()
        self._steady_time = SteadyTime()
        self._clocks = ClockWatch(clock)
        self._back_s = 0.0  # of a jump that the next queued image will report
        self._next_due_s = self._accepted_s = -float("inf")
        self._overflowing = False
        self._enabled = True
        self._closed = ""  # why nothing is accepted any more

    @property
    def enabled(self) -> bool:
        return self._enabled

    @property
    def closed(self) -> str:
        """Why nothing is accepted any more; empty while the queue is open."""
        return self._closed

    def offer(self, message: Any, stamp_ns: int) -> None:
        """Queue an image; it, or a waiting one, is dropped or skipped as the parameters say. Never blocks."""
        self._stats.note_received()
        parameters = self._parameters()
        with self._lock:
            if not self._enabled or self._closed:
                self._stats.note_skipped()
                return
            arrival_s = self._clock()
            reading = self._time_jumps.observe(stamp_ns, arrival_s)
            if reading.back_s:
                self._mark_jump(reading.timeline, reading.back_s)
            is_known = self._clocks.is_age_known(stamp_ns, self._now_ns())
            time_ns = self._steady_time.at(reading.timeline, stamp_ns)
            image = QueuedImage(message, stamp_ns, arrival_s, reading.timeline, age_is_known=is_known, time_ns=time_ns)
            if not self._is_due(arrival_s, parameters.max_rate_hz):
                self._stats.note_skipped()
            else:
                self._queue_image(image, parameters.process_every_frame)
        self._on_work()

    def _mark_jump(self, timeline: int, back_s: float) -> None:
        """Mark the first image of the new time, a waiting one or the next one, as the one that reports the jump."""
        for index, waiting in enumerate(self._images):
            if waiting.timeline == timeline:
                self._images[index] = replace(waiting, back_s=back_s)
                return
        self._back_s = back_s

    def _queue_image(self, image: QueuedImage, every_frame: bool) -> None:
        if not every_frame:
            self._leave_out_waiting()
        if self._is_full():
            self._stats.note_dropped()
        else:
            self._images.append(replace(image, back_s=self._back_s))
            self._back_s = 0.0

    def _leave_out_waiting(self) -> None:
        """Drop the images that wait, counted; a jump in time that one of them brings passes to the next image."""
        for image in self._images:
            self._stats.note_dropped()
            self._back_s = image.back_s or self._back_s
        self._images.clear()

    def forget_images(self) -> None:
        """Drop the waiting images."""
        with self._lock:
            self._leave_out_waiting()

    def forget_time(self) -> None:
        """Treat the next stamp as the first one, so that it is no jump."""
        with self._lock:
            self._time_jumps.forget()
            self._back_s = 0.0
            self._images = deque(replace(image, back_s=0.0) for image in self._images)

    @property
    def clock_trouble(self) -> str:
        """What is wrong with the stamps; empty when nothing is."""
        with self._lock:
            apart_s = self._time_jumps.two_clocks_s(self._clock())
            return describe_two_clocks(apart_s) if apart_s else self._clocks.trouble

    def _is_due(self, now_s: float, max_rate_hz: float) -> bool:
        """Whether an image accepted now keeps the mean rate below the limit."""
        if max_rate_hz <= 0:
            return True
        period_s = 1 / max_rate_hz
        if now_s < min(self._next_due_s, self._accepted_s + period_s):  # the latter where the limit was lower before
            return False
        self._accepted_s = now_s
        due_s = max(min(self._next_due_s, now_s), now_s - period_s / 2)  # half a period: images come with jitter
        self._next_due_s = due_s + period_s
        return True

    def _is_full(self) -> bool:
        is_full = len(self._images) >= QUEUED_IMAGES
        if is_full and not self._overflowing:
            logger.warning(
                "%d images wait to be processed, the next ones are dropped: play the bag more slowly", QUEUED_IMAGES
            )
        # Logged again only after the queue was half empty, because a slow model frees a place with every image.
        self._overflowing = is_full or (self._overflowing and len(self._images) > QUEUED_IMAGES // 2)
        return is_full

    def submit(
        self, run: Callable[[], Any], stamp_ns: int = 0, *, frees: bool = False, at_once: bool = False
    ) -> Future[Any]:
        """Queue a command; its future raises SessionStoppedError when the session has ended.

        A command about an image that waits in the queue is carried out just before that image, and so are the commands
        queued after it: their order is kept.

        Args:
            run: the command.
            stamp_ns: of the image it is about; 0 = the next one.
            frees: it takes work off the model, so it is queued however many wait. The future of any other command then
                raises TooManyRequestsError.
            at_once: it makes no difference to which images the commands before it were about; it does not wait for
                those images.
        """
        command = Command(run, stamp_ns, at_once)
        with self._lock:
            if self._closed:
                command.done.set_exception(SessionStoppedError(self._closed))
                return command.done
            if not frees and self._has_too_many_commands():
                command.done.set_exception(
                    TooManyRequestsError(
                        f"{len(self._commands)} requests wait for the model already: nothing was changed. Ask again "
                        "when some have been answered"
                    )
                )
                return command.done
            self._commands.append(command)
        self._on_work()
        return command.done

    def put_back(self, commands: Sequence[Command]) -> None:
        """Queue a command that is not done yet, and those after it, before all others."""
        with self._lock:
            if not self._closed:
                self._commands.extendleft(reversed(commands))
                return
        fail_all((command.done for command in commands), SessionStoppedError(self._closed))

    def _has_too_many_commands(self) -> bool:
        if len(self._commands) >= MAX_COMMANDS:
            self._commands = deque(command for command in self._commands if not command.done.cancelled())
        return len(self._commands) >= MAX_COMMANDS

    def has_work(self, *, with_image: bool) -> bool:
        """Whether ``take`` would return a command, or an image."""
        with self._lock:
            return not self._closed and bool(self._commands or (with_image and self._images))

    def take(self, *, with_image: bool = True) -> tuple[list[Command], QueuedImage | None] | None:
        """The commands that are due and, ``with_image``, the next image; None when the queue is closed."""
        with self._lock:
            if self._closed:
                return None
            commands: list[Command] = []
            urgent = max((place for place, command in enumerate(self._commands, 1) if command.at_once), default=0)
            while self._commands and (len(commands) < urgent or not self._is_early(self._commands[0])):
                commands.append(self._commands.popleft())
            self._taken = self._images.popleft() if with_image and self._images else None
            return commands, self._taken

    def _is_early(self, command: Command) -> bool:
        """Whether the command is about an image that waits behind the next one."""
        stamps_ns = [image.stamp_ns for image in self._images]
        return bool(stamps_ns) and stamps_ns[0] < command.stamp_ns <= max(stamps_ns)

    @property
    def stamps_ns(self) -> list[int]:
        """Stamps of the image that was taken last, unless only commands were taken since, and of those that wait."""
        with self._lock:
            return [image.stamp_ns for image in (self._taken, *self._images) if image is not None]

    def set_enabled(self, enabled: bool) -> None:
        with self._lock:
            self._enabled = enabled
            if not enabled:
                self._leave_out_waiting()

    def close(self, reason: str) -> None:
        """Reject everything from now on, and let the futures of waiting commands raise SessionStoppedError."""
        with self._lock:
            self._closed = self._closed or reason
            left = list(self._commands)
            self._commands.clear()
            self._images.clear()
        fail_all((command.done for command in left), SessionStoppedError(reason))


class ImageReader:
    """Decodes queued images on the model thread, and counts those that are not processed.

    Args:
        decode: image message -> (H, W, 3) uint8 RGB; raises ValueError if it cannot.
        parameters: the current ones.
        stats: counts.
        now_ns: the clock that stamps are compared with.
    """

    def __init__(
        self,
        decode: Callable[[Any], NDArray[np.uint8]],
        parameters: Callable[[], NodeParameters],
        stats: StatsCollector,
        now_ns: Callable[[], int],
    ) -> None:
        self._decode = decode
        self._parameters = parameters
        self._stats = stats
        self._now_ns = now_ns

    def read(self, image: QueuedImage) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB; None when the image is too old or cannot be read."""
        limit_s = self._parameters().max_image_age_s
        age_s = (self._now_ns() - image.stamp_ns) / 1e9
        if limit_s and image.stamp_ns and age_s > limit_s:
            self._stats.note_too_old(age_s, limit_s)
            return None
        try:
            return self._decode(image.message)
        except ValueError as error:
            self._stats.note_failure(f"image rejected: {error}", with_traceback=False)
        except Exception as error:
            self._stats.note_failure(f"image could not be read: {type(error).__name__}: {error}")
        return None


def fail_all(futures: Iterable[Future[Any]], error: Exception) -> None:
    """Let those of the futures that have not been cancelled raise ``error``."""
    for future in futures:
        if future.running() or future.set_running_or_notify_cancel():
            future.set_exception(error)
