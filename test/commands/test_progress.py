"""Progress: one bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from tqdm import std

from sam2_ros.commands.progress import Progress


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now_s = [100.0]
    monkeypatch.setattr(std, "time", lambda: now_s[0])
    return lambda seconds: now_s.__setitem__(0, now_s[0] + seconds)


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("frame") as progress:
        for step in range(25):  # one a second
            pass_time(1)
            progress("bear", step + 1, 25)
        progress.clear()
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert output.out == "" and "\r" not in output.err
    assert [line.split("|")[-1].split()[0] for line in lines] == ["10/25", "20/25", "25/25"]
    assert all(line.startswith("bear") and "1.00frame/s" in line for line in lines)


def test_what_has_no_number_is_shown_with_the_time_it_takes(
    pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as progress:
        pass_time(65)
        progress("compiling")
    assert capsys.readouterr().err.splitlines()[0] == "compiling [01:05]"


def test_a_terminal_shows_one_bar_and_is_left_clean(
    pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("frame") as progress:
        for step in (1, 2):
            pass_time(1)
            progress("bear", step, 2)
    output = capsys.readouterr()
    shown = [part.strip() for part in output.err.split("\r") if part.strip()]
    assert output.out == "" and "\n" not in output.err
    assert ["1/2" in shown[0], "2/2" in shown[1]] == [True, True] and len(shown) == 2
    assert output.err.endswith("\r")


def test_a_new_stretch_starts_again(pass_time: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("frame") as progress:
        for name in ("bear", "bus"):
            for step in range(2):
                pass_time(10)
                progress(name, step + 1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert [(line.split(":")[0], line.split("|")[-1].split()[0]) for line in lines[:4]] == [
        ("bear", "1/2"),
        ("bear", "2/2"),
        ("bus", "1/2"),
        ("bus", "2/2"),
    ]
