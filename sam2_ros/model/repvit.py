"""The RepViT trunk (arXiv 2307.09283) with its branches and batch norms folded into single convolutions.

EdgeTAM's checkpoint has the trunk as it was trained: two branches and a shortcut beside each depthwise convolution, and
a batch norm behind every convolution. At inference each such group equals one convolution, whose tensors
``fold_batch_norms`` computes from the checkpoint's. Names are those of timm, which the checkpoint has, too.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.config import RepViTSpec

_BATCH_NORM_EPS = 1e-5
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_EXPANSION = 2  # of the channel mixers
_SQUEEZE = 0.25  # of the channels in squeeze-and-excite, rounded to a multiple of 8


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite: channels weighted by the mean of the whole map (arXiv 1709.01507)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = max(8, int(dim * _SQUEEZE + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(dim, inner, 1)
        self.fc2 = nn.Conv2d(inner, dim, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        mean_bc11 = x_bchw.mean((2, 3), keepdim=True)
        return x_bchw * self.fc2(F.relu(self.fc1(mean_bc11))).sigmoid()


class ChannelMixer(nn.Module):
    """Two pointwise convolutions with a GELU between them, and a shortcut around both."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, _EXPANSION * dim, 1)
        self.conv2 = nn.Conv2d(_EXPANSION * dim, dim, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return x_bchw + self.conv2(F.gelu(self.conv1(x_bchw)))


class RepViTBlock(nn.Module):
    def __init__(self, dim: int, squeezes: bool) -> None:
        super().__init__()
        self.token_mixer = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.se = SqueezeExcite(dim) if squeezes else nn.Identity()
        self.channel_mixer = ChannelMixer(dim)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.channel_mixer(self.se(self.token_mixer(x_bchw)))


class Downsample(nn.Module):
    """Halve the resolution and change to the width of the next stage."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.pre_block = RepViTBlock(dim_in, squeezes=False)
        self.spatial_downsample = nn.Conv2d(dim_in, dim_in, 3, 2, 1, groups=dim_in)
        self.channel_downsample = nn.Conv2d(dim_in, dim_out, 1)
        self.ffn = ChannelMixer(dim_out)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x_bchw))))


class Stem(nn.Module):
    """Images -> features at stride 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, dim // 2, 3, 2, 1)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, 2, 1)

    def forward(self, images_bchw: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(images_bchw)))


class Stage(nn.Module):
    def __init__(self, dim_in: int, dim_out: int, depth: int, downsamples: bool) -> None:
        super().__init__()
        self.downsample = Downsample(dim_in, dim_out) if downsamples else nn.Identity()
        self.blocks = nn.Sequential(*(RepViTBlock(dim_out, squeezes=index % 2 == 0) for index in range(depth)))

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.blocks(self.downsample(x_bchw))


class RepViT(nn.Module):
    """Images (B, 3, S, S) -> four maps at strides 4, 8, 16, 32."""

    def __init__(self, spec: RepViTSpec) -> None:
        super().__init__()
        self.channels = spec.widths
        self.body = nn.ModuleDict({"stem": Stem(spec.widths[0])})
        width = spec.widths[0]
        for index, (dim, depth) in enumerate(zip(spec.widths, spec.depths, strict=True)):
            self.body[f"stages_{index}"] = Stage(width, dim, depth, downsamples=index > 0)
            width = dim

    def heavy_parts(self) -> list[nn.Module]:
        """All layers: there is no residual stream to keep in float32."""
        return [self]

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        x: Tensor = images_bchw.to(self.body.get_parameter("stem.conv1.weight").dtype)
        levels = []
        for name, part in self.body.items():
            x = part(x)
            if name != "stem":
                levels.append(x)
        return levels


def has_batch_norms(state: dict[str, Tensor]) -> bool:
    """Whether a trunk in ``state`` is as it was trained, with its batch norms beside the convolutions."""
    return any(name.startswith("image_encoder.trunk.body.") and name.endswith(".bn.running_var") for name in state)


def fold_batch_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network with every ``X.c`` and ``X.bn`` as one ``X``, and then each pair of branches as one convolution.

    Computed in float64, returned as float32. A pair that lacks a tensor, or has one of a shape that does not fit, stays
    as it is; the loader then names it in its error.

    Args:
        state: with the names of EdgeTAM's checkpoint.
    """
    folded = dict(state)
    for name in state:
        if match := re.fullmatch(r"(image_encoder\.trunk\.body\..+)\.c\.weight", name):
            _fold_one(folded, match[1])
    for name in list(folded):
        if match := re.fullmatch(r"(image_encoder\.trunk\.body\..+\.token_mixer)\.conv\.weight", name):
            _join_branches(folded, match[1])
    return folded


def _fold_one(state: dict[str, Tensor], name: str) -> None:
    norm = [state.get(f"{name}.bn.{part}") for part in _BATCH_NORM]
    kernel = state[f"{name}.c.weight"]
    if any(tensor is None for tensor in norm) or kernel.ndim != 4:
        return
    weight, bias, mean, variance = (tensor.double() for tensor in norm[:4] if tensor is not None)
    if any(tensor.shape != kernel.shape[:1] for tensor in (weight, bias, mean, variance)):
        return
    scale = weight / (variance + _BATCH_NORM_EPS).sqrt()
    for part in ("c.weight", *(f"bn.{part}" for part in _BATCH_NORM)):
        del state[f"{name}.{part}"]
    state[f"{name}.weight"] = (kernel.double() * scale[:, None, None, None]).float()
    state[f"{name}.bias"] = (bias - mean * scale).float()


def _join_branches(state: dict[str, Tensor], name: str) -> None:
    """A 3x3 and a 1x1 depthwise convolution and the input itself, added up, are one 3x3 convolution."""
    names = [f"{name}.{branch}.{part}" for branch in ("conv", "conv1") for part in ("weight", "bias")]
    if any(each not in state for each in names):
        return
    wide, bias, narrow, other_bias = (state[each].double() for each in names)
    if wide.ndim != 4 or wide.shape[1:] != (1, 3, 3) or narrow.shape != (wide.shape[0], 1, 1, 1):
        return
    for each in names:
        del state[each]
    centre = F.pad(narrow + torch.ones_like(narrow), [1, 1, 1, 1])
    state[f"{name}.weight"] = (wide + centre).float()
    state[f"{name}.bias"] = (bias + other_bias).float()
