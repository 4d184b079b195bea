"""Checkpoints damaged in every way: rejected with the one error and the model as it was, or taken whole."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snapshots import plain
from strange_messages import damaged
from tiny_model import tiny_model

from sam2_ros.model.checkpoint import fill_model, infer_model_name
from sam2_ros.model.checkpoint_files import CheckpointError, read_state_dict
from sam2_ros.model.sam2 import SAM2

KINDS = ("zip", "legacy", "safetensors")


@pytest.fixture(scope="module")
def model() -> SAM2:
    return tiny_model()


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, bytes]:
    """The same weights in three formats."""
    from safetensors.torch import save

    state = tiny_model(seed=1).state_dict()
    files = {"safetensors": save(state)}
    for kind in ("zip", "legacy"):
        torch.save({"model": state}, buffer := io.BytesIO(), _use_new_zipfile_serialization=kind == "zip")
        files[kind] = buffer.getvalue()
    return files


def load(model: SAM2, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    before = plain(model.state_dict())
    try:
        state = read_state_dict(path)
        infer_model_name(state)
        fill_model(model, state, path)
    except CheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        assert plain(model.state_dict()) == before
    else:  # only values were damaged, or nothing that counts
        assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_checkpoint_is_taken(tmp_path: Path, checkpoints: dict[str, bytes], kind: str) -> None:
    path = tmp_path / "whole"
    path.write_bytes(checkpoints[kind])
    read, wanted = read_state_dict(path), tiny_model(seed=1).state_dict()
    assert plain(dict(sorted(read.items()))) == plain(dict(sorted(wanted.items())))


@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint(
    model: SAM2,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: dict[str, bytes],
    kind: str,
    data: st.DataObject,
) -> None:
    whole = checkpoints[kind]
    # The names and shapes are in the first part, or in zip files at both ends; the rest is values.
    edge = st.sampled_from([0, 0, max(len(whole) - 20_000, 0), len(whole) // 2])
    start = data.draw(edge)
    part = whole[start : start + 20_000]
    content = whole[:start] + data.draw(damaged(part)) + whole[start + len(part) :]
    load(model, tmp_path_factory.getbasetemp() / f"{kind}.ckpt", content)


@given(end=st.floats(0, 1))
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_is_cut_off(
    model: SAM2, tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, bytes], kind: str, end: float
) -> None:
    whole = checkpoints[kind]
    path = tmp_path_factory.getbasetemp() / f"cut {kind}.ckpt"
    path.write_bytes(whole[: min(round(end * len(whole)), len(whole) - 1)])
    with pytest.raises(CheckpointError, match="cut "):
        fill_model(model, read_state_dict(path), path)
