"""Whether freed memory stays with the process: a page taken anew would be a page fault."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from sam2_ros import heap

FAULTS = """
import resource, sys, threading
import torch
from sam2_ros.heap import keep_heap
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


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


class Computation:
    """Raises what it is told to, then returns 5."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.done: list[str] = []

    def free(self) -> None:
        self.done.append("free")

    def __call__(self) -> int:
        self.done.append("run")
        if self.errors:
            raise self.errors.pop(0)
        return 5


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["device", "machine", "allocator"])
def test_without_memory_it_is_freed_and_tried_once_more(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    once, twice = Computation(error), Computation(error, error)
    for each in (once, twice):
        monkeypatch.setattr(heap, "free_unused_memory", each.free)
        if each is once:
            assert heap.retried_out_of_memory(each) == 5
        else:
            with pytest.raises(type(error)):
                heap.retried_out_of_memory(each)
        assert each.done == ["run", "free", "run"]


def test_other_errors_are_not_tried_again() -> None:
    computation = Computation(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        heap.retried_out_of_memory(computation)
    assert computation.done == ["run"]


def test_that_memory_was_short_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    for size in (2, 3):
        heap.retried_out_of_memory(Computation(MemoryError(f"{size} GiB for the attention of this test")))
    heap.retried_out_of_memory(Computation(MemoryError("2 GiB for something else in this test")))
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory (MemoryError: 2 GiB for {what} this test): it was enough once unused memory had been freed"
        for what in ("the attention of", "something else in")
    ]


def test_freeing_can_always_be_asked_for() -> None:
    heap.free_unused_memory()
