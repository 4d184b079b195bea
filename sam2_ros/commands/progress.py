"""Progress of long commands on standard error, by tqdm: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys

from tqdm import tqdm

tqdm.monitor_interval = 0  # no monitoring thread: it adapts miniters, which is fixed here
_LOG_EVERY_S = 10.0  # at most one line in this time, where standard error is no terminal


class Progress:
    """A bar that is told where a command stands; a context manager that removes it from a terminal at the end."""

    def __init__(self, unit: str = "it") -> None:
        self._on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            file=sys.stderr if self._on_terminal else _LogLines(),
            unit=unit,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.1 if self._on_terminal else _LOG_EVERY_S,
            miniters=0,  # decide by time alone
            delay=1e-3,  # nothing is shown before the first call
        )

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show what is being done; with ``done`` also how far it is and how fast, with ``total`` the time to go."""
        self._bar.total = total
        self._bar.bar_format = "{desc} [{elapsed}]" if done is None else None
        self._bar.set_description_str(text, refresh=False)
        self._bar.update((done or 0) - self._bar.n)

    def clear(self) -> None:
        """Remove the bar from a terminal before something else is printed."""
        self._bar.clear()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._on_terminal and self._bar.n != self._bar.last_print_n:
            self._bar.refresh()  # a log ends with the last number
        self._bar.close()


class _LogLines:
    """A file that writes each bar as a line of its own, because a log cannot be overwritten."""

    def write(self, text: str) -> None:
        if bar := text.strip():
            print(bar, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
