"""Loading weights: all or nothing, and a sentence that says what is wrong with the file."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import TINY, tiny_model
from torch import nn

from sam2_ros.model.checkpoint import (
    MEMORY_PART,
    CheckpointError,
    fill_model,
    infer_model_name,
    load_checkpoint,
    read_state_dict,
)
from sam2_ros.model.config import MODELS
from sam2_ros.model.sam2 import SAM2


def small_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_equal_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("wrap", [lambda state: {"model": state}, lambda state: state], ids=["official", "plain"])
def test_both_layouts_fill_the_model(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    source, target = small_model(1), small_model(2)
    load_checkpoint(target, save(wrap(source.state_dict()), tmp_path / "weights.pt"))
    assert_equal_state(target, source.state_dict())


def test_what_training_leaves_beside_the_weights_does_no_harm(tmp_path: Path) -> None:
    source, target = small_model(1), small_model(2)
    optimizer = torch.optim.AdamW(source.parameters())
    content = {"model": source.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    load_checkpoint(target, save(content, tmp_path / "training.pt"))
    assert_equal_state(target, source.state_dict())


def test_half_precision_file_fills_a_float32_model(tmp_path: Path) -> None:
    source, target = small_model(1), small_model(2)
    half = {name: value.half() for name, value in source.state_dict().items()}
    load_checkpoint(target, save(half, tmp_path / "half.pt"))
    assert {value.dtype for value in target.state_dict().values()} == {torch.float32}
    assert_equal_state(target, {name: value.float() for name, value in half.items()})


def without_a_key(state: dict) -> dict:
    return {name: value for name, value in state.items() if name != "0.bias"}


def with_another_key(state: dict) -> dict:
    return {**state, "2.extra": torch.zeros(1)}


def with_another_shape(state: dict) -> dict:
    return {**state, "1.weight": torch.zeros(2, 5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_key, r"1 missing \(0\.bias\)"),
        (with_another_key, r"1 unexpected \(2\.extra\)"),
        (with_another_shape, r"1\.weight has shape \(2, 5\), expected \(2, 4\)"),
        (lambda state: {7: torch.zeros(1)}, "state dict of tensors, found other content"),
        (lambda state: {**state, "step": 3}, "state dict of tensors, found other content"),
        (lambda state: {}, "state dict of tensors, found other content"),
        (lambda state: {"model": [1]}, "state dict of tensors, found other content"),
        (lambda state: torch.zeros(3), "state dict of tensors, found other content"),
    ],
)
def test_file_that_does_not_fit_is_rejected(tmp_path: Path, change: Callable[[dict], Any], message: str) -> None:
    model = small_model(2)
    path = save(change(small_model(1).state_dict()), tmp_path / "other.pt")
    assert_rejected(model, path, message)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    state = with_another_shape(with_another_key(without_a_key(small_model(1).state_dict())))
    assert_rejected(small_model(2), save(state, tmp_path / "other.pt"), "1 missing.*1 unexpected.*1.weight has shape")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file; expected a SAM 2 checkpoint"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "found a JPEG image"),
        (b"<!DOCTYPE html>", "found a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer.*git lfs pull"),
        (b"\0", "not a readable checkpoint"),
        (b"not a checkpoint\n", "not a readable checkpoint"),
        (b"PK\3\4" + bytes(200), "not a readable checkpoint"),
        (pickle.dumps([1], 2)[:-1], "not a readable checkpoint"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert_rejected(small_model(2), path, message)


def test_truncated_file_is_rejected(tmp_path: Path) -> None:
    path = save({"model": small_model(1).state_dict()}, tmp_path / "cut.pt")
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1, len(whole) // 12):
        path.write_bytes(whole[:size])
        assert_rejected(small_model(2), path, "not a readable checkpoint")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_in_a_file_is_one_kind_of_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    torch.save(small_model(1).state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    rejected = 0
    for position in range(0, 600, 5):  # names and structure; further on are the values, where all bytes are valid
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            load_checkpoint(small_model(2), path)
        except CheckpointError:
            rejected += 1
    assert rejected > 90


class RunsCode:
    """Unpickles by calling ``Path.touch``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def saved_as_torch_did_of_old(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, saved_as_torch_did_of_old, pickled])
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"model": evil}, lambda evil: {"model": {"0": evil}}])
def test_pickle_that_runs_code_is_rejected_and_not_run(
    tmp_path: Path, write: Callable[[object, Path], None], wrap: Callable[[object], object]
) -> None:
    proof, path = tmp_path / "was_here", tmp_path / "evil.pt"
    write(wrap(RunsCode(proof)), path)
    assert_rejected(small_model(2), path, r"it holds [\w.]+, which is no tensor and could run code; nothing was run")
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_are_rejected(tmp_path: Path) -> None:
    """They hold code by design; before PyTorch 2.6 ``weights_only`` did not keep it from running (CVE-2025-32434)."""
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(small_model(1)), path)
    assert_rejected(small_model(2), path, "not a readable checkpoint|found other content")


