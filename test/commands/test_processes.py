"""Processes that belong together: nothing is left behind, whatever happens."""

from __future__ import annotations

import functools
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sam2_ros.commands import processes
from sam2_ros.commands.processes import ProcessError, Program, free_domain, running

WAIT_FOREVER = "import signal, sys; print('waiting', flush=True); signal.pause()"
DEADLINE_S = 20.0


def program(name: str, code: str, *, may_end: bool = False) -> Program:
    return Program(name, (sys.executable, "-c", code), may_end)


def has_ended(pid: int) -> bool:
    """Also true of a zombie, which in a container may stay when nobody adopts it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_processes_say_is_relayed_with_their_names() -> None:
    out = io.StringIO()
    with running([program("a", "print('hello')")], os.environ, out=out) as group:
        group.wait_for("a", DEADLINE_S)
    assert out.getvalue() == "[a] hello\n"


def test_the_others_are_ended_when_the_awaited_one_is_done(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    waiting = f"import os, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); " + WAIT_FOREVER
    done = f"import os\nwhile not (os.path.exists({str(note)!r}) and os.path.getsize({str(note)!r})): pass"
    with running([program("node", waiting), program("client", done)], os.environ, out=io.StringIO()) as group:
        group.wait_for("client", DEADLINE_S)
    assert has_ended(int(note.read_text()))


def test_where_one_cannot_be_started_those_before_it_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> Any:
        if started:
            raise OSError("no more processes")
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    programs = [program("node", WAIT_FOREVER), program("client", WAIT_FOREVER)]
    with pytest.raises(OSError, match="no more processes"), running(programs, os.environ, out=io.StringIO()):
        pass
    assert started[0].poll() is not None


def test_a_process_that_dies_early_is_named_with_its_last_words() -> None:
    broken = program("node", "print('no such checkpoint'); raise SystemExit(3)")
    with (
        pytest.raises(ProcessError, match=r"(?s)node ended with status 3, although client.*no such checkpoint"),
        running([broken, program("client", WAIT_FOREVER)], os.environ, out=io.StringIO()) as group,
    ):
        group.wait_for("client", DEADLINE_S)


def test_a_process_that_may_end_early_may_not_fail() -> None:
    bad = program("camera", "raise SystemExit(1)", may_end=True)
    with (
        pytest.raises(ProcessError, match="camera ended with status 1"),
        running([bad, program("client", WAIT_FOREVER)], os.environ, out=io.StringIO()) as group,
    ):
        group.wait_for("client", DEADLINE_S)


def test_a_process_that_may_end_early_does_not_disturb(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    camera = program("camera", f"open({str(mark)!r}, 'w').close()", may_end=True)
    client = program("client", f"import os\nwhile not os.path.exists({str(mark)!r}): pass")
    with running([camera, client], os.environ, out=io.StringIO()) as group:
        group.wait_for("client", DEADLINE_S)
        assert mark.exists()


def test_failure_of_the_awaited_process_is_told() -> None:
    with (
        pytest.raises(ProcessError, match=r"(?s)client ended with status 1.*\(nothing\)"),
        running([program("client", "raise SystemExit(1)")], os.environ, out=io.StringIO()) as group,
    ):
        group.wait_for("client", DEADLINE_S)


def test_taking_too_long_is_an_error() -> None:
    with (
        pytest.raises(ProcessError, match="client has not finished within 0 s"),
        running([program("client", WAIT_FOREVER)], os.environ, out=io.StringIO()) as group,
    ):
        group.wait_for("client", 0.05)


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    out = io.StringIO()
    with running([program("deaf", deaf)], os.environ, out=out, grace_s=0.2) as group:
        while "deaf" not in out.getvalue():
            assert group._members["deaf"].process.poll() is None
        process = group._members["deaf"].process
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_cannot_be_killed_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits for a device that hangs."""
    waited_s: list[float | None] = []

    def wait(process: subprocess.Popen[str], timeout: float | None = None) -> int:
        waited_s.append(timeout)
        raise subprocess.TimeoutExpired(process.args, timeout or 0.0)

    with running([program("hangs", WAIT_FOREVER)], os.environ, out=io.StringIO(), grace_s=0.01) as group:
        process = group._members["hangs"].process
        monkeypatch.setattr(process, "wait", functools.partial(wait, process))
    assert len(waited_s) == 2 and None not in waited_s


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that it was killed: run it there")
def test_children_end_when_their_parent_is_killed() -> None:
    parent_code = f"""
import os, sys
from sam2_ros.commands.processes import Program, running
with running([Program("node", (sys.executable, "-c", {WAIT_FOREVER!r}))], os.environ, out=sys.stdout) as group:
    print(group._members["node"].process.pid, flush=True)
    group.wait_for("node", 60)
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(min(parent.stdout.readline().strip() for _ in range(2)))  # of "12345" and "[node] waiting"
    parent.kill()
    parent.wait(DEADLINE_S)
    parent.stdout.close()
    deadline_s = time.monotonic() + DEADLINE_S
    while not has_ended(child):
        assert time.monotonic() < deadline_s, "the child outlived its parent"


def test_two_demos_at_once_get_different_domains() -> None:
    with free_domain() as first, free_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, 101))


def test_a_domain_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_domain() as mine:
        monkeypatch.setattr(processes, "_DOMAINS", range(mine, mine + 1))
        with pytest.raises(RuntimeError, match=f"no free ROS_DOMAIN_ID in {mine}..{mine}"), free_domain():
            pass


def test_a_domain_in_which_a_ros_process_listens_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with free_domain() as mine:
        pass
    monkeypatch.setattr(processes, "_DOMAINS", range(mine, mine + 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7400 + 250 * mine + 10))
        with pytest.raises(RuntimeError, match="name one with --domain-id"), free_domain():
            pass
