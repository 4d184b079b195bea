"""What waits for the session's worker: images, of which the newest counts or every one, and commands. ROS-free.

Images overwrite each other in one slot or, with ``process_every_frame``, queue up to a limit. One whose work has begun
ahead of its turn is claimed, and stays. Commands queue up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.stamp_watch import StampWatch
from sam2_ros.session.stats import StatsCollector

logger = logging.getLogger(__name__)

QUEUED_IMAGES = 64  # with ``process_every_frame``; 400 MB of 1080p


class SessionStoppedError(RuntimeError):
    """The command was not carried out because the worker has ended; the message says why."""


@dataclass(frozen=True)
class Arrival:
    """An image message."""

    message: Any
    stamp_ns: int
    arrival_s: float


@dataclass(frozen=True)
class Command:
    """Something for the worker to do between two images."""

    run: Callable[[], Any]
    stamp_ns: int = 0  # of the image it is about; 0 = of the next one
    done: Future[Any] = field(default_factory=Future)


class Mailbox:
    """Filled from any thread, emptied by the worker. ``restart(back_s)``: what to do where time jumps back."""

    def __init__(
        self,
        stats: StatsCollector,
        parameters: Callable[[], NodeParameters],
        restart: Callable[[float], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._parameters = parameters
        self._restart = restart
        self._clock = clock
        self._changed = threading.Condition()  # guards all below
        self._images: deque[Arrival] = deque()
        self._commands: deque[Command] = deque()
        self._claimed: Arrival | None = None  # of the images
        self._taken: Arrival | None = None  # the last one
        self._stamps = StampWatch()
        self._next_due_s = self._accepted_s = -float("inf")
        self._overflowing = False
        self._enabled = True
        self._closed = ""  # why nothing is taken any more

    @property
    def enabled(self) -> bool:
        return self._enabled

    def offer(self, message: Any, stamp_ns: int) -> None:
        """Take an image; it, or one that waits, is left out where the parameters say so. Never blocks."""
        self._stats.note_received()
        parameters = self._parameters()
        with self._changed:
            if not self._enabled or self._closed:
                return
            back_s = self._stamps.jump_back_s(stamp_ns)
            if back_s:
                self._forget_images()  # from before the jump
                self._commands.append(Command(lambda: self._restart(back_s)))
                self._changed.notify_all()
            arrival = Arrival(message, stamp_ns, self._clock())
            if not self._is_due(arrival.arrival_s, parameters.max_rate_hz):
                self._stats.note_skipped()
                return
            if not parameters.process_every_frame and self._images and self._images[-1] is not self._claimed:
                self._images.pop()
                self._stats.note_dropped()
            if self._is_full():
                self._stats.note_dropped()
                return
            self._images.append(arrival)
            self._changed.notify_all()

    def forget_images(self) -> None:
        """Leave out those that wait."""
        with self._changed:
            self._forget_images()

    def _forget_images(self) -> None:
        self._images.clear()
        self._claimed = None

    def _is_due(self, now_s: float, max_rate_hz: float) -> bool:
        """Whether an image of now keeps the mean rate below the limit."""
        if max_rate_hz <= 0:
            return True
        period_s = 1 / max_rate_hz
        if now_s < min(self._next_due_s, self._accepted_s + period_s):  # the latter where the limit was lower before
            return False
        self._accepted_s = now_s
        due_s = max(min(self._next_due_s, now_s), now_s - period_s / 2)  # half: images come when they come
        self._next_due_s = due_s + period_s
        return True

    def _is_full(self) -> bool:
        is_full = len(self._images) >= QUEUED_IMAGES
        if is_full and not self._overflowing:
            logger.warning(
                "%d images wait to be processed, the next ones are dropped: play the bag more slowly", QUEUED_IMAGES
            )
        # Until there is room again: a model that is too slow makes a place with every image that it takes.
        self._overflowing = is_full or (self._overflowing and len(self._images) > QUEUED_IMAGES // 2)
        return is_full

    def submit(self, run: Callable[[], Any], stamp_ns: int = 0) -> Future[Any]:
        """Queue a command; its future raises SessionStoppedError when the worker has ended.

        One about an image that waits in the queue waits for it, and so do those behind it: their order counts.
        """
        command = Command(run, stamp_ns)
        with self._changed:
            if self._closed:
                command.done.set_exception(SessionStoppedError(self._closed))
                return command.done
            self._commands.append(command)
            self._changed.notify_all()
        return command.done

    def wait(self) -> bool:
        """Return when there is something to take; False when nothing ever will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._commands or self._images)
            return not self._closed

    def take(self) -> tuple[list[Command], Arrival | None] | None:
        """What is there now: the commands that wait, and the next image; None when the mailbox is closed."""
        with self._changed:
            if self._closed:
                return None
            commands = []
            while self._commands and not self._is_early(self._commands[0]):
                commands.append(self._commands.popleft())
            self._claimed = None
            self._taken = self._images.popleft() if self._images else None
            return commands, self._taken

    @property
    def stamps_ns(self) -> list[int]:
        """Of the image that was taken last, unless commands alone were taken since, and of those that wait."""
        with self._changed:
            return [image.stamp_ns for image in (self._taken, *self._images) if image is not None]

    @property
    def has_image(self) -> bool:
        """Whether one waits."""
        with self._changed:
            return bool(self._images)

    def claim(self, over: threading.Event) -> Arrival | None:
        """Wait for the next image. It stays until it is taken: a newer one waits behind it, in one slot.

        None once ``over`` is set (and ``wake`` called), or when the mailbox is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._images or self._closed or over.is_set())
            self._claimed = None if over.is_set() or self._closed else self._images[0]
            return self._claimed

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def _is_early(self, command: Command) -> bool:
        """Whether the command is about an image that waits behind the next one."""
        stamps_ns = [image.stamp_ns for image in self._images]
        return bool(stamps_ns) and stamps_ns[0] < command.stamp_ns <= max(stamps_ns)

    def set_enabled(self, enabled: bool) -> None:
        with self._changed:
            self._enabled = enabled
            if not enabled:
                self._forget_images()

    def close(self, reason: str) -> None:
        """Take nothing any more, and tell who waits for a command."""
        with self._changed:
            self._closed = self._closed or reason
            left = list(self._commands)
            self._commands.clear()
            self._forget_images()
            self._changed.notify_all()
        fail_all((command.done for command in left), SessionStoppedError(reason))


def fail_all(futures: Iterable[Future[Any]], error: Exception) -> None:
    """Let those of them that have not been cancelled raise ``error``."""
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
