"""The loop: what it writes, that it can be killed and go on, and that several processes train one model."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import noise_frames

from sam2_ros import load_tracker
from sam2_ros.training import train as train_module
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.train import build_for_training, train

STAGE = Stage(steps=4, size_px=64, frames=2, clips_per_batch=2, lr=1e-3, lr_end=0.0, trunk_lr=1e-4)


@pytest.fixture
def config(photo_root: Path, tiny_entry: str) -> TrainConfig:
    return TrainConfig(tiny_entry, (str(photo_root),), (STAGE,), workers=0, threads=1, save_every=1, log_every=1)


def with_steps(config: TrainConfig, *steps: int) -> TrainConfig:
    return replace(config, stages=tuple(replace(STAGE, steps=count) for count in steps))


def log_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def last_of(out: Path) -> dict[str, Any]:
    return torch.load(out / "last.pt", weights_only=True)


def test_run_writes_weights_a_checkpoint_and_a_log(config: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert train(config, out) == out / "weights.pt"
    assert sorted(path.name for path in out.iterdir()) == ["last.pt", "log.csv", "weights.pt"]
    rows = log_of(out)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 8.54e-4, 5e-4, 1.46e-4])
    assert all(float(row["loss"]) > 0 for row in rows)
    state = last_of(out)
    assert state["step"] == 4
    start = build_for_training(config, 64).state_dict()
    assert any(not torch.equal(state["model"][name], value) for name, value in start.items())
    assert all(value.isfinite().all() for value in state["ema"].values())


def test_weights_are_a_checkpoint_for_the_tracker(config: TrainConfig, tmp_path: Path) -> None:
    weights = train(with_steps(config, 1), tmp_path)
    tracker = load_tracker(config.model, weights)
    tracker.add_prompt("mug", points=[[20, 20]], labels=[1])
    assert len(tracker.step(noise_frames(1)[0])) == 1


def test_longer_run_goes_on_at_the_step_where_the_shorter_one_ended(config: TrainConfig, tmp_path: Path) -> None:
    train(with_steps(config, 2), tmp_path)
    before = last_of(tmp_path)
    train(with_steps(config, 2, 2), tmp_path)
    after = last_of(tmp_path)
    assert [(row["step"], row["stage"]) for row in log_of(tmp_path)] == [("1", "0"), ("2", "0"), ("3", "1"), ("4", "1")]
    assert (before["step"], after["step"]) == (2, 4)
    assert {float(moments["step"]) for moments in after["optimizer"]["state"].values()} & {4.0}
    assert after["seconds"] >= before["seconds"]


def test_killed_run_goes_on_with_clips_it_has_not_seen(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[range] = []
    stream = train_module.stream_batches

    def killed_after_two(clips, first_seed, num_batches, clips_per_batch, workers):  # type: ignore[no-untyped-def]
        for index, batch in enumerate(stream(clips, first_seed, num_batches, clips_per_batch, workers)):
            if index == 2 and len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(range(first_seed + index * clips_per_batch, first_seed + (index + 1) * clips_per_batch))
            yield batch

    monkeypatch.setattr(train_module, "stream_batches", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path)
    assert last_of(tmp_path)["step"] == 2
    assert not (tmp_path / "weights.pt").exists()
    (tmp_path / "last.part").write_bytes(b"half a checkpoint")
    train(config, tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == ["1", "2", "3", "4"]
    assert (tmp_path / "weights.pt").exists()
    assert len({seed for seeds in seen for seed in seeds}) == 8


def test_finished_run_is_not_trained_again(config: TrainConfig, tmp_path: Path) -> None:
    config = with_steps(config, 1)
    train(config, tmp_path)
    before = torch.load(tmp_path / "weights.pt", weights_only=True)
    train(config, tmp_path)
    after = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert len(log_of(tmp_path)) == 1
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_each_stage_has_its_own_size_and_schedule(config: TrainConfig, tmp_path: Path) -> None:
    first = replace(STAGE, steps=2, lr=1e-2, lr_end=1e-2)
    second = replace(STAGE, steps=2, size_px=96, frames=1, clips_per_batch=1, warmup_steps=2)
    train(replace(config, stages=(first, second)), tmp_path)
    assert [float(row["lr"]) for row in log_of(tmp_path)] == pytest.approx([1e-2, 1e-2, 5e-4, 1e-3])


@pytest.mark.parametrize(("trunk_lr", "moves"), [(0.0, False), (1e-3, True)])
def test_trunk_is_kept_where_its_rate_is_zero(
    config: TrainConfig, tmp_path: Path, trunk_lr: float, moves: bool
) -> None:
    train(replace(config, stages=(replace(STAGE, steps=2, trunk_lr=trunk_lr),)), tmp_path)
    start, end = build_for_training(config, 64).state_dict(), last_of(tmp_path)["model"]
    changed = {name for name, value in start.items() if not torch.equal(value, end[name])}
    assert any(name.startswith("image_encoder.trunk.") for name in changed) is moves
    assert any(name.startswith("image_encoder.neck.") for name in changed)


def test_batch_whose_gradient_is_not_a_number_is_left_out(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unroll = train_module.unroll

    def broken_once(*args: Any, calls: list[int] = []) -> Any:  # noqa: B006
        calls.append(1)
        result = unroll(*args)
        factor = float("nan") if len(calls) == 1 else 1.0
        return replace(result, losses=replace(result.losses, dice=result.losses.dice * factor))

    monkeypatch.setattr(train_module, "unroll", broken_once)
    train(with_steps(config, 2), tmp_path)
    assert "step 0: the gradient's norm is nan; this batch is left out" in caplog.text
    state = last_of(tmp_path)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in [*state["model"].values(), *state["ema"].values()])
    assert {float(moments["step"]) for moments in state["optimizer"]["state"].values()} == {1.0}


def test_imagenet_weights_are_refused_for_another_trunk(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="imagenet_trunk is for EfficientNet trunks; tiny-test has Hiera"):
        build_for_training(replace(config, imagenet_trunk="lite0.pth"), 64)


def test_clicks_find_their_pixel_from_the_start(config: TrainConfig) -> None:
    """The decoder's cross-attention starts with equal, orthogonal projections of queries and keys."""
    transformer = build_for_training(config, 64).sam_mask_decoder.transformer
    attention = transformer.layers[0].cross_attn_token_to_image
    query = attention.q_proj.weight
    assert torch.equal(query, attention.k_proj.weight)
    torch.testing.assert_close(query @ query.T, torch.eye(len(query)), rtol=0, atol=1e-5)
    assert not torch.equal(transformer.layers[0].self_attn.q_proj.weight, transformer.layers[0].self_attn.k_proj.weight)


