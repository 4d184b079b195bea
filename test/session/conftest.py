"""Sessions with the fake tracker, closed at the end of their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from session_rig import SessionRig


@pytest.fixture
def make_rig(fake_tracker: Any) -> Iterator[Callable[..., SessionRig]]:
    """Makes a session with these parameters; a test with another tracker has a fixture of its own."""
    rigs: list[SessionRig] = []

    def make(**values: object) -> SessionRig:
        rigs.append(SessionRig(fake_tracker, **values))
        return rigs[-1]

    yield make
    fake_tracker.gate.set()
    for rig in rigs:
        rig.close()
