"""A session as a file: written to a temporary file that atomically replaces the old one, and checked when it is read.

The file is what ``torch.save`` makes of plain values and tensors. Torch is imported on first use.
"""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sam2_ros.regular_files import NotRegularFileError, check_kind, check_regular_file
from sam2_ros.saved_values import (
    SavedStateError,
    check_dict,
    check_integer,
    check_keys,
    check_list,
    check_sendable_text,
)
from sam2_ros.torch_files import failed_writes_as_os_errors, why_unreadable

LARGEST_BYTES = 4 << 30  # largest memory that reading a file may take
FORMAT = "sam2_ros session 1"
# The stamps that a message can hold.
EARLIEST_NS, LATEST_NS = -(1 << 31) * 1_000_000_000, (1 << 31) * 1_000_000_000 - 1
LARGEST_NUMBER = (1 << 63) - 1  # of a name that the session chooses


class SessionFileError(ValueError):
    """A session that cannot be written or read; the message says which, what was expected and what came."""


@dataclass(frozen=True)
class SavedObject:
    """What the session knows about an object and the tracker does not."""

    object_id: str
    class_id: str
    first_seen_ns: int
    last_seen_ns: int


@dataclass(frozen=True)
class SessionSnapshot:
    """A whole session as it is saved."""

    tracker_state: Any  # checked by the tracker
    next_number: int  # of names that the session chooses
    objects: tuple[SavedObject, ...]

    def to_plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "tracker": self.tracker_state,
            "next_number": self.next_number,
            "objects": [asdict(each) for each in self.objects],
        }

    @staticmethod
    def from_plain(plain: object) -> SessionSnapshot:
        """The snapshot of plain values. SavedStateError when they are not a session or contradict each other."""
        values = check_keys(plain, ("format", "tracker", "next_number", "objects"), "session")
        if values["format"] != FORMAT:
            raise SavedStateError(f"format: expected {FORMAT!r}, got {values['format']!r}")
        tracked = check_list(check_dict(values["tracker"], "tracker").get("objects"), "tracker: objects")
        objects = tuple(
            _object(each, f"objects[{place}]") for place, each in enumerate(check_list(values["objects"], "objects"))
        )
        tracked_ids = [each.get("object_id") if isinstance(each, dict) else None for each in tracked]
        if [each.object_id for each in objects] != tracked_ids:
            raise SavedStateError(f"objects: expected those of the tracker, {tracked_ids}")
        number = check_integer(values["next_number"], "next_number", 1, LARGEST_NUMBER)
        return SessionSnapshot(values["tracker"], number, objects)


def session_path(wanted: str, session_dir: str = "") -> Path:
    """The absolute path of a request; an empty one becomes a name with the current time.

    With ``session_dir`` a relative path begins there, and the result has its links resolved and lies in that folder.

    Raises:
        SessionFileError: no name of a file, no such folder, or a path that leads out of it.
    """
    name = wanted or time.strftime("sam2_session_%Y%m%d_%H%M%S.pt")
    path = _expanded(name, "path")
    if not session_dir:
        return path.absolute()
    try:
        folder = _expanded(session_dir, "session_dir").resolve(strict=True)
        resolved = (folder / path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise SessionFileError(f"{name!r} cannot be looked for in session_dir {session_dir!r}: {error}") from error
    if not folder.is_dir() or not resolved.is_relative_to(folder):
        raise SessionFileError(f"path: expected a file in session_dir, {folder}, got {name!r}, which is {resolved}")
    return resolved


def _expanded(name: str, what: str) -> Path:
    if "\0" in name:
        raise SessionFileError(f"{what}: expected the name of a file, got {name!r}")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise SessionFileError(f"{what}: {name!r} begins with the home of a user who is not known: {error}") from error


def write_session(path: Path, saved: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the whole file, or leave an existing one unchanged.

    Raises:
        SessionFileError: there is such a file and ``overwrite`` is not set, or it cannot be written.
    """
    import torch

    aside: Path | None = None
    try:
        path = path.resolve()  # replacing a link itself would leave the file that it names as it was
        if path.exists():
            check_kind(path, path.stat().st_mode)
            if not overwrite:
                raise SessionFileError(f"{path} exists: set overwrite, or name another file")
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        aside = Path(name)
        with os.fdopen(handle, "wb") as file:
            with failed_writes_as_os_errors(file) as target:
                torch.save(dict(saved), target)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except NotRegularFileError as error:
        raise SessionFileError(f"{error}; nothing was changed") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, where a write to the file has failed
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise SessionFileError(f"{path} could not be written: {error}; nothing was changed") from error


def read_session(path: Path) -> Mapping[str, Any]:
    """What ``write_session`` has written; nothing in the file is executed.

    Its values are not validated yet: ``SessionSnapshot.from_plain`` and the tracker's ``load_state`` do that.

    Raises:
        SessionFileError: no such file, not one of ours, damaged, or larger than ``LARGEST_BYTES`` in memory.
    """
    import torch

    try:
        check_regular_file(path, LARGEST_BYTES)
        with zipfile.ZipFile(path) as archive:
            _check_archive(path, archive)
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except SessionFileError:
        raise
    except NotRegularFileError as error:
        raise SessionFileError(f"{error}; it is not a session and was not opened") from error
    except OSError as error:
        raise SessionFileError(f"{path} could not be read: {error}") from error
    except Exception as error:  # zipfile, pickle and torch raise many kinds
        raise SessionFileError(f"{path} is not a session or damaged ({why_unreadable(error)})") from error
    if not isinstance(plain, dict):
        raise SessionFileError(f"{path} is not a session: expected a dict, got {type(plain).__name__}")
    return plain


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if size > LARGEST_BYTES or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SessionFileError(f"{path} is not a session: {size} bytes, or packed; at most {LARGEST_BYTES} are read")
    damaged = archive.testzip()
    if damaged is not None:
        raise SessionFileError(f"{path} is damaged: the checksum of {damaged} is wrong")


def _object(plain: object, where: str) -> SavedObject:
    values = check_keys(plain, [each.name for each in fields(SavedObject)], where)
    for name in ("object_id", "class_id"):
        check_sendable_text(values[name], f"{where}: {name}")
    for name in ("first_seen_ns", "last_seen_ns"):
        check_integer(values[name], f"{where}: {name}", EARLIEST_NS, LATEST_NS)
    return SavedObject(**values)
