"""A neighbour for measurements: a process that keeps some of the machine's cores busy."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

# Hashing a large block gives other Python threads their turn, so each thread takes what a core gives.
_PROGRAM = """
import hashlib, sys, threading
block = bytes(1 << 20)
def work():
    while True:
        hashlib.sha256(block).digest()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=work, daemon=True).start()
print("busy", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def busy_process(threads: int) -> Iterator[None]:
    """Within it another process computes all the time in so many threads; it ends with this process in any case."""
    command = [sys.executable, "-c", _PROGRAM, str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdout is not None
        try:
            neighbour.stdout.readline()
            yield
        finally:
            neighbour.kill()