def test_the_tar_files_of_old_are_rejected_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "was_here", tmp_path / "old.pt"
    evil = pickle.dumps(RunsCode(proof))
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            archive.addfile(entry, io.BytesIO(evil))
    assert_rejected(small_model(2), path, "not a readable checkpoint")
    assert not proof.exists()


def test_code_beside_the_weights_is_rejected_without_advice_to_run_it(tmp_path: Path) -> None:
    path = save({"model": small_model(1).state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "run.pt")
    assert_rejected(small_model(2), path, r"it holds argparse\.Namespace.*save its state dict alone")
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    assert "weights_only" not in str(caught.value)


def test_the_proof_would_show_a_pickle_that_ran(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "was_here")))
    assert (tmp_path / "was_here").exists()


def test_absent_file_is_rejected(tmp_path: Path) -> None:
    assert_rejected(small_model(2), tmp_path / "absent.pt", "no such file")


@pytest.mark.parametrize("sha256", [None, "0" * 64])
def test_what_has_no_end_is_not_opened(tmp_path: Path, sha256: str | None) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "model.safetensors.index.json")
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file takes no room
    for path, why in (
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "fifo.pt", "is a FIFO"),
        (tmp_path / "folder", "is a FIFO"),
        (tmp_path / "large.pt", "is too large"),
    ):
        with pytest.raises(CheckpointError, match=why):
            read_state_dict(path, sha256)


def test_name_that_no_file_can_have_is_rejected() -> None:
    assert_rejected(small_model(2), Path("a" * 5000), "cannot be read")


def test_the_name_may_say_another_format(tmp_path: Path) -> None:
    source, target = small_model(1), small_model(2)
    load_checkpoint(target, save(source.state_dict(), tmp_path / "weights.safetensors"))
    assert_equal_state(target, source.state_dict())


