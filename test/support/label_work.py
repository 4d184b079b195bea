"""What processes of ``dataset label`` do in tests: they import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from sam2_ros.annotate.label_jobs import LabelJob, Report
from sam2_ros.annotate.masklets import Masklet, Origin, masklet_to_json
from sam2_ros.annotate.recordings import Recording

DEADLINE_S = 60.0


def work(job: LabelJob, report: Report) -> list[dict[str, Any]]:
    """A masklet; a recording named "fails..." raises, "dies_once" kills its process the first time, "dies" always.

    The process that is killed waits until another job has begun, so that the kill meets both.
    """
    name = job.folder.name
    log = job.folder.parent.parent / "tries"
    log.mkdir(exist_ok=True)
    tries = len(list(log.glob(f"{name}.*")))
    (log / f"{name}.{tries}").write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))
    report(1, 2)
    if name.startswith("fails"):
        raise ValueError("this one cannot be labelled")
    if name == "dies" or (name == "dies_once" and tries == 0):
        _wait_for_another(log, name)
        os.kill(os.getpid(), signal.SIGKILL)
    assert len(Recording(job.folder, lambda: None)) > 0
    return [masklet_to_json(Masklet("m0000", "", "thing", origin=Origin.AUTOMATIC))]


def _wait_for_another(log: Path, name: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while all(path.name.startswith(f"{name}.") for path in log.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
