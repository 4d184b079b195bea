"""Graphs of the networks that are not SAM 2's own: those parts that differ from SAM 2's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import TINY_EDGETAM, TINY_EFFICIENTTAM_1, tiny_model

from sam2_ros.export import onnx_files
from sam2_ros.export.graphs import INPUTS, Slots
from sam2_ros.model.config import ModelConfig

pytestmark = pytest.mark.numeric

TOLERANCE = 1e-4  # of a graph, relative to its largest output
PARTS = [
    (TINY_EDGETAM, ("image_encoder", "memory_attention", "memory_encoder")),
    (TINY_EFFICIENTTAM_1, ("image_encoder", "memory_attention", "mask_decoder")),
]


@pytest.mark.parametrize(("config", "names"), PARTS, ids=[config.name for config, _ in PARTS])
def test_graphs_compute_what_their_modules_do(
    config: ModelConfig, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what the official builder adds: then a memory encoder's flag is not looked at."""
    pytest.importorskip("onnxscript", reason="needs the packages of the extra `export`: run `make venv`")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the packages of the extra `export`: run `make venv`")
    network = tiny_model(config)
    graphs = [g for g in onnx_files.graphs_of(network, Slots.of(network, conditioning_frames=1)) if g.name in names]
    monkeypatch.setattr(onnx_files, "graphs_of", lambda model, slots: graphs)
    onnx_files.export_onnx(network, tmp_path)
    for graph in graphs:
        session = onnxruntime.InferenceSession(tmp_path / f"{graph.name}.onnx")
        wanted = {value.name for value in session.get_inputs()}
        for filled in (1, 4):  # memories: one that is alone, and all slots
            named = dict(zip(INPUTS[graph.name], map(_random_like, graph.example), strict=True))
            if graph.name == "memory_attention":
                named["memory_valid"] = torch.arange(4) % 4 >= 4 - filled
            with torch.inference_mode():
                expected = graph.module(*named.values())
            actual = session.run(None, {name: value.numpy() for name, value in named.items() if name in wanted})
            for ours, theirs in zip(actual, expected if isinstance(expected, tuple) else (expected,), strict=True):
                assert ours.shape == theirs.shape
                assert not theirs.numel() or np.abs(ours - theirs.numpy()).max() <= TOLERANCE * float(
                    theirs.abs().max()
                )


def _random_like(example: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(example.numel())
    if example.dtype == torch.float32:
        return torch.randn(example.shape, generator=generator)
    return torch.randint(0, 2, example.shape, generator=generator).to(example.dtype)
