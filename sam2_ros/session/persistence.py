"""A session as a file: written aside and put in place whole, read with suspicion. ROS-free.

The file is what ``torch.save`` makes of plain values and tensors. What has torch in it is imported on first use.
"""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sam2_ros.session.saved_book import SessionFileError

LARGEST_BYTES = 4 << 30  # a file may take so much memory when it is read


def session_path(wanted: str) -> Path:
    """The absolute path that a request means; without one, a name with the time in it."""
    name = wanted or time.strftime("sam2_session_%Y%m%d_%H%M%S.pt")
    if "\0" in name:
        raise SessionFileError(f"path: expected the name of a file, got {name!r}")
    try:
        return Path(name).expanduser().absolute()
    except RuntimeError as error:
        raise SessionFileError(f"path: {name!r} begins with the home of a user who is not known: {error}") from error


def write_session(path: Path, saved: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the file, or leave what is there as it was.

    Raises:
        SessionFileError: there is such a file and ``overwrite`` is not set, or it cannot be written.
    """
    import torch

    aside: Path | None = None
    try:
        if path.is_dir():
            raise SessionFileError(f"{path} is a folder: expected the path of a file")
        if path.exists() and not overwrite:
            raise SessionFileError(f"{path} exists: set overwrite, or name another file")
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        aside = Path(name)
        with os.fdopen(handle, "wb") as file:
            torch.save(dict(saved), file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
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
        with zipfile.ZipFile(path) as archive:
            _check_archive(path, archive)
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except SessionFileError:
        raise
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
