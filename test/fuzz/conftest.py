"""How long to look for trouble: a few fixed examples in ``make test``; in ``make fuzz`` new ones until time is up.

``FUZZ_SECONDS`` is the time for the whole folder. What failed is kept in ``build/fuzz`` and tried first the next time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    from hypothesis import HealthCheck, settings
    from hypothesis.configuration import set_hypothesis_home_dir
    from hypothesis.database import DirectoryBasedExampleDatabase
except ImportError:  # a ROS workspace may be without it: then the other tests run all the same
    settings, collect_ignore_glob = None, ["test_*.py"]

# A wrong type in a message must fail where it is assigned, not when it is sent.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
HOME = Path(__file__).parents[2] / "build" / "fuzz"
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", 0))

if settings is not None:
    set_hypothesis_home_dir(HOME)
    # Examples run a network, so that how long one takes says nothing.
    settings.register_profile(
        "fixed",
        max_examples=15,
        stateful_step_count=15,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.register_profile(
        "fuzz",
        max_examples=50,
        stateful_step_count=40,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(HOME / "examples"),
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fuzz" if FUZZ_SECONDS else "fixed")

_share_s = 0.0  # of FUZZ_SECONDS for one test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    global _share_s
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    _share_s = FUZZ_SECONDS / max(len(here), 1)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run it again, with other examples, until its share of the time is over."""
    end_s = time.monotonic() + _share_s
    result = yield
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    while time.monotonic() < end_s:
        pyfuncitem.obj(**arguments)
    return result