WORKER = """
import os, sys
from pathlib import Path
import torch
from tiny_model import TINY
from sam2_ros.model.config import MODELS
from sam2_ros.training import train as train_module
from sam2_ros.training.config import Stage, TrainConfig

MODELS[TINY.name] = TINY
photos, out = sys.argv[1:]
models = []
build = train_module.build_for_training
train_module.build_for_training = lambda *args: models.append(build(*args)) or models[-1]
stage = Stage(steps=3, size_px=64, frames=2, clips_per_batch=2, lr=1e-3, lr_end=1e-4, trunk_lr=1e-4)
config = TrainConfig(TINY.name, (photos,), (stage,), workers=0, threads=1, log_every=1)
train_module.train(config, Path(out))
torch.save(models[0].state_dict(), Path(out) / f"rank{os.environ['RANK']}.pt")
"""


def test_two_processes_train_one_model(photo_root: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "worker.py", tmp_path / "out"
    script.write_text(WORKER)
    support = Path(__file__).parents[1] / "support"
    checkout = Path(__file__).parents[2]
    path = os.pathsep.join([str(support), str(checkout), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(photo_root), str(out)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(other[name], value) for name, value in one.items())
    assert [row["step"] for row in log_of(out)] == ["1", "2", "3"]
    assert sorted(p.name for p in out.iterdir()) == ["last.pt", "log.csv", "rank0.pt", "rank1.pt", "weights.pt"]
    saved = last_of(out)
    assert saved["step"] == 3
    assert all(torch.equal(saved["model"][name], value) for name, value in one.items())


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Any:
    """A run sets it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
