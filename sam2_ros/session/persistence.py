"""A session as a file: written to a temporary file that replaces the old one at once, and checked when it is read.

The file is what ``torch.save`` makes of plain values and tensors. Torch is imported on first use.
"""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sam2_ros.regular_files import NotRegularFileError, check_kind, check_regular_file

LARGEST_BYTES = 4 << 30  # largest memory that reading a file may take
FORMAT = "sam2_ros session 1"
# The stamps that a message can hold [ns].
EARLIEST, LARGEST = -(1 << 31) * 1_000_000_000, (1 << 31) * 1_000_000_000 - 1


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
        """The snapshot of plain values. SessionFileError when they are none, or contradict the tracker's state."""
        values = _mapping(plain, {"format", "tracker", "next_number", "objects"}, "session")
        if values["format"] != FORMAT:
            raise SessionFileError(f"format: expected {FORMAT!r}, got {values['format']!r}")
        state = values["tracker"]
        tracked = state.get("objects") if isinstance(state, dict) else None
        if not isinstance(tracked, list) or not isinstance(values["objects"], list):
            raise SessionFileError("session: expected a tracker's state and a list of objects")
        objects = tuple(_object(each, f"objects[{place}]") for place, each in enumerate(values["objects"]))
        tracked_ids = [each.get("object_id") if isinstance(each, dict) else None for each in tracked]
        if [each.object_id for each in objects] != tracked_ids:
            raise SessionFileError(f"objects: expected those of the tracker, {tracked_ids}")
        return SessionSnapshot(state, _number(values["next_number"], "next_number", 1), objects)


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
    """Write the file at once, or leave an existing one unchanged.

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
            torch.save(dict(saved), file)
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
    """What ``write_session`` has written. Nothing in the file is executed.

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
    except Exception as error:  # zipfile, pickle and torch have many ways to say it
        text = str(error).partition("\n")[0]
        raise SessionFileError(f"{path} is not a session or damaged ({type(error).__name__}: {text})") from error
    if not isinstance(plain, dict):
        raise SessionFileError(f"{path} is not a session: expected a dict, got {type(plain).__name__}")
    for tensor in _tensors_in(plain):
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise SessionFileError(f"{path} is damaged: it has a tensor that claims more values than the file holds")
    return plain


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if size > LARGEST_BYTES or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise SessionFileError(f"{path} is not a session: {size} bytes, or packed; at most {LARGEST_BYTES} are read")
    damaged = archive.testzip()
    if damaged is not None:
        raise SessionFileError(f"{path} is damaged: the checksum of {damaged} is wrong")


def _tensors_in(plain: object) -> Iterator[Any]:
    """Every tensor in nested dicts and lists, each container once."""
    import torch

    seen: set[int] = set()
    left = [plain]
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, dict) else value


def _object(plain: object, where: str) -> SavedObject:
    values = _mapping(plain, {each.name for each in fields(SavedObject)}, where)
    for name in ("object_id", "class_id"):
        if not isinstance(values[name], str) or not _can_be_sent(values[name]):
            raise SessionFileError(f"{where}: {name}: expected a text that a message can hold, got {values[name]!r}")
    for name in ("first_seen_ns", "last_seen_ns"):
        _number(values[name], f"{where}: {name}", EARLIEST)
    return SavedObject(**values)


def _can_be_sent(text: str) -> bool:
    """Whether a ROS string can hold it: lone surrogates have no UTF-8 encoding, and a zero byte would end it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _mapping(plain: object, names: set[str], where: str) -> dict[str, Any]:
    if not isinstance(plain, dict) or set(plain) != names:
        got = sorted(map(repr, plain)) if isinstance(plain, dict) else type(plain).__name__
        raise SessionFileError(f"{where}: expected {', '.join(sorted(names))}; got {got}")
    return plain


def _number(value: object, where: str, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= LARGEST:
        raise SessionFileError(f"{where}: expected a whole number from {lowest} to {LARGEST}, got {value!r}")
    return value
