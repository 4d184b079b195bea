"""The official code of EdgeTAM in a process of its own, beside ours with the same weights; and a busy neighbour."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sam2_ros.evaluation.busy import busy_process
from sam2_ros.evaluation.contenders import Task, network_of, our_contender
from sam2_ros.evaluation.latency import ious
from sam2_ros.evaluation.official_process import OfficialProcess
from sam2_ros.evaluation.official_relatives import environment
from sam2_ros.model.config import model_config
from sam2_ros.tracking.loading import Precision
from sam2_ros.tracking.runtime.free_cores import read_usage

CPU, FLOAT32 = torch.device("cpu"), torch.float32


def missing() -> str:
    try:
        environment("edgetam")
    except ImportError as error:
        return str(error)
    return ""


@pytest.mark.numeric
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_it_follows_the_same_things_with_the_same_weights(tmp_path: Path) -> None:
    config, task = model_config("edgetam", 256), Task.of_tabletop(4, 1, 48, 64)
    with contextlib.closing(OfficialProcess(config, task, CPU, [FLOAT32], tmp_path)) as process:
        (theirs,) = process.contenders
        assert theirs.name == "official float32"
        ours = our_contender("ours", network_of(config, CPU, Precision(FLOAT32, FLOAT32), process.weights), task)
        assert min(ious([ours.step(0)], [theirs.step(0)])) > 0.99
        spent_ms, found = theirs.timed(1, CPU)
        assert spent_ms > 0 and [mask.shape for mask in found.values()] == [(48, 64)]
        # These masks have small holes, which EdgeTAM's code would fill.
        assert 0.1 < found["0"].mean() < 0.95 and min(ious([ours.step(1)], [found])) > 0.99
        assert min(theirs.by_stage(2, CPU).values()) > 0
        with torch.inference_mode():  # as in a comparison
            ours.step(2)
            gflop = ours.count_gflop(3)
        assert 0.5 < gflop / theirs.count_gflop(3) < 1.1  # the same sizes; ours leaves some maps out
        with pytest.raises(RuntimeError, match=r"the process with the official code ended: .*KeyError"):
            process.ask("step", "nobody", 0)


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("model", ["edgetam", "efficienttam_ti"])
def test_compiled_official_code_compiles_what_it_can(model: str) -> None:
    """On a GPU it takes part as compiled; its builder has no option for that, its network has one."""
    code = "import torch; torch.compile = lambda forward, **how: print('compiled', how['mode']) or forward\n"
    code += "from sam2_ros.evaluation.official import build_official\n"
    code += (
        f"for compiled in (False, True): build_official('{model}', 256, compiled=compiled); print('built', compiled)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(model.split("_")[0]),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("compiled", "built"))]
    assert told == ["built False", "compiled max-autotune", "built True"]


def test_a_neighbour_is_busy_as_long_as_it_is_wanted() -> None:
    before = read_usage()
    if before is None:
        pytest.skip("needs /proc/stat, which Linux has")
    with busy_process(1):
        deadline = time.monotonic() + 60
        while True:
            now = read_usage()
            assert now is not None
            others_s = (now.everybody_s - before.everybody_s) - (now.own_s - before.own_s)
            if others_s > 0.3:
                break
            assert time.monotonic() < deadline, "it is not busy"
            time.sleep(0.05)
