"""A run that was killed goes on as if it had not been, and several processes train as one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROUNDING_WEIGHTS = 1e-5

# Arguments: photographs, folder of the run, step at which this process is killed (0: never).
PROGRAM = """
import os, signal, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch
from tiny_model import TINY
from sam2_ros.model.config import MODELS
from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.training import train as train_module
from sam2_ros.training.config import PromptMix, Stage, TrainConfig

MODELS[TINY.name] = TINY
photos, out, kill_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if kill_at:
    update = train_module._update
    def update_or_die(run, *args):
        if run.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        update(run, *args)
    train_module._update = update_or_die
# Adam divides each gradient by its own size: where the true one is zero, rounding by rounding, so that such weights go
# anywhere. With a larger epsilon a step is as long as its gradient, and rounding stays as small as it is.
torch.optim.AdamW = partial(torch.optim.AdamW, eps=1e-2)
models = []
build = train_module.build_for_training
train_module.build_for_training = lambda *args: models.append(build(*args)) or models[-1]
# Three objects at most: clips have different numbers of them, so the two processes have, too.
image = Stage(
    steps=2, size_px=64, frames=1, clips_per_batch=2, lr=1e-3, lr_end=1e-4, trunk_lr=1e-4, objects_per_clip=3
)
stages = (image, replace(image, steps=5, frames=3))
mix = PromptMix(max_corrections=2, later_correction_probability=0.5)
config = TrainConfig(
    TINY.name, stages, (PhotoFolder(photos),), workers=1, threads=1, log_every=1, save_every=2, prompts=mix, bf16=False
)
train_module.train(config, out)
torch.save(models[0].state_dict(), out / f"rank{os.environ.get('RANK', 0)}.pt")
"""


def start(photos: Path, out: Path, kill_at: int = 0, processes: int = 1) -> subprocess.CompletedProcess[str]:
    script = out.parent / "program.py"
    script.write_text(PROGRAM)
    path = [
        str(Path(__file__).parents[1] / "support"),
        str(Path(__file__).parents[2]),
        os.environ.get("PYTHONPATH", ""),
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), str(photos), str(out), str(kill_at)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Steps along the same gradients but for rounding."""
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=0, atol=ROUNDING_WEIGHTS, msg=lambda text, name=name: f"{name}: {text}"
        )


def log_of(out: Path) -> list[dict[str, str]]:
    """Its rows but for the time they took."""
    with (out / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(shared_photo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of one process that nobody disturbed."""
    out = tmp_path_factory.mktemp("training") / "whole"
    done = start(shared_photo_root, out)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_killed_run_goes_on_as_if_it_had_not_been(shared_photo_root: Path, tmp_path: Path, whole: Path) -> None:
    """Killed during its sixth step, two steps into the second stage and one after the last save."""
    killed = tmp_path / "killed"
    assert start(shared_photo_root, killed, kill_at=5).returncode == -signal.SIGKILL
    assert [row["step"] for row in log_of(killed)] == ["1", "2", "3", "4", "5"]
    assert torch.load(killed / "last.pt", weights_only=True)["step"] == 4
    (killed / "last.part").write_bytes(b"half a checkpoint")
    done = start(shared_photo_root, killed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(log_of(whole)) == 7
    for ours, theirs in zip(log_of(killed), log_of(whole), strict=True):
        assert {name: float(value) for name, value in ours.items()} == pytest.approx(
            {name: float(value) for name, value in theirs.items()}, rel=1e-3, abs=1e-3, nan_ok=True
        )
    for part in ("model", "ema"):
        assert_same_weights(*(torch.load(out / "last.pt", weights_only=True)[part] for out in (killed, whole)))


@pytest.mark.numeric
def test_two_processes_train_as_one(shared_photo_root: Path, tmp_path: Path, whole: Path) -> None:
    two = tmp_path / "two"
    done = start(shared_photo_root, two, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in log_of(two)] == [str(step) for step in range(1, 8)]
    expected, first, second = (
        torch.load(path, weights_only=True) for path in (whole / "rank0.pt", two / "rank0.pt", two / "rank1.pt")
    )
    assert all(torch.equal(second[name], value) for name, value in first.items()), "the two went apart"
    assert_same_weights(first, expected)
    # Part of every checkpoint, used by nothing: no gradient, so no weight decay either.
    assert torch.equal(first["no_mem_pos_enc"], expected["no_mem_pos_enc"])
