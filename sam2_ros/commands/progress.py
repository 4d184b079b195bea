"""Progress of long commands, on standard error: a line that is written over, or a line now and then in a log."""

from __future__ import annotations

import sys
import time

_LOG_EVERY_S = 10.0  # at most, where standard error is no terminal


class Progress:
    """Shows how far a command is."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Show a line in place of the one before."""
        if self._on_terminal:
            print(f"\r{text} \x1b[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last_s >= _LOG_EVERY_S:
            self._last_s = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off a terminal, before something else is printed."""
        if self._on_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
