"""Whether freed memory stays with the process: a page taken anew would be a page fault."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sam2_ros.tracking import heap

FAULTS = """
import resource
import torch
from sam2_ros.tracking.heap import keep_heap
assert keep_heap()
def fill():
    for _ in range(3):
        torch.ones(2_500_000)  # 10 MB, 2441 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    before = fill()
print(fill() - before)
"""


def test_what_was_freed_is_used_again_without_page_faults() -> None:
    if not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        assert not heap.keep_heap()
        pytest.skip("the C library here is not glibc: run on a GNU/Linux to see memory kept")
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 100


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not heap.keep_heap()
