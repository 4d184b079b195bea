"""Process groups: started together, their output relayed, all ended together; and a free ROS domain for them."""

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
KILLED_TIMEOUT_S = 5.0  # for the end of a process that was killed
_PR_SET_PDEATHSIG = 1


class ProcessError(RuntimeError):
    """A process ended too early, failed, or did not end in time; the message ends with its last lines of output."""


@dataclass(frozen=True)
class Program:
    """One process to start."""

    name: str  # prefix of each line that it prints
    command: tuple[str, ...]
    may_end: bool = False  # it may end well before the others


class _Running:
    """A process and its latest output."""

    def __init__(
        self, program: Program, environment: Mapping[str, str], before_exec: Callable[[], object] | None
    ) -> None:
        self.program = program
        # A process session of its own, so that Ctrl-C reaches only us and we end the others in order.
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
        return ProcessError(f"{self.program.name} {what}. Its last lines:\n{last}")

    def end(self, grace_s: float) -> None:
        """Send SIGTERM, and SIGKILL after ``grace_s``."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a device cannot even be killed
            self.process.wait(KILLED_TIMEOUT_S)
        if self._reader is not None:
            self._reader.join(1.0)


class Group:
    """Running processes; see ``running``."""

    def __init__(self, members: Sequence[_Running]) -> None:
        self._members = {member.program.name: member for member in members}

    def wait_for(self, name: str, timeout_s: float) -> None:
        """Wait until this process has ended with status 0.

        Raises:
            ProcessError: it failed, another one ended before it, or it took longer than ``timeout_s``.
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
        """Raise ProcessError if a process has ended that ``who`` still needs."""
        for member in self._members.values():
            early = member.process.poll()
            if early is not None and not (early == 0 and member.program.may_end):
                raise member.failure(f"{_ended(early)}, although {who} still needs it")

    def pid(self, name: str) -> int:
        """The process id."""
        return self._members[name].process.pid


@contextlib.contextmanager
def running(
    programs: Sequence[Program], environment: Mapping[str, str], *, out: TextIO | None = None, grace_s: float = 8.0
) -> Iterator[Group]:
    """Start processes, relay their output to ``out`` (default: standard error), and end all of them on exit.

    They also end when this process is killed; SIGTERM raises SystemExit.
    """
    members: list[_Running] = []
    previous = signal.signal(signal.SIGTERM, _leave) if threading.current_thread() is threading.main_thread() else None
    before_exec = _die_with_parent()
    try:
        # Start all processes before the first thread: forking a process with threads is unsafe.
        for program in programs:
            members.append(
                _Running(program, environment, before_exec)
            )  # one by one, so that the started ones are ended if one fails
        for member in members:
            member.listen(out or sys.stderr)
        yield Group(members)
    finally:
        for member in members:
            if member.process.poll() is None:
                member.process.terminate()  # terminate all before waiting for each
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
    """A ``preexec_fn`` that lets the kernel end the child when this process is killed and cannot clean up."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


# ROS' own domain_coordinator, which tests use, marks a domain as taken by holding this TCP port; so do we.
_MARKER_PORT_BASE = 32768
# Where the first participant of a domain listens (DDS-RTPS 9.6.1.1): 7400 + 250 * domain + 10.
_DDS_PORT_BASE, _DDS_PORTS_PER_DOMAIN, _DDS_UNICAST_OFFSET = 7400, 250, 10
_DOMAINS = range(1, 101)  # higher ones overlap with Linux' ephemeral ports


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Reserve a ROS domain id while the context is active. Raises RuntimeError if none is free."""
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
