"""Strict loading of weights: everything must be there, nothing may be left over, and nothing in a file is executed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one line with the path, what was expected and what was found."""


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from a file, or leave it as it was and say why.

    Args:
        model: its state dict's names and shapes are what the file must have.
        path: an official SAM 2 checkpoint (``{"model": state_dict}``) or a plain state dict; any float type.

    Raises:
        CheckpointError: no such file, not a checkpoint, or other names or shapes than the model's.
    """
    state = read_state_dict(path)
    expected = model.state_dict()
    problems = []
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    for name in sorted(expected.keys() & state.keys()):
        if expected[name].shape != state[name].shape:
            problems.append(f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}")
    if problems:
        raise CheckpointError(f"{path} does not fit this model: {'; '.join(problems[:6])}. Is the model name right?")
    model.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a checkpoint file, by name. Raises CheckpointError as ``load_checkpoint`` does."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a SAM 2 checkpoint (.pt)")
    try:
        # weights_only: a checkpoint is data; a pickle that wants to run code is refused here.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader stumble anywhere, over any kind of error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable checkpoint, it is damaged or of another kind ({reason})"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise CheckpointError(
            f'{path}: expected {{"model": state_dict}} or a state dict of tensors, found other content'
        )
    return state


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
