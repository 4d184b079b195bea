"""Loading weights: all or nothing, and a sentence that says what is wrong with the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sam2_ros.model.checkpoint import CheckpointError, load_checkpoint


def small_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_equal_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("wrap", [lambda state: {"model": state}, lambda state: state], ids=["official", "plain"])
def test_both_layouts_fill_the_model(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    source, target = small_model(1), small_model(2)
    load_checkpoint(target, save(wrap(source.state_dict()), tmp_path / "weights.pt"))
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
def test_file_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[dict], Any], message: str) -> None:
    model = small_model(2)
    path = save(change(small_model(1).state_dict()), tmp_path / "other.pt")
    assert_refused(model, path, message)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    state = with_another_shape(with_another_key(without_a_key(small_model(1).state_dict())))
    assert_refused(small_model(2), save(state, tmp_path / "other.pt"), "1 missing.*1 unexpected.*1.weight has shape")


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"not a checkpoint\n", b"PK\3\4" + bytes(200), pickle.dumps([1], 2)[:-1]]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert_refused(small_model(2), path, "not a readable checkpoint")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = save({"model": small_model(1).state_dict()}, tmp_path / "cut.pt")
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1, len(whole) // 12):
        path.write_bytes(whole[:size])
        assert_refused(small_model(2), path, "not a readable checkpoint")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damage_anywhere_in_a_file_is_one_kind_of_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    torch.save(small_model(1).state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, 600, 5):  # names and structure; further on are the values, where all bytes are valid
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            load_checkpoint(small_model(2), path)
        except CheckpointError:
            refused += 1
    assert refused > 90


class RunsCode:
    """Unpickles by calling ``Path.touch``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "was_here"
    path = save({"model": RunsCode(proof)}, tmp_path / "evil.pt")
    assert_refused(small_model(2), path, "not a readable checkpoint")
    assert not proof.exists()
    path.write_bytes(pickle.dumps(RunsCode(proof), protocol=2))
    assert_refused(small_model(2), path, "not a readable checkpoint")
    assert not proof.exists()


@pytest.mark.parametrize("name", ["absent.pt", "."])
def test_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    assert_refused(small_model(2), tmp_path / name, "no such file")


def assert_refused(model: nn.Module, path: Path, message: str) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_equal_state(model, before)
