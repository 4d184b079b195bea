"""ImageNet weights with their batch norms folded in, against convolutions and batch norms one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.efficientnet_lite import EfficientNetLite, SamePadConv
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD
from sam2_ros.training.pretrained import load_imagenet_lite0

pytestmark = pytest.mark.numeric

EPSILON = 1e-3  # of the batch norms


def random_source(trunk: EfficientNetLite) -> dict[str, Tensor]:
    """A state dict as the PyPI package names it."""
    generator = torch.Generator().manual_seed(0)
    source: dict[str, Tensor] = {}

    def add(conv: str, norm: str, layer: torch.nn.Conv2d) -> None:
        shape = layer.weight.shape
        source[f"{conv}.weight"] = torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
        for name, spread, middle in (("weight", 0.2, 1.0), ("bias", 0.5, 0.0), ("running_mean", 0.5, 0.0)):
            source[f"{norm}.{name}"] = middle + spread * torch.randn(shape[0], generator=generator)
        source[f"{norm}.running_var"] = 0.5 + torch.rand(shape[0], generator=generator)

    add("_conv_stem", "_bn0", trunk.stem)
    for index, block in enumerate(trunk.blocks):
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            add(f"{prefix}_expand_conv", f"{prefix}_bn0", block.expand)
        add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", block.depthwise)
        add(f"{prefix}_project_conv", f"{prefix}_bn2", block.project)
    source["_fc.weight"] = torch.zeros(1000, 1280)  # the classifier is left alone
    return source


@pytest.fixture
def trunk() -> EfficientNetLite:
    return EfficientNetLite().eval()


def conv_and_norm(x: Tensor, source: dict[str, Tensor], conv: str, norm: str, stride: int = 1) -> Tensor:
    """The unfolded original, without padding; grouped where the weights have one channel in."""
    weight = source[f"{conv}.weight"]
    groups = len(weight) if weight.shape[1] == 1 else 1
    statistics = (source[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(F.conv2d(x, weight, stride=stride, groups=groups), *statistics, eps=EPSILON)


def test_blocks_are_convolution_then_batch_norm(trunk: EfficientNetLite, tmp_path: Path) -> None:
    source = random_source(trunk)
    torch.save(source, tmp_path / "lite0.pth")
    load_imagenet_lite0(trunk, tmp_path / "lite0.pth")
    x = torch.randn(2, 24, 9, 9, generator=torch.Generator().manual_seed(1))
    prefix = "_blocks.2."  # widens, stride 1, with a shortcut
    y = F.relu6(conv_and_norm(x, source, f"{prefix}_expand_conv", f"{prefix}_bn0"))
    y = F.relu6(conv_and_norm(F.pad(y, (1, 1, 1, 1)), source, f"{prefix}_depthwise_conv", f"{prefix}_bn1"))
    y = conv_and_norm(y, source, f"{prefix}_project_conv", f"{prefix}_bn2")
    with torch.inference_mode():
        torch.testing.assert_close(trunk.blocks[2](x), x + y, rtol=1e-4, atol=1e-4)


def test_stem_takes_images_normalised_as_for_every_other_model(trunk: EfficientNetLite, tmp_path: Path) -> None:
    """The original wants (x - 127) / 128. Borders differ: zero padding is another colour there."""
    source = random_source(trunk)
    torch.save(source, tmp_path / "lite0.pth")
    load_imagenet_lite0(trunk, tmp_path / "lite0.pth")
    image = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    padded = F.pad((image - 127) / 128, (0, 1, 0, 1))
    original = conv_and_norm(padded, source, "_conv_stem", "_bn0", stride=2)
    with torch.inference_mode():
        ours = trunk.stem((image / 255 - mean) / std)
    torch.testing.assert_close(ours[..., :-1, :-1], original[..., :-1, :-1], rtol=1e-4, atol=1e-4)


def test_every_weight_of_the_trunk_is_filled(trunk: EfficientNetLite, tmp_path: Path) -> None:
    for parameter in trunk.parameters():
        parameter.data.fill_(float("nan"))
    torch.save(random_source(trunk), tmp_path / "lite0.pth")
    load_imagenet_lite0(trunk, tmp_path / "lite0.pth")
    assert all(parameter.isfinite().all() for parameter in trunk.parameters())


@pytest.mark.parametrize("content", [{"stem": torch.zeros(1)}, [1.0], None], ids=["names", "list", "damaged"])
def test_another_file_is_rejected(trunk: EfficientNetLite, tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(b"damaged")
    if content is not None:
        torch.save(content, path)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with pytest.raises(ValueError, match=r"other\.pth: expected efficientnet-lite0's weights"):
        load_imagenet_lite0(trunk, path)
    with pytest.raises(FileNotFoundError):
        load_imagenet_lite0(trunk, tmp_path / "gone.pth")
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_is_tensorflows(kernel: int, stride: int) -> None:
    """Output of size ceil(n / stride); of an odd total padding, the larger half at the right and bottom."""
    conv = SamePadConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    index = torch.arange(8)
    image = torch.ones(1, 1, 8, 8)
    total = (8 // stride - 1) * stride + kernel - 8
    starts = index[: 8 // stride] * stride - total // 2
    counts = torch.tensor([sum(0 <= i < 8 for i in range(start, start + kernel)) for start in starts.tolist()])
    with torch.inference_mode():
        assert conv(image)[0, 0].tolist() == torch.outer(counts, counts).float().tolist()
