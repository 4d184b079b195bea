"""Check a file before it is opened: opening a FIFO waits for ever, and a device may have no end.

Without torch and without ROS, for every reader of files that a user or a request names.
"""

from __future__ import annotations

import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
}


class NotRegularFileError(ValueError):
    """Something else than a regular file with content, or one that is too large; the message begins with the path."""


def check_regular_file(path: Path, largest_bytes: int) -> None:
    """Reject anything but a regular file of 1 to ``largest_bytes`` bytes, without opening it. Links are followed.

    Empty files are rejected, too: the files of /proc claim to be empty, and reading some of them never ends.

    Raises:
        NotRegularFileError: what was found instead.
        OSError: there is no such file, or its properties cannot be read.
    """
    found = path.stat()
    check_kind(path, found.st_mode)
    if found.st_size == 0:
        raise NotRegularFileError(f"{path} is an empty file")
    if found.st_size > largest_bytes:
        raise NotRegularFileError(f"{path} is too large: {found.st_size} bytes; at most {largest_bytes} are read")


def check_kind(path: Path, mode: int) -> None:
    """NotRegularFileError unless ``mode`` (``st_mode``) is that of a regular file."""
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegularFileError(f"{path} is {kind}: expected a regular file")
