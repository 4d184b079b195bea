"""A training run's YAML file: what is read, and that every mistake is named by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam2_ros.data.files.photo_folders import PhotoFolder
from sam2_ros.training.config import PromptMix, Stage, TrainConfig, VideoSource, load_config

STAGE = "{steps: 2, size_px: 64, frames: 3, clips_per_batch: 2, lr: 1e-3, lr_end: 0}"
PHOTOS = "[first, {root: second, weight: 2, held_out_every: 4, one_scene: [turntable]}]"
COMPLETE = f"""
model: nano
photo_roots: {PHOTOS}
seed: 3
prompts: {{mask: 0.5}}
videos: [{{root: clips, held_out: [a, b]}}]
bf16: false
stages:
  - {STAGE}
"""


def load(folder: Path, text: str) -> TrainConfig:
    path = folder / "run.yaml"
    path.write_text(text)
    return load_config(path)


def test_complete_file_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, COMPLETE) == TrainConfig(
        model="nano",
        photo_roots=(PhotoFolder("first"), PhotoFolder("second", 2.0, 4, ("turntable",))),
        stages=(Stage(2, 64, 3, 2, lr=1e-3, lr_end=0.0),),
        prompts=PromptMix(mask=0.5),
        videos=(VideoSource("clips", held_out=("a", "b")),),
        bf16=False,
        seed=3,
    )


def test_a_stage_has_one_size_or_several(tmp_path: Path) -> None:
    one, several = (load(tmp_path, COMPLETE.replace("64", size)).stages[0] for size in ("96", "[64, 96]"))
    assert (one.size_px, one.sizes_px) == (96, (96,))
    assert several.size_px == several.sizes_px == (64, 96)


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False), ("auto", "auto")])
def test_bfloat16_can_follow_the_device(tmp_path: Path, text: str, expected: bool | str) -> None:
    assert load(tmp_path, COMPLETE.replace("bf16: false", f"bf16: {text}")).bf16 == expected
    assert load(tmp_path, COMPLETE.replace("bf16: false", "")).bf16 == "auto"


def test_steps_add_up_over_stages(tmp_path: Path) -> None:
    config = load(tmp_path, f"model: nano\nphoto_roots: [a]\nstages: [{STAGE}, {STAGE}, {STAGE}]")
    assert config.total_steps == 6
    assert config.prompts == PromptMix()


@pytest.mark.parametrize("name", ["train_nano.yaml", "finetune.yaml"])
def test_example_in_the_repository_is_complete(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "config" / name)
    assert config.model == "nano"
    assert config.total_steps > 0
    assert bool(config.init) != bool(config.imagenet_trunk)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sead: 3", r"run\.yaml: unknown key\(s\) sead; known: .*seed"),
        ("lr_end", "lr_last", r"run\.yaml, stages: unknown key\(s\) lr_last; known: .*lr_end"),
        ("{mask:", "{masks:", r"run\.yaml, prompts: unknown key\(s\) masks"),
        ("seed: 3", "source: here", r"unknown key\(s\) source"),
        ("model: nano", "", r"run\.yaml: missing key\(s\) model"),
        ("seed: 3", "init: a.pt\nimagenet_trunk: b.pth", r"init fills the whole model, imagenet_trunk its trunk"),
        ("bf16: false", "bf16: 1", "run.yaml, bf16: expected true, false or auto, got 1"),
        ("seed: 3", "init: 4", "run.yaml, init: expected text, got 4"),
        ("root: clips, held_out", "root: clips, weigth: 2, held_out", r"run\.yaml, videos: unknown key\(s\) weigth"),
        ("root: clips, ", "", r"run\.yaml, videos: missing key\(s\) root"),
        (f"stages:\n  - {STAGE}", "", r"missing key\(s\) stages"),
        ("lr: 1e-3, ", "", r"run\.yaml, stages: missing key\(s\) lr$"),
        ("seed: 3", "seed: three", "run.yaml, seed: expected a whole number, got 'three'"),
        ("seed: 3", "seed: 0.5", "run.yaml, seed: expected a whole number, got 0.5"),
        ("steps: 2", "steps: yes", "run.yaml, stages, steps: expected a whole number, got True"),
        ("lr: 1e-3", "lr: fast", "run.yaml, stages, lr: expected a number, got 'fast'"),
        ("lr: 1e-3", "lr: [1, 2]", "stages, lr: expected a number"),
        (PHOTOS, "first", "run.yaml, photo_roots: expected a list, got 'first'"),
        ("model: nano", "model: 7", "run.yaml, model: expected text, got 7"),
        ("{mask: 0.5}", "0.5", "run.yaml, prompts: expected keys with values, got 0.5"),
        (f"  - {STAGE}", "  - 7", "run.yaml, stages: expected keys with values, got 7"),
        (PHOTOS, "[first, second", "run.yaml: not a YAML file"),
        (COMPLETE, "", "run.yaml is an empty file"),
        (COMPLETE, "# nothing", "run.yaml: expected keys with values, got None"),
    ],
)
def test_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in COMPLETE
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, COMPLETE.replace(old, new))
    assert "\n" not in str(caught.value)


def test_a_run_needs_something_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train on; expected photo_roots, videos or both"):
        load(tmp_path, f"model: nano\nstages: [{STAGE}]")
    with pytest.raises(ValueError, match="nothing to train on"):
        load(tmp_path, f"model: nano\nphoto_roots: [a]\nsynthetic_weight: 0\nstages: [{STAGE}]")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "prompts: {mask: 0.5}",
            "prompts: {max_corrections: 0}",
            "prompts, max_corrections: expected 1 or more, got 0",
        ),
        ("seed: 3", "save_every: 0", "save_every: expected 1 or more"),
        ("seed: 3", "log_every: 0", "log_every: expected 1 or more"),
        ("lr: 1e-3", "lr: 0", "stages, lr: expected more than 0"),
        ("frames: 3", "frames: 0", "stages, frames: expected 1 or more"),
        (f"  - {STAGE}", "  []", "stages: expected at least one"),
        ("seed: 3", "reverse_probability: 50", "run.yaml, reverse_probability: expected 0 to 1, got 50"),
        ("seed: 3", "ema_decay: 1.1", "ema_decay: expected 0 to 1, got 1.1"),
        ("seed: 3", "clip_norm: 0", "clip_norm: expected more than 0, got 0"),
        ("{mask: 0.5}", "{truth_click_share: -0.1}", "prompts, truth_click_share: expected 0 to 1, got -0.1"),
        ("seed: 3", "ema_decay: .nan", "ema_decay: expected a number, got nan"),
        ("lr_end: 0", "lr_end: .inf", "stages, lr_end: expected a number, got inf"),
        ("lr_end: 0", "lr_end: -1e-3", "stages, lr_end: expected 0 to 1000000000, got -0.001"),
        ("lr_end: 0", "lr_end: 0, trunk_lr: -1", "stages, trunk_lr: expected 0 to"),
        ("lr_end: 0", "lr_end: 0, warmup_steps: -1", "stages, warmup_steps: expected 0 to"),
        ("seed: 3", "seed: -3", "run.yaml, seed: expected 0 to"),
        ("seed: 3", "threads: 0", "run.yaml, threads: expected 1 or more, got 0"),
        ("seed: 3", "workers: -1", "run.yaml, workers: expected 0 to"),
        ("seed: 3", "weight_decay: -0.1", "run.yaml, weight_decay: expected 0 to"),
        ("seed: 3", "weight_decay: true", "run.yaml, weight_decay: expected a number, got True"),
        ("seed: 3", f"weight_decay: 1{'0' * 400}", "run.yaml, weight_decay: expected a number, got 1000"),
        ("seed: 3", "synthetic_weight: -1", "run.yaml, synthetic_weight: expected 0 to"),
        ("seed: 3", "photo_cache_mb: -1", "run.yaml, photo_cache_mb: expected 0 to"),
        ("seed: 3", "hours_before: -1", "run.yaml, hours_before: expected 0 to"),
        ("seed: 3", "keep_every: 150", "run.yaml, keep_every: expected a multiple of save_every, got 150"),
        ("{mask: 0.5}", "{image_weight: -1}", "prompts, image_weight: expected 0 to"),
        ("root: clips, ", "root: clips, weight: -1, ", "videos, weight: expected 0 to"),
        ("root: clips, ", "root: 5, ", "videos, root: expected text, got 5"),
        ("[a, b]", "[a, 7]", "videos, held_out: expected text, got 7"),
        ("[first,", "[5,", "run.yaml, photo_roots, root: expected text, got 5"),
        ("[first,", "[[first],", "run.yaml, photo_roots, root: expected text, got"),
        ("weight: 2", "weight: -2", "photo_roots, weight: expected 0 to"),
        ("held_out_every: 4", "held_out_every: -4", "photo_roots, held_out_every: expected 0 to"),
        ("size_px: 64", "size_px: []", "stages, size_px: expected a whole number, got"),
        ("size_px: 64", "size_px: [64, 0]", "stages, size_px: expected 1 or more, got 0"),
        ("{mask: 0.5}", "{mask: 0.9}", "prompts, mask and box together: expected 0 to 1, got 1.1"),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run_is_told_before(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in COMPLETE
    with pytest.raises(ValueError, match=message):
        load(tmp_path, COMPLETE.replace(old, new))
