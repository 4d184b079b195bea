"""ONNX files of a network, run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TINY, noise_frames, tiny_model

from sam2_ros.cli import main
from sam2_ros.export import onnx_files
from sam2_ros.export.check import check_export
from sam2_ros.export.graphs import INPUTS, OUTPUTS, Slots
from sam2_ros.export.onnx_files import export_onnx, graphs_of
from sam2_ros.model.config import MODELS
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker

pytestmark = pytest.mark.numeric

pytest.importorskip("onnxscript", reason="needs the packages of the extra `export`: run `make venv`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the packages of the extra `export`: run `make venv`")

TOLERANCE = 1e-4  # of a graph, relative to its largest output
# Over a stream: memories are kept as bfloat16, and what rounds to the other side comes back larger in every frame.
TOLERANCE_LOGITS = 0.05


@pytest.fixture(scope="module")
def model() -> SAM2:
    """With all that the official builder's default setting adds."""
    return tiny_model(TINY, fallback=StabilityFallback(), binarize_prompted_masks=True)


@dataclass(frozen=True)
class Exported:
    folder: Path
    status: int
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def exported(model: SAM2, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """By the command; once for all tests, because it is the better part of a minute."""
    weights, folder = tmp_path_factory.mktemp("weights") / "tiny.pt", tmp_path_factory.mktemp("onnx") / "new"
    torch.save(model.state_dict(), weights)
    arguments = ["--checkpoint", str(weights), "--out", str(folder), "--conditioning-frames", "2"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setitem(MODELS, TINY.name, TINY)
        status = main(["export", "--model", TINY.name, *arguments, "--check-frames", "3"])
    return Exported(folder, status, json.loads(said.getvalue().splitlines()[-1]))


@pytest.fixture(scope="module")
def folder(exported: Exported) -> Path:
    return exported.folder


def test_a_stream_has_the_masks_of_pytorch(model: SAM2, folder: Path) -> None:
    agreement = check_export(model, folder, num_frames=24)
    assert agreement.worst_logit < TOLERANCE_LOGITS
    assert agreement.min_iou > 0.999


def test_several_objects_masks_corrections_and_absence(model: SAM2, folder: Path) -> None:
    from sam2_ros.export.onnx_network import OnnxNetwork

    graphs = OnnxNetwork(model, folder)
    trackers = [Tracker(network, corrections_are_conditioning=True) for network in (model, graphs)]
    mask = np.zeros((48, 80), bool)
    mask[10:30, 20:50] = True
    worst = 0.0
    for index, image in enumerate(noise_frames(12)):
        for tracker in trackers:
            if index == 0:
                tracker.add_prompt("a", points=[(20, 20), (60, 40), (30, 30)], labels=[1, 0, 1])
                tracker.add_prompt("b", mask=mask)
            elif index == 4:
                tracker.add_prompt("a", points=[(40, 20)], labels=[1])
        for expected, actual in zip(*(tracker.step(image) for tracker in trackers), strict=True):
            worst = max(worst, float(np.abs(expected.low_res_logits - actual.low_res_logits).max()))
    assert worst < TOLERANCE_LOGITS


def test_no_room_for_more_prompted_frames_is_said(model: SAM2, folder: Path) -> None:
    from sam2_ros.export.onnx_network import OnnxNetwork

    tracker = Tracker(OnnxNetwork(model, folder), corrections_are_conditioning=True)
    images = noise_frames(9)
    with pytest.raises(ValueError, match=r"room for 5 memories and 9 pointers.*export with more conditioning frames"):
        for image in images:
            tracker.add_prompt("a", points=[(20, 20)], labels=[1])
            tracker.step(image)


@pytest.mark.parametrize("name", INPUTS)
def test_each_graph_computes_what_its_module_does(name: str, model: SAM2, folder: Path) -> None:
    assert_computes_what_its_module_does(name, model, folder)


def assert_computes_what_its_module_does(name: str, model: SAM2, folder: Path) -> None:
    (graph,) = (graph for graph in graphs_of(model, Slots.of(model, conditioning_frames=2)) if graph.name == name)
    inputs = [_random_like(example, seed) for seed, example in enumerate(graph.example)]
    with torch.inference_mode():
        expected = graph.module(*inputs)
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    actual = session.run(None, {n: value.numpy() for n, value in zip(INPUTS[name], inputs, strict=True)})
    for ours, theirs in zip(actual, expected if isinstance(expected, tuple) else (expected,), strict=True):
        assert theirs.numel() == 1 or theirs.std() > 0
        assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE * float(theirs.abs().max())


def _random_like(example: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if example.dtype == torch.float32:
        return torch.randn(example.shape, generator=generator)
    return torch.randint(0, 2, example.shape, generator=generator).to(example.dtype)


def test_graph_of_a_given_mask(model: SAM2, folder: Path) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 10:40, 20:50] = 1
    session = onnxruntime.InferenceSession(folder / "mask_prompt.onnx")
    previous, logits = session.run(None, {"mask": mask.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(previous, model.mask_downsample(mask).numpy(), atol=1e-5)
        np.testing.assert_allclose(logits, model.prepare_mask(mask)[1].numpy(), atol=1e-4)


def test_description_names_what_the_files_have(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text())
    assert (description["memory_slots"], description["pointer_slots"]) == (3 + 2, 7 + 2)
    for name in INPUTS:
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        assert tuple(value.name for value in session.get_inputs()) == INPUTS[name]
        assert tuple(value.name for value in session.get_outputs()) == OUTPUTS[name]
        assert description["graphs"][name] == {"inputs": list(INPUTS[name]), "outputs": list(OUTPUTS[name])}


def test_tables_made_while_exporting_are_numbers(folder: Path) -> None:
    """A table that was kept from the tracing would break every network of that size in this process."""
    tracker = Tracker(tiny_model(TINY, seed=1))
    tracker.add_prompt("a", points=[(20, 20)], labels=[1])
    for image in noise_frames(3):
        assert np.isfinite(tracker.step(image)["a"].low_res_logits).all()


def test_command(exported: Exported) -> None:
    assert exported.status == 0
    summary = exported.summary
    assert summary["model"] == TINY.name
    assert summary["frames"] == 3 and summary["min_iou"] > 0.99
    assert all(Path(path).exists() for path in summary["files"]) and len(summary["files"]) == len(INPUTS) + 1


def test_the_embedded_models_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image encoder alone: the other graphs are of the same modules."""
    nano = tiny_model(replace(TINY, trunk=MODELS["nano"].trunk))
    (encoder,) = (graph for graph in graphs_of(nano, Slots.of(nano, 1)) if graph.name == "image_encoder")
    monkeypatch.setattr(onnx_files, "graphs_of", lambda model, slots: [encoder])
    export_onnx(nano, tmp_path)
    assert_computes_what_its_module_does(encoder.name, nano, tmp_path)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model", "nanoo"], "unknown model 'nanoo'"),
        (["--conditioning-frames", "0"], "conditioning frames: expected 1 or more, got 0"),
        (["--check-frames", "-1"], "--check-frames: expected 0 or more"),
    ],
)
def test_bad_input_is_one_line(
    extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--image-size", "64", "--out", str(tmp_path / "none"), *extra]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: SAM2) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript"):
        export_onnx(model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_exporters_warnings_are_not_the_users(
    model: SAM2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def noisy(*_arguments: object, **_options: object) -> None:
        warnings.warn("treespec is deprecated", FutureWarning, stacklevel=1)

    monkeypatch.setattr(torch.onnx, "export", noisy)
    export_onnx(model, tmp_path)
    assert not [warning for warning in recwarn if "treespec" in str(warning.message)]
