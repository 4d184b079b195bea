"""Several processes that belong together: started, listened to, and none left behind."""

from __future__ import annotations

import contextlib
import ctypes
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

POLL_S = 0.1
TAIL_LINES = 25
_PR_SET_PDEATHSIG = 1


class ProcessError(RuntimeError):
    """A process ended when it should not, or did not end when it should; the message ends with its last lines."""


@dataclass(frozen=True)
class Program:
    """One process to start."""

    name: str  # stands before each line that it prints
    command: tuple[str, ...]
    may_end: bool = False  # it may end well before the others


class _Running:
    """A process and what it said last."""

    def __init__(
        self, program: Program, environment: Mapping[str, str], before_exec: Callable[[], object] | None
    ) -> None:
        self.program = program
        # A session of its own: Ctrl-C is for us, and we end the others in order.
        self.process = subprocess.Popen(
            program.command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=before_exec,
        )
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader: threading.Thread | None = None

    def listen(self, out: TextIO) -> None:
        self._reader = threading.Thread(target=self._relay, args=(out,), name=f"log {self.program.name}", daemon=True)
        self._reader.start()

    def _relay(self, out: TextIO) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.tail.append(line.rstrip())
            print(f"[{self.program.name}] {line.rstrip()}", file=out, flush=True)

    def failure(self, what: str) -> ProcessError:
        if self._reader is not None:
            self._reader.join(1.0)
        last = "\n".join(f"    {line}" for line in self.tail) or "    (nothing)"
        return ProcessError(f"{self.program.name} {what}. The last that it said:\n{last}")

    def end(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self._reader is not None:
            self._reader.join(1.0)


class Group:
    """Running processes; see ``running``."""

    def __init__(self, members: Sequence[_Running]) -> None:
        self._members = {member.program.name: member for member in members}

    def wait_for(self, name: str, timeout_s: float) -> None:
        """Wait until this process has ended well.

        Raises:
            ProcessError: it failed, another one ended before it, or it takes longer than ``timeout_s``.
        """
        awaited = self._members[name]
        deadline_s = time.monotonic() + timeout_s
        while True:
            status = awaited.process.poll()
            if status == 0:
                return
            if status is not None:
                raise awaited.failure(_ended(status))
            self.check(name)
            if time.monotonic() > deadline_s:
                raise awaited.failure(f"has not finished within {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def check(self, who: str) -> None:
        """Raise ProcessError when a process has ended that ``who`` still needs."""
        for member in self._members.values():
            early = member.process.poll()
            if early is not None and not (early == 0 and member.program.may_end):
                raise member.failure(f"{_ended(early)}, although {who} still needs it")

    def pid(self, name: str) -> int:
        """The number of this process."""
        return self._members[name].process.pid


@contextlib.contextmanager
def running(
    programs: Sequence[Program], environment: Mapping[str, str], *, out: TextIO | None = None, grace_s: float = 8.0
) -> Iterator[Group]:
    """Start processes, relay what they print to ``out`` (default: standard error), and end them all on leaving.

    They also end when this process is killed, and SIGTERM counts as leaving.
    """
    members: list[_Running] = []
    previous = signal.signal(signal.SIGTERM, _leave) if threading.current_thread() is threading.main_thread() else None
    before_exec = _die_with_parent()
    try:
        # All are started before the first thread is: forking and threads do not mix.
        for program in programs:
            members.append(
                _Running(program, environment, before_exec)
            )  # one by one: those there are ended if one fails
        for member in members:
            member.listen(out or sys.stderr)
        yield Group(members)
    finally:
        for member in members:
            if member.process.poll() is None:
                member.process.terminate()  # all at once, then wait for each
        for member in members:
            member.end(grace_s)
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _leave(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _die_with_parent() -> Callable[[], object] | None:
    """What a child does before it runs, so that the kernel ends it when we are killed without a chance to clean up."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


# ROS' own domain_coordinator, which tests use, marks a domain as taken by holding this TCP port; so do we.
_MARKER_PORT_BASE = 32768
# Where the first participant of a domain listens (DDS-RTPS 9.6.1.1): 7400 + 250 * domain + 10.
_DDS_PORT_BASE, _DDS_PORTS_PER_DOMAIN, _DDS_UNICAST_OFFSET = 7400, 250, 10
_DOMAINS = range(1, 101)  # higher ones reach into the ports that Linux hands out to anybody


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Hold a domain for as long as the context lasts. Raises RuntimeError when all are taken."""
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        with contextlib.ExitStack() as held:
            try:
                marker = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                marker.bind(("", _MARKER_PORT_BASE + domain))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", _DDS_PORT_BASE + _DDS_PORTS_PER_DOMAIN * domain + _DDS_UNICAST_OFFSET))
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError(f"no free ROS_DOMAIN_ID in {_DOMAINS.start}..{_DOMAINS.stop - 1}; name one with --domain-id")
