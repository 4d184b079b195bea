"""How far a command is: one line on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

import pytest

from sam2_ros.commands.progress import Progress


def test_a_log_gets_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress()
    for step in range(25):  # one a second
        progress(f"step {step}")
        now_s += 1
    progress.clear()
    assert capsys.readouterr() == ("", "step 10\nstep 20\n")


def test_a_terminal_shows_each_step_in_the_place_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress()
    progress("step 1")
    progress("step 2")
    progress.clear()
    output = capsys.readouterr()
    assert output.out == "" and "\n" not in output.err
    assert [line.strip(" \x1b[K") for line in output.err.split("\r")] == ["", "step 1", "step 2", ""]
