"""The loop: what it writes, that it can be killed and go on, and that several processes train one model."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import noise_frames

from sam2_ros import load_tracker
from sam2_ros.cli import main
from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.tracking.loading import load_network
from sam2_ros.training import train as train_module
from sam2_ros.training.build import build_for_training
from sam2_ros.training.config import Stage, TrainConfig
from sam2_ros.training.run_state import Run, TrainingFailedError
from sam2_ros.training.sources import shape_of_step
from sam2_ros.training.train import train

STAGE = Stage(steps=4, size_px=64, frames=2, clips_per_batch=2, lr=1e-3, lr_end=0.0, trunk_lr=1e-4)


@pytest.fixture
def config(photo_root: Path, tiny_entry: str) -> TrainConfig:
    return TrainConfig(
        tiny_entry, (STAGE,), (PhotoFolder(str(photo_root)),), workers=0, threads=1, save_every=1, log_every=1
    )


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


def test_finished_run_is_not_trained_again(config: TrainConfig, tmp_path: Path) -> None:
    config = with_steps(config, 1)
    train(config, tmp_path)
    before = torch.load(tmp_path / "weights.pt", weights_only=True)
    train(config, tmp_path)
    after = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert len(log_of(tmp_path)) == 1
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_has_changed_since_is_said(config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(with_steps(config, 1), tmp_path)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    train(replace(with_steps(config, 2), seed=7), tmp_path)
    train(replace(with_steps(config, 2), seed=7), tmp_path)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said[0] == "resumed with other settings than before: seed, stages"
    assert "has all its steps already: nothing is trained" in said[1] and len(said) == 2


@pytest.mark.parametrize("content", [b"damaged", None], ids=["damaged", "another model's"])
def test_a_run_that_cannot_be_resumed_is_rejected(config: TrainConfig, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "last.pt"
    if content is None:
        torch.save({"model": torch.nn.Linear(2, 2).state_dict()}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be resumed: it is damaged or another model's") as caught:
        train(config, tmp_path)
    assert "\n" not in str(caught.value) and path.read_bytes() == before


def test_each_stage_has_its_own_size_and_schedule(config: TrainConfig, tmp_path: Path) -> None:
    first = replace(STAGE, steps=2, lr=1e-2, lr_end=1e-2)
    second = replace(STAGE, steps=2, size_px=96, clips_per_batch=1, warmup_steps=2)
    train(replace(config, stages=(first, second)), tmp_path)
    assert [float(row["lr"]) for row in log_of(tmp_path)] == pytest.approx([1e-2, 1e-2, 5e-4, 1e-3])


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({"trunk_lr": 0.0}, False),
        ({"trunk_lr": 1e-3}, True),
        ({"trunk_lr": 1e-3, "trunk_in_clips": False}, False),
        ({"trunk_lr": 1e-3, "trunk_in_clips": False, "image_share": 1.0}, True),
    ],
)
def test_trunk_is_kept_where_its_rate_is_zero_or_clips_leave_it(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any], moves: bool
) -> None:
    train(replace(config, stages=(replace(STAGE, steps=2, **changes),)), tmp_path)
    start, end = build_for_training(config, 64).state_dict(), last_of(tmp_path)["model"]
    changed = {name for name, value in start.items() if not torch.equal(value, end[name])}
    assert any(name.startswith("image_encoder.trunk.") for name in changed) is moves
    assert any(name.startswith("image_encoder.neck.") for name in changed)


def test_average_follows_the_weights_as_slowly_as_told(config: TrainConfig, tmp_path: Path) -> None:
    for decay in (0.0, 0.9):
        train(replace(with_steps(config, 2), ema_decay=decay), tmp_path / str(decay))
    at_once, slowly = (last_of(tmp_path / str(decay)) for decay in (0.0, 0.9))
    assert all(torch.equal(at_once["ema"][name], value) for name, value in at_once["model"].items())
    assert any(not torch.equal(slowly["ema"][name], value) for name, value in slowly["model"].items())


def test_gradients_are_no_longer_than_told(config: TrainConfig, tmp_path: Path) -> None:
    """So short ones that Adam's epsilon is larger leave everything where it is."""
    train(replace(with_steps(config, 2), clip_norm=1e-20, weight_decay=0.0), tmp_path)
    start, end = build_for_training(config, 64).state_dict(), last_of(tmp_path)["model"]
    for name, value in start.items():
        torch.testing.assert_close(end[name], value, rtol=0, atol=1e-9)


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