def test_folder_without_weights_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert_rejected(small_model(2), tmp_path, "a folder without weights; expected one of model.safetensors, ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_rejected(tmp_path: Path, value: float) -> None:
    state = {name: tensor.double() for name, tensor in small_model(1).state_dict().items()}
    state["1.weight"][1, 2] = value
    assert_rejected(
        small_model(2), save(state, tmp_path / "broken.pt"), r"NaN or infinite values in 1\.weight: 1 in all"
    )


@pytest.mark.parametrize(
    "convert", [lambda t: t.long(), lambda t: t > 0, lambda t: t.to(torch.complex64)], ids=["int", "bool", "complex"]
)
def test_tensors_that_are_no_floats_are_rejected(tmp_path: Path, convert: Callable[[Any], Any]) -> None:
    state = small_model(1).state_dict()
    state["0.bias"] = convert(state["0.bias"])
    assert_rejected(small_model(2), save(state, tmp_path / "types.pt"), r"0\.bias is of type torch\.\w+, expected")


@pytest.mark.parametrize("convert", [torch.Tensor.to_sparse, lambda t: t.to("meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_rejected(tmp_path: Path, convert: Callable[[Any], Any]) -> None:
    state = small_model(1).state_dict()
    state["0.bias"] = convert(state["0.bias"])
    assert_rejected(small_model(2), save(state, tmp_path / "kinds.pt"), "found other content|not a readable checkpoint")


def test_a_few_values_that_stand_for_many_are_rejected(tmp_path: Path) -> None:
    """Both would be compared, value by value."""
    many = torch.zeros(1).expand(10**12)
    names = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")
    state = {"vision_encoder.x": torch.zeros(1)} | dict.fromkeys(names, many)
    assert_rejected(small_model(2), save(state, tmp_path / "endless.pt"), "found other content")


@pytest.mark.parametrize("name", ["a\nb\x1b[31m", "a" * 10**5], ids=["control characters", "long"])
def test_names_are_shown_on_one_line(tmp_path: Path, name: str) -> None:
    model, path = small_model(2), tmp_path / "names.pt"
    assert_rejected(model, save({name: torch.zeros(1)}, path), "1 unexpected")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_long_lists_are_cut(tmp_path: Path) -> None:
    state = {f"other.{i}": torch.zeros(1) for i in range(500)}
    message = (
        r"4 missing \(0.bias, 0.weight, 1.bias, 1.weight\); 500 unexpected \(other.0, .*, \.\.\.\). It does not look"
    )
    assert_rejected(small_model(2), save(state, tmp_path / "other.pt"), message)


def test_sha256_decides_before_anything_is_read(tmp_path: Path) -> None:
    source, model = small_model(1), small_model(2)
    path = save(source.state_dict(), tmp_path / "weights.pt")
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    wrong = "0" * 64
    assert_rejected(model, path, f"another sha256: expected {wrong}, found {right}", wrong)
    load_checkpoint(model, path, right.upper())
    assert_equal_state(model, source.state_dict())
    path.write_bytes(b"not a checkpoint")
    assert_rejected(model, path, "another sha256", right)


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 63])
def test_sha256_that_is_none_is_rejected(tmp_path: Path, text: str) -> None:
    path = save(small_model(1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="sha256 must be 64 hexadecimal digits, got"):
        load_checkpoint(small_model(2), path, text)


def assert_rejected(model: nn.Module, path: Path, message: str, sha256: str | None = None) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model, path, sha256)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_equal_state(model, before)


def meta_state(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return SAM2(MODELS[name]).state_dict()


@pytest.mark.parametrize("name", MODELS)
def test_model_is_inferred_from_its_state(name: str) -> None:
    assert infer_model_name(meta_state(name), file_name=name) == name


@pytest.mark.parametrize("name", MODELS)
def test_model_of_the_image_part_is_inferred_but_for_its_version(name: str) -> None:
    state = {key: tensor for key, tensor in meta_state(name).items() if not key.startswith(MEMORY_PART)}
    assert infer_model_name(state, file_name=name.replace("sam2_", "sam2.1_")) == name.replace("sam2_", "sam2.1_")


@pytest.mark.parametrize(
    "key", ["no_mem_embed", "image_encoder.trunk.pos_embed", "image_encoder.trunk.blocks.3.norm1.weight"]
)
def test_no_model_is_inferred_from_another_network(key: str) -> None:
    state = meta_state("sam2.1_hiera_tiny")
    del state[key]
    assert infer_model_name(state) is None
    assert infer_model_name(small_model(1).state_dict()) is None


def test_wrong_name_is_told_what_the_file_looks_like(tmp_path: Path) -> None:
    model, other = tiny_model(seed=1), replace(TINY, name="other", d_model=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, TINY.name, TINY)
        patch.setitem(MODELS, "other", other)
        path = save(SAM2(other).state_dict(), tmp_path / "other.pt")
        assert_rejected(model, path, r"has shape .*; and \d+ more\. It looks like other: give that name, or none$")


def image_part(model: SAM2) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith(MEMORY_PART)}


def test_image_part_alone_is_enough_only_where_asked_for(tmp_path: Path) -> None:
    source, model = tiny_model(seed=1), tiny_model(seed=2)
    path = save(image_part(source), tmp_path / "image.pt")
    assert_rejected(model, path, "image part of SAM 2 alone.*enough for an image predictor, not for a tracker")
    fill_model(model, read_state_dict(path), path, image_only=True)
    for name, value in model.state_dict().items():
        if name.startswith(MEMORY_PART):
            assert value.isnan().all(), f"{name}: absent weights must not look like learned ones"
        else:
            assert torch.equal(value, source.state_dict()[name])


def test_a_part_of_the_memory_weights_is_no_image_part(tmp_path: Path) -> None:
    source, model = tiny_model(seed=1), tiny_model(seed=2)
    state = {**image_part(source), "no_obj_ptr": source.no_obj_ptr}
    path = save(state, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match=r"\d+ missing \("):
        fill_model(model, read_state_dict(path), path, image_only=True)


def test_changed_model_keeps_its_name_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, TINY.name, TINY)
    state = {**tiny_model(seed=1).state_dict(), "extra.head": torch.zeros(1)}
    path = save(state, tmp_path / "tuned.pt")
    assert_rejected(tiny_model(seed=2), path, r"1 unexpected \(extra\.head\)\. It looks like a changed tiny-test$")
