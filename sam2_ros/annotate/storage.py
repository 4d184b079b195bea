"""How a project is kept on disk so that a crash loses nothing: atomic files, a lock, and an append-only log.

Every function that writes returns when the content is on the disk (fsync): what was answered after it survives
``kill -9`` and a power cut.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sam2_ros.annotate.masklets import ProjectError
from sam2_ros.regular_files import check_kind, check_regular_file

LARGEST_JSON_BYTES = 1 << 30
PARTIAL_PREFIX = ".partial-"  # of what is being written: not part of the project, and removed when it is opened


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file: whoever reads it, at any moment, finds the old content or the new one.

    Raises:
        OSError: it could not be written, on a full disk for instance; the old content is still there.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def is_full_disk(error: BaseException) -> bool:
    """Whether something could not be written because there is no room, or no quota, left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_json(path: Path, values: Any) -> None:
    """``write_atomically`` of compact JSON."""
    write_atomically(path, json_text(values).encode())


def json_text(values: Any) -> str:
    """Compact JSON in one line."""
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ProjectError: there is none, or it is damaged.
    """
    try:
        check_regular_file(path, LARGEST_JSON_BYTES)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectError(f"{path} cannot be read as JSON: {error}") from error


@contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Values of a file that are of another kind than expected become a ProjectError that begins with ``what``."""
    try:
        yield
    except ProjectError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ProjectError(f"{what} cannot be used ({type(error).__name__}: {error})") from error


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: files that were created in it, renamed or removed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class LockHolder:
    """Who has a project open."""

    command: str
    pid: int
    host: str
    since: str  # ISO 8601, UTC


class ProjectLockedError(ProjectError):
    """Another process has the project open for writing; the message says which."""


class ProjectLock:
    """At most one process writes to a project. The system releases the lock when its process ends, however it ends."""

    def __init__(self, path: Path, command: str) -> None:
        """Take the lock; ``command`` tells others who has it.

        Raises:
            ProjectLockedError: another process has it.
        """
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise ProjectLockedError(_held_by(path.parent, holder)) from None
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._file.truncate(0)
        self._file.write(json.dumps(asdict(LockHolder(command, os.getpid(), socket.gethostname(), since))))
        self._file.flush()

    def release(self) -> None:
        """Let others write. May be called more than once."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()


def _held_by(project: Path, holder: str) -> str:
    try:
        who = LockHolder(**json.loads(holder))
        described = f"{who.command} (process {who.pid} on {who.host}, since {who.since})"
    except (ValueError, TypeError):  # between taking the lock and writing the name
        described = "another process"
    return f"{project} is open in {described}: close that first"


@dataclass(frozen=True)
class Interaction:
    """One thing a person or a command did."""

    time_s: float  # since 1970, UTC
    action: str  # see ``InteractionLog``
    recording: str = ""
    masklet: str = ""
    frame: int | None = None
    phase: int | None = None  # 1, 2 or 3
    details: Mapping[str, Any] = field(default_factory=dict)


class InteractionLog:
    """Every interaction, one JSON line each, only ever appended to.

    The report is computed from it, so actions have fixed names: "open", "close" (of the page or a command), "view" (a
    frame or masklet was looked at), "add", "remove", "rename", "click", "box", "brush", "erase", "clear", "lock",
    "unlock", "undo", "redo", "propagate", "cancel", "verdict" (details: verdict), "import", "export".
    """

    ACTIONS = (
        *("open", "close", "view", "add", "remove", "rename", "click", "box", "brush", "erase", "hold", "clear"),
        *("lock", "unlock", "undo", "redo", "propagate", "cancel", "verdict", "import", "export"),
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()

    def append(
        self,
        action: str,
        *,
        recording: str = "",
        masklet: str = "",
        frame: int | None = None,
        phase: int | None = None,
        time_s: float | None = None,
        **details: Any,
    ) -> Interaction:
        """Write one interaction, of now unless ``time_s`` says otherwise; on the disk when this returns.

        Raises:
            ProjectError: an unknown action.
            OSError: it could not be written; the log is as it was.
        """
        if action not in self.ACTIONS:
            raise ProjectError(f"action: expected one of {', '.join(self.ACTIONS)}, got {action!r}")
        entry = Interaction(
            time.time() if time_s is None else time_s, action, recording, masklet, frame, phase, details
        )
        line = json.dumps({name: value for name, value in asdict(entry).items() if value not in ("", None, {})})
        with self._mutex:
            _append(self._path, line.encode() + b"\n")
        return entry

    def __iter__(self) -> Iterator[Interaction]:
        """All interactions in order. A last line that a crash cut off is left out: it was never answered."""
        if not self._path.exists():
            return
        check_kind(self._path, self._path.stat().st_mode)
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                with suppress(ValueError, TypeError, RecursionError):
                    yield Interaction(**json.loads(line))


def _append(path: Path, line: bytes) -> None:
    """Append a whole line or nothing; after a line that a crash cut off a new one begins."""
    with path.open("a+b", buffering=0) as file:  # a buffer would be written again when the file is closed
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            while line:
                line = line[file.write(line) or 0 :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
