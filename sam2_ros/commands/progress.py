"""Progress of long commands, on standard error: a line that is written over, or a line now and then in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """Shows how far a command is.

    Args:
        every_s: where standard error is no terminal, there is a new line at most this often.
    """

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._last_s = time.monotonic()
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Show a line in place of the one before."""
        if self._on_terminal:
            print(f"\r{text} \x1b[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last_s >= self._every_s:
            self._last_s = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off a terminal, before something else is printed."""
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
