"""Write a network's parts as ONNX files, with a description of their inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam2_ros.export.graphs import (
    INPUTS,
    OUTPUTS,
    ImageEncoderGraph,
    MaskDecoderGraph,
    MaskPromptGraph,
    MemoryAttentionGraph,
    MemoryEncoderGraph,
    Slots,
)
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.runtime.encoder_engine import write_onnx
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD

DESCRIPTION = "model.json"
_NOT_INSTALLED = "export needs the packages onnx and onnxscript: pip install onnx onnxscript"


@dataclass(frozen=True)
class Graph:
    """A part of the network and an example of its inputs."""

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic: dict[str, dict[int, Any]] | None = None  # sizes that may differ, by input


def graphs_of(model: SAM2, slots: Slots) -> list[Graph]:
    """All parts of a float32 network on the CPU."""
    config = model.config
    size, side = config.image_size, config.feature_size
    top = torch.zeros(1, config.d_model, side, side)
    fine = config.d_model if config.fine_maps else 0
    stride8 = torch.zeros(1, fine // 4, 2 * side, 2 * side)
    stride4 = torch.zeros(1, fine // 8, 4 * side, 4 * side)
    logits = torch.zeros(1, 1, size // 4, size // 4)
    yes = torch.ones(1, dtype=torch.bool)
    memory = (
        top,
        torch.zeros(slots.memories, config.memory_dim, *config.memory_hw),
        torch.zeros(slots.memories, dtype=torch.int64),
        torch.ones(slots.memories, dtype=torch.bool),
        torch.zeros(slots.pointers, config.d_model),
        torch.ones(slots.pointers),
        torch.ones(slots.pointers, dtype=torch.bool),
    )
    prompt = (top, stride8, stride4, torch.zeros(1, 2, 2), torch.ones(1, 2, dtype=torch.int64), logits, yes)
    points = torch.export.Dim("points", min=1, max=128)
    any_points: dict[str, dict[int, Any]] = {name: {} for name in INPUTS["mask_decoder"]}
    any_points |= {"points": {1: points}, "labels": {1: points}}
    return [
        Graph("image_encoder", ImageEncoderGraph(model), (torch.zeros(1, 3, size, size),)),
        Graph("memory_attention", MemoryAttentionGraph(model), memory),
        Graph("mask_decoder", MaskDecoderGraph(model, multimask=True), prompt, any_points),
        Graph("mask_decoder_single", MaskDecoderGraph(model, multimask=False), prompt, any_points),
        Graph("mask_prompt", MaskPromptGraph(model), (torch.zeros(1, 1, size, size),)),
        Graph("memory_encoder", MemoryEncoderGraph(model), (top, logits, torch.ones(1, 1), yes)),
    ]


def write_graph(graph: Graph, module: nn.Module, path: Path) -> None:
    """One graph as a file."""
    write_onnx(module, graph.example, path, INPUTS[graph.name], OUTPUTS[graph.name], graph.dynamic)


def export_onnx(
    model: SAM2, folder: Path, conditioning_frames: int = 1, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write the parts into a folder, one file each, and ``model.json``.

    Args:
        model: float32, on the CPU, in eval mode.
        folder: created if missing.
        conditioning_frames: number of slots for conditioning frames of an object.
        progress: called with the name of each file.

    Raises:
        ImportError: a package is not installed.
        ValueError: no room for a conditioning frame.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(_NOT_INSTALLED) from error
    if not hasattr(torch.compiler, "is_exporting"):
        raise ImportError(f"export needs PyTorch 2.7 or newer, got {torch.__version__}")
    if conditioning_frames < 1:
        raise ValueError(f"conditioning frames: expected 1 or more, got {conditioning_frames}")
    slots = Slots.of(model, conditioning_frames)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for graph in graphs_of(model, slots):
        progress(f"{graph.name} of {model.config.name}")
        path = folder / f"{graph.name}.onnx"
        module = graph.module.eval()
        write_graph(graph, module, path)
        written.append(path)
    (folder / DESCRIPTION).write_text(json.dumps(describe(model, slots), indent=2) + "\n")
    return [*written, folder / DESCRIPTION]


def describe(model: SAM2, slots: Slots) -> dict[str, Any]:
    """What a runtime has to know in addition to the graphs."""
    config = model.config
    return {
        "model": config.name,
        "image_size": config.image_size,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "d_model": config.d_model,
        "memory_dim": config.memory_dim,
        "num_spatial_memories": config.num_spatial_memories,
        "recent_memories": BankPolicy.of(config).reach,
        "max_pointers": config.max_pointers,
        "memory_slots": slots.memories,
        "pointer_slots": slots.pointers,
        "graphs": {name: {"inputs": INPUTS[name], "outputs": OUTPUTS[name]} for name in INPUTS},
    }
