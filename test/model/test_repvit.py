"""EdgeTAM's trunk with everything folded: the numbers of the branches and batch norms that it was trained with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_model import TINY_EDGETAM, tiny_model
from torch import Tensor

from sam2_ros.model.checkpoint import CheckpointError, load_checkpoint, read_state_dict
from sam2_ros.model.config import RepViTSpec
from sam2_ros.model.repvit import RepViT, fold_batch_norms, has_batch_norms
from sam2_ros.model.sam2 import SAM2

pytestmark = pytest.mark.numeric

TRUNK = "image_encoder.trunk."
SPEC = RepViTSpec(widths=(8, 16, 24, 32), depths=(1, 1, 2, 1))


def unfolded(trunk: RepViT, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors as a checkpoint has them, for a trunk whose own are folded."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def convolution(name: str, shape: tuple[int, ...]) -> None:
        channels = (shape[0],)
        state[f"{name}.c.weight"] = torch.randn(shape, generator=generator) / max(1, shape[1]) ** 0.5
        for part in ("weight", "bias", "running_mean"):
            state[f"{name}.bn.{part}"] = 0.5 + 0.5 * torch.randn(channels, generator=generator)
        state[f"{name}.bn.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    for key, value in trunk.state_dict().items():
        name, part = f"{TRUNK}{key}".rsplit(".", 1)
        if ".se." in name:
            state[f"{name}.{part}"] = 0.5 * torch.randn(value.shape, generator=generator)
        elif part == "weight" and name.endswith("token_mixer"):
            convolution(f"{name}.conv", tuple(value.shape))
            convolution(f"{name}.conv1", (value.shape[0], 1, 1, 1))
        elif part == "weight":
            convolution(name, tuple(value.shape))
    return state


class AsTrained:
    """The trunk computed from a checkpoint's tensors, step by step as it was trained."""

    def __init__(self, state: dict[str, Tensor], spec: RepViTSpec) -> None:
        self.state, self.spec = state, spec

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias, mean, variance = (
            self.state[f"{TRUNK}body.{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def convolve(self, x: Tensor, name: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = self.state[f"{TRUNK}body.{name}.c.weight"]
        groups = weight.shape[0] if depthwise else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=groups)
        return self.norm(x, f"{name}.bn")

    def mix_channels(self, x: Tensor, name: str) -> Tensor:
        return x + self.convolve(F.gelu(self.convolve(x, f"{name}.conv1")), f"{name}.conv2")

    def block(self, x: Tensor, name: str) -> Tensor:
        mixer = f"{name}.token_mixer"
        x = self.convolve(x, f"{mixer}.conv", depthwise=True) + self.convolve(x, f"{mixer}.conv1", depthwise=True) + x
        if f"{TRUNK}body.{name}.se.fc1.weight" in self.state:
            weights = [self.state[f"{TRUNK}body.{name}.se.{part}"] for part in ("fc1.weight", "fc1.bias")]
            squeezed = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), *weights))
            weights = [self.state[f"{TRUNK}body.{name}.se.{part}"] for part in ("fc2.weight", "fc2.bias")]
            x = x * F.conv2d(squeezed, *weights).sigmoid()
        return self.mix_channels(x, f"{name}.channel_mixer")

    def __call__(self, x: Tensor) -> list[Tensor]:
        x = self.convolve(F.gelu(self.convolve(x, "stem.conv1", 2)), "stem.conv2", 2)
        levels = []
        for stage, depth in enumerate(self.spec.depths):
            if stage:
                name = f"stages_{stage}.downsample"
                x = self.block(x, f"{name}.pre_block")
                x = self.convolve(x, f"{name}.spatial_downsample", 2, depthwise=True)
                x = self.mix_channels(self.convolve(x, f"{name}.channel_downsample"), f"{name}.ffn")
            for index in range(depth):
                x = self.block(x, f"stages_{stage}.blocks.{index}")
            levels.append(x)
        return levels


def test_folded_trunk_is_the_trained_one() -> None:
    trunk = RepViT(SPEC).eval()
    state = unfolded(trunk)
    folded = fold_batch_norms(state)
    trunk.load_state_dict({name.removeprefix(TRUNK): tensor for name, tensor in folded.items()})
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        actual, expected = trunk(images), AsTrained(state, SPEC)(images)
    assert [tuple(level.shape) for level in actual] == [(2, 8 * (1 + i), 16 // 2**i, 24 // 2**i) for i in range(4)]
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def edgetam_file(path: Path) -> tuple[SAM2, dict[str, Tensor]]:
    """A checkpoint with batch norms, and what a network of it must be."""
    model = tiny_model(TINY_EDGETAM, seed=3)
    trunk = unfolded(model.image_encoder.trunk)
    others = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(TRUNK)}
    model.load_state_dict(others | fold_batch_norms(trunk))
    torch.save({"model": others | trunk}, path)
    return model, others | trunk


def test_file_with_batch_norms_loads_folded_and_again_as_saved(tmp_path: Path) -> None:
    expected, _ = edgetam_file(tmp_path / "official.pt")
    loaded, again = SAM2(TINY_EDGETAM), SAM2(TINY_EDGETAM)
    load_checkpoint(loaded, tmp_path / "official.pt")
    torch.save(loaded.state_dict(), tmp_path / "folded.pt")
    assert not has_batch_norms(torch.load(tmp_path / "folded.pt"))
    load_checkpoint(again, tmp_path / "folded.pt")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
        assert torch.equal(again.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stem.conv1.bn.running_var", None, r"1 missing \(.*stem\.conv1\.bias\)|missing .*stem\.conv1"),
        ("stem.conv1.bn.num_batches_tracked", None, "missing .*stem.conv1.bias"),
        ("stem.conv2.bn.bias", torch.zeros(5), "missing .*stem.conv2.bias"),
        ("stages_0.blocks.0.token_mixer.conv1.c.weight", torch.zeros(8, 1, 3, 3), "missing .*token_mixer.bias"),
        ("stages_0.blocks.0.token_mixer.conv1.c.weight", None, "missing .*token_mixer.bias"),
        ("stem.conv1.c.weight", torch.zeros(4, 3, 5, 5), r"stem\.conv1\.weight has shape \(4, 3, 5, 5\)"),
        ("stem.conv1.bn.running_var", torch.full((4,), -1.0), "NaN or infinite values in .*stem.conv1.weight"),
    ],
)
def test_trunk_that_cannot_be_folded_is_rejected(
    tmp_path: Path, name: str, change: Tensor | None, message: str
) -> None:
    path = tmp_path / "changed.pt"
    _, state = edgetam_file(path)
    name = f"{TRUNK}body.{name}"
    assert name in state
    if change is None:
        del state[name]
    else:
        state[name] = change
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(SAM2(TINY_EDGETAM), path)


def test_reading_leaves_a_state_without_batch_norms_alone(tmp_path: Path) -> None:
    state = tiny_model(TINY_EDGETAM).state_dict()
    torch.save(state, tmp_path / "folded.pt")
    assert read_state_dict(tmp_path / "folded.pt").keys() == state.keys()
