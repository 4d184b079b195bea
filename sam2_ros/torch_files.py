"""Errors of ``torch.save`` and ``torch.load`` that say what is wrong with the file. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast


@contextmanager
def failed_writes_as_os_errors(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file for ``torch.save`` to write into.

    Raises:
        OSError: a write has failed, as on a full disk; torch itself raises a RuntimeError about "unexpected pos".
    """
    target = _Target(file)
    try:
        yield cast("IO[bytes]", target)  # it has all methods that torch calls
    except Exception:
        if target.failure is None:
            raise
    if target.failure is not None:  # not in the handler: the OSError is the cause, not the error that followed from it
        raise target.failure


class _Target:
    """A file that keeps the reason for which a write has failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self._file.flush()


def why_unreadable(error: Exception) -> str:
    """The reason for which ``torch.load(..., weights_only=True)`` or the use of its result has failed, on one line.

    Torch's own text advises to set ``weights_only`` to False, which lets a file run code.
    """
    text = str(error)
    if "weights_only" in text or "weights only" in text.lower():
        return "it is damaged, or holds something else than tensors and plain values; nothing of it was run"
    first_line = text.strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
