"""``colcon test``: what a ROS installation brings to pytest, and what it is without, must not end the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Entry points of ROS 2 Jazzy: launch_testing, launch_testing_ros and launch_pytest.
ROS_PLUGINS = ("launch_testing", "launch_ros", "launch_pytest")
# Of one name in two folders, and one folder whose conftest names a hook of pytest-xdist.
FILES = ("test/parity/test_mask_generator.py", "test/tracking/test_mask_generator.py")


def collect(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Collect the tests of FILES without pytest-xdist, beside plugins that are as ill-behaved as those of ROS."""
    (tmp_path / "imports_by_bare_name.py").write_text(
        "import importlib.util\n"
        "def pytest_pycollect_makemodule(module_path, parent):\n"
        "    raise RuntimeError(f'imported {module_path.stem} by its bare name')\n"
    )
    for name in ROS_PLUGINS:
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[pytest11]\n{name} = imports_by_bare_name\n")
    (tmp_path / "xdist.py").write_text("raise ImportError('not installed')\n")
    without_xdist = ("-p", "no:xdist", "-p", "no:xdist.looponfail")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *without_xdist, *FILES],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_tests_are_found_beside_the_plugins_of_ros_and_without_xdist(tmp_path: Path) -> None:
    done = collect(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert all(f"{path}::" in done.stdout for path in FILES)


@pytest.mark.parametrize("name", ROS_PLUGINS)
def test_the_plugins_of_ros_are_left_out_by_name(name: str, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.is_blocked(name)
