"""Strict loading of weights: no missing and no unexpected tensor, and a failure changes nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sam2_ros.model.checkpoint_files import CheckpointError, read_state_dict
from sam2_ros.model.config import MODELS, HieraSpec, ModelConfig, RepViTSpec, VitSpec

__all__ = [
    "CheckpointError",
    "fill_model",
    "fitting_models",
    "infer_model_name",
    "load_checkpoint",
    "read_state_dict",
    "some_names",
]

# Parts that only tracking uses; a checkpoint of the image part alone lacks all of them.
MEMORY_PART = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "spatial_perceiver.",
)
_MAX_NAME = 120  # longest tensor name in a message, in characters
_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_checkpoint(model: nn.Module, path: Path, sha256: str | None = None) -> None:
    """``read_state_dict`` and ``fill_model`` for an existing model."""
    fill_model(model, read_state_dict(path, sha256), path)


def fill_model(model: nn.Module, state: dict[str, Tensor], source: Path, image_only: bool = False) -> None:
    """Copy the tensors of ``state`` into ``model``, in its own types; on error the model is unchanged.

    Args:
        model: its state dict's names and shapes are what ``state`` must have.
        state: from ``read_state_dict``; any float type.
        source: for the error's text.
        image_only: the memory part may be missing as a whole; its tensors in the model then become NaN, so that using
            them by mistake cannot go unnoticed.

    Raises:
        CheckpointError: other names, shapes or types than the model's, or values that are not finite.
    """
    expected = model.state_dict()
    memory_part = [name for name in expected if _is_memory(name)]
    absent: dict[str, Tensor] = {}
    if memory_part and not any(map(_is_memory, state)):
        if not image_only and state.keys() >= expected.keys() - set(memory_part):
            raise CheckpointError(
                f"{source} has the image part of SAM 2 alone, without {some_names(memory_part)}: enough for an image "
                "predictor, not for a tracker. It needs the video model's weights (in transformers: Sam2VideoModel)"
            )
        if image_only:
            absent = {name: torch.full_like(expected[name], torch.nan) for name in memory_part}
    problems = _misfits({name: tensor for name, tensor in expected.items() if name not in absent}, state)
    if problems:
        raise CheckpointError(f"{source} does not fit this model: {_listed(problems)}. {_advice(model, state)}")
    converted = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    broken = [name for name, tensor in converted.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{source} holds NaN or infinite values in {some_names(broken)}: {len(broken)} in all")
    model.load_state_dict(converted | absent)


def infer_model_name(state: dict[str, Tensor], file_name: str = "") -> str | None:
    """The table's model that has this state dict's trunk, width and version; None if there is none.

    Several models can match: the image part alone is the same in versions 2.0 and 2.1, and the variants of one
    EfficientTAM have tensors of the same shapes. Then the model that the file is named after is chosen, as official
    files are named after theirs; otherwise the first match in the table.

    Args:
        state: by official names.
        file_name: of the checkpoint, without its ending.
    """
    found = fitting_models(state)
    return file_name if file_name in found else next(iter(found), None)


def fitting_models(state: dict[str, Tensor]) -> list[str]:
    """All models of the table that have this state dict's trunk, width and version, in the table's order."""
    trunk, version = _trunk_of_state(state), _version_of_state(state)
    return [
        name
        for name, config in MODELS.items()
        if trunk is not None and trunk == _trunk_of_config(config) and version in (None, _version_of_config(config))
    ]


def _trunk_of_state(state: dict[str, Tensor]) -> tuple[int | str, ...] | None:
    """Width of the model and the properties that identify its trunk; None if this is not a state dict of SAM 2."""
    no_memory, position = state.get("no_mem_embed"), state.get("image_encoder.trunk.pos_embed")
    if no_memory is None or no_memory.ndim != 3 or not any(name.startswith("image_encoder.trunk.") for name in state):
        return None
    width = no_memory.shape[2]
    if any(name.startswith("image_encoder.trunk.body.stem.") for name in state):
        return width, "repvit"
    norms = [n for n in state if n.startswith("image_encoder.trunk.blocks.") and n.endswith(".norm1.weight")]
    if position is not None and position.ndim == 4:
        return width, "hiera", position.shape[1], len(norms)
    if position is not None and position.ndim == 3:
        return width, "vit", position.shape[2], len(norms)
    return width, "efficientnet"


def _trunk_of_config(config: ModelConfig) -> tuple[int | str, ...]:
    trunk = config.trunk
    if isinstance(trunk, HieraSpec):
        return config.d_model, "hiera", trunk.embed_dim, sum(trunk.stages)
    if isinstance(trunk, VitSpec):
        return config.d_model, "vit", trunk.embed_dim, trunk.depth
    return config.d_model, "repvit" if isinstance(trunk, RepViTSpec) else "efficientnet"


def _version_of_state(state: dict[str, Tensor]) -> tuple[bool, bool, bool] | None:
    if not any(map(_is_memory, state)):
        return None
    has_perceiver = any(name.startswith("spatial_perceiver.") for name in state)
    return "obj_ptr_tpos_proj.weight" in state, "no_obj_embed_spatial" in state, has_perceiver


def _version_of_config(config: ModelConfig) -> tuple[bool, bool, bool]:
    return config.pointer_time_encoding, config.no_object_memory_embed, config.perceiver is not None


def _misfits(expected: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    problems = [f"{len(missing)} missing ({some_names(missing)})"] if missing else []
    problems += [f"{len(unexpected)} unexpected ({some_names(unexpected)})"] if unexpected else []
    for name in sorted(expected.keys() & state.keys()):
        wanted, found = expected[name], state[name]
        if wanted.shape != found.shape:
            problems.append(f"{some_names([name])} has shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        elif found.dtype not in _FLOAT_TYPES:
            problems.append(f"{some_names([name])} is of type {found.dtype}, expected one of 16, 32 or 64 bit floats")
    return problems


def _advice(model: nn.Module, state: dict[str, Tensor]) -> str:
    likely = fitting_models(state)
    if not likely:
        return "It does not look like SAM 2"
    config = getattr(model, "config", None)
    if isinstance(config, ModelConfig) and config.name not in likely:
        return f"It looks like {likely[0]}: give that name, or none"
    return f"It looks like a changed {likely[0]}"


def _is_memory(name: str) -> bool:
    return name.startswith(MEMORY_PART)


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
    return "; ".join(problems[:6]) + more


def some_names(names: list[str]) -> str:
    """The first few names, as one line of text whatever the file contains."""
    shown = (repr(name[:_MAX_NAME])[1:-1] for name in names[:4])
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")