@pytest.fixture
def never_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch has a loss that is not a number."""
    unroll = train_module.unroll

    def broken(*args: Any) -> Any:
        result = unroll(*args)
        return replace(result, losses=result.losses.scaled(float("nan")))

    monkeypatch.setattr(train_module, "unroll", broken)


@pytest.mark.usefixtures("never_finite")
def test_run_whose_batches_keep_failing_stops(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "MAX_FAILED_IN_A_ROW", 3)
    with pytest.raises(
        TrainingFailedError, match="step 2: the gradients of 3 batches in a row are not finite"
    ) as caught:
        train(with_steps(config, 9), tmp_path)
    assert "\n" not in str(caught.value)
    assert last_of(tmp_path)["step"] == 2, "the steps before are saved as they were"


@pytest.mark.parametrize("which", ["model", "ema"])
def test_weights_that_are_not_finite_are_never_written(config: TrainConfig, tmp_path: Path, which: str) -> None:
    run = Run.start(build_for_training(config, 64), config)
    tmp_path /= "out"
    tmp_path.mkdir()
    run.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["last.pt", "weights.pt"]
    # What half precision cannot hold would be infinite in the file.
    weights = run.ema if which == "ema" else run.model.state_dict()
    weights["memory_encoder.out_proj.weight"].view(-1)[0] = 1e6 if which == "ema" else float("nan")
    with pytest.raises(TrainingFailedError, match=r"step 0: the .*weights memory_encoder\.out_proj\.weight are not"):
        run.save(tmp_path, keep=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_averaged_weights_are_kept_as_often_as_told(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(with_steps(config, 5), keep_every=2), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("weights*")) == [
        "weights.pt",
        "weights_00000002.pt",
        "weights_00000004.pt",
    ]
    kept = torch.load(tmp_path / "weights_00000004.pt", weights_only=True)
    assert all(value.dtype == torch.float16 for value in kept.values())
    last = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert any(not torch.equal(value, last[name]) for name, value in kept.items())


@pytest.mark.parametrize(
    ("device", "capabilities", "expected"),
    [
        ("cpu", {}, False),
        ("cpu", {"avx512_bf16": True}, False),  # measured: no gain
        ("cpu", {"avx512_bf16": True, "amx_bf16": True}, True),
        ("cuda", (7, 5), False),
        ("cuda", (9, 0), True),
    ],
)
def test_bfloat16_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, capabilities: Any, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capabilities)
    assert train_module.computes_in_bfloat16("auto", torch.device(device)) is expected
    for told in (True, False):
        assert train_module.computes_in_bfloat16(told, torch.device(device)) is told


@pytest.mark.parametrize("bf16", [True, False])
def test_autocast_is_on_where_told(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    unroll, seen = train_module.unroll, []

    def watch(*args: Any) -> Any:
        a = torch.ones(2, 2)
        seen.append((a @ a).dtype)
        return unroll(*args)

    monkeypatch.setattr(train_module, "unroll", watch)
    train(replace(with_steps(config, 1), bf16=bf16), tmp_path)
    assert seen == [torch.bfloat16 if bf16 else torch.float32]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("model: nano\nstages: []\nphoto_roots: [a]\n", 2, "stages: expected at least one"),
        ("model: nano\nstages: [{STAGE}]\nphoto_roots: [5]\n", 2, "photo_roots, root: expected text, got 5"),
        ("model: nano\nstages: [{STAGE}]\nphoto_roots: [a]\nthreads: 0\n", 2, "threads: expected 1 or more, got 0"),
        (None, 2, "run.yaml"),
        ("model: nano\nstages: [{STAGE}]\nphoto_roots: [nowhere]\n", 1, "nowhere/images/*.jpg"),
    ],
)
def test_command_rejects_a_config_in_one_line_with_status_2_and_what_it_names_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, status: int, message: str
) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text.replace("STAGE", "steps: 1, size_px: 64, frames: 1, clips_per_batch: 1, lr: 1, lr_end: 0"))
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == status
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("sam2-ros train: ") and message in said[0]


@pytest.mark.usefixtures("never_finite")
def test_command_tells_of_a_run_that_failed(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_module, "MAX_FAILED_IN_A_ROW", 1)
    monkeypatch.setattr("sam2_ros.training.config.load_config", lambda _: config)
    assert main(["train", "run.yaml", "--out", str(tmp_path / "out")]) == 1
    assert "sam2-ros train: step 0: the gradients of 1 batches in a row are not finite" in capsys.readouterr().err


def test_a_stage_of_several_sizes_trains_at_each(config: TrainConfig, tmp_path: Path) -> None:
    stage = replace(STAGE, steps=6, frames=1, size_px=(64, 96))
    sizes = {shape_of_step(stage, step).size_px for step in range(6)}
    assert sizes == {64, 96}
    train(replace(config, stages=(stage,)), tmp_path)
    assert len(log_of(tmp_path)) == 6


def test_imagenet_weights_are_rejected_for_another_trunk(config: TrainConfig) -> None:
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


def test_run_starts_from_a_checkpoint_with_its_weights_only(config: TrainConfig, tmp_path: Path) -> None:
    train(with_steps(config, 2), tmp_path / "before")
    start = tmp_path / "before" / "last.pt"
    frozen = replace(STAGE, steps=1, lr=1e-12, lr_end=0.0, trunk_lr=0.0)
    train(replace(config, init=str(start), stages=(frozen,), weight_decay=0.0), tmp_path / "after")
    assert [row["step"] for row in log_of(tmp_path / "after")] == ["1"]
    before, after = (last_of(tmp_path / folder)["model"] for folder in ("before", "after"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-9)


def test_run_starts_from_the_embedded_weights(photo_root: Path) -> None:
    config = TrainConfig("nano", (STAGE,), (PhotoFolder(str(photo_root)),), init="embedded")
    ours, theirs = build_for_training(config, 64).state_dict(), load_network("nano", precision="float32").state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_checkpoint_of_another_model_is_rejected(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        train(replace(config, init="embedded"), tmp_path)


@pytest.mark.numeric
def test_recomputing_gives_the_same_weights(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A step is as long as its gradient: Adam's own epsilon makes 1e-3 of rounding where the true gradient is zero.
    monkeypatch.setattr(torch.optim, "AdamW", partial(torch.optim.AdamW, eps=1e-2))
    config = replace(with_steps(config, 2), bf16=False)
    for recompute in (False, True):
        train(replace(config, recompute=recompute), tmp_path / str(recompute))
    plain, recomputed = (last_of(tmp_path / name)["model"] for name in ("False", "True"))
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, rtol=0, atol=1e-5)


def test_images_alone_can_be_a_stage(config: TrainConfig, tmp_path: Path) -> None:
    images = replace(STAGE, steps=2, frames=1)
    train(replace(config, stages=(images, replace(STAGE, steps=1))), tmp_path)
    rows = log_of(tmp_path)
    assert all(float(row["focal"]) > 0 and float(row["dice"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": (STAGE, replace(STAGE, clips_per_batch=65))}, "clips_per_batch: expected 1 to 64, got 65"),
        ({"stages": (STAGE, replace(STAGE, clips_per_batch=0))}, "clips_per_batch: expected 1 to 64, got 0"),
        (
            {"stages": (STAGE, replace(STAGE, objects_per_image=17))},
            "objects_per_image: expected 1 to 16, got 2 and 17",
        ),
        ({"stages": (STAGE, replace(STAGE, size_px=70))}, "70"),
        ({"device": "cuda:7"}, "device: got 'cuda:7', but torch finds no CUDA device here"),
    ],
)
def test_settings_that_cannot_work_are_rejected(
    config: TrainConfig, tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        train(replace(config, **change), tmp_path / "out")
    assert not list(tmp_path.glob("out/*")), "before the first stage"


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Any:
    """A run sets it for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
