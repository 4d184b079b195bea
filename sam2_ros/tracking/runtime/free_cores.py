"""PyTorch's number of threads follows the cores that other processes leave free.

PyTorch splits each operation among its threads, which wait actively for the last one. Where another process keeps a
core busy, that one is not scheduled, and all wait: with two threads beside two busy ones a step of nano went from 56 ms
to more than 2 s now and then. One thread waits for nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_WINDOW_S = 0.5  # over which load is measured
_QUIET_WINDOWS = 4  # in a row, before a thread more
# A core is free when others take less than this of it. On two cores, a neighbour with one busy thread gets two thirds
# of a core beside two threads of ours; a camera and its driver take less than half of one.
_TOLERATED_LOAD = 0.6
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal


@dataclass(frozen=True)
class Usage:
    """Processor time so far, in seconds of one core."""

    at_s: float
    everybody_s: float  # on the cores that this process may use
    own_s: float  # of this process
    cores: int


def read_usage(stat: Path = Path("/proc/stat")) -> Usage | None:
    """Now; None where the system has no /proc/stat."""
    try:
        allowed = os.sched_getaffinity(0)
        lines = stat.read_text(encoding="ascii").splitlines()
    except (OSError, AttributeError):  # not Linux
        return None
    ticks = 0
    for line in lines:
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in allowed:
            ticks += sum(int(values[field]) for field in _BUSY_FIELDS if field < len(values))
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time(), len(allowed))


class FreeCores:
    """A number of threads between 1 and ``limit``: fewer at once when others need cores, more only after a while.

    Args:
        limit: threads while the machine has nothing else to do.
        read: the usage now.
    """

    def __init__(self, limit: int, read: Callable[[], Usage | None] = read_usage) -> None:
        self.limit = self.threads = limit
        self._read, self._last, self._quiet = read, read(), 0

    def update(self) -> int:
        """The number of threads from now on; looks at the load when the last look was a while ago."""
        if self._last is None or time.monotonic() - self._last.at_s < _WINDOW_S:
            return self.threads
        now = self._read()
        if now is None or (passed_s := now.at_s - self._last.at_s) < _WINDOW_S:
            return self.threads
        others_s = (now.everybody_s - self._last.everybody_s) - (now.own_s - self._last.own_s)
        free = now.cores - max(others_s, 0.0) / passed_s
        self._last = now
        wanted = min(max(int(free + _TOLERATED_LOAD), 1), self.limit)
        self._quiet = self._quiet + 1 if wanted > self.threads else 0
        if wanted < self.threads or self._quiet >= _QUIET_WINDOWS:
            self.threads, self._quiet = wanted, 0
        return self.threads


class ThreadFollower:
    """Sets PyTorch's number of threads, which is one for the whole process, between two frames."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cores: FreeCores | None = None

    def follow(self) -> None:
        """To be called in the thread that computes. What somebody else has set since then is the limit from now on."""
        with self._lock:
            found = torch.get_num_threads()
            if self._cores is None or found != self._cores.threads:
                self._cores = FreeCores(found)
            if (threads := self._cores.update()) != found:
                torch.set_num_threads(threads)


FOLLOWER = ThreadFollower()
