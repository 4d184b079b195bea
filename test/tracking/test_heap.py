"""Whether freed memory stays with the process: a page taken anew would be a page fault."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sam2_ros.tracking import heap

FAULTS = """
import resource, sys, threading
import torch
from sam2_ros.tracking.heap import keep_heap
assert "keep" not in sys.argv or keep_heap()
def fill():
    pieces = [torch.ones(2_500_000) for _ in range(8)]  # of 10 MB, 2441 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def last():
    for _ in range(12):
        before = fill()
    print(fill() - before)
if "thread" in sys.argv:
    thread = threading.Thread(target=last)
    thread.start()
    thread.join()
else:
    last()
"""


def faults(*arguments: str) -> int:
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


@pytest.mark.parametrize("where", ["main", "thread"])
def test_what_was_freed_is_used_again_without_page_faults(where: str) -> None:
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        assert not heap.keep_heap()
        pytest.skip("the C library here is not glibc: run on a GNU/Linux to see memory kept")
    assert faults(where, "keep") < 200


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not heap.keep_heap()
