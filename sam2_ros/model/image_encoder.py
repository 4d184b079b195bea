"""Trunk and feature pyramid: the part of SAM 2 that runs once per image (paper section 4, "Image encoder")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.config import HieraSpec, ModelConfig
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.model.hiera import Hiera


class LateralConv(nn.Module):
    """A named 1x1 convolution, so that its weights are found as ``convs.N.conv``."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.conv(x_bchw.to(self.conv.weight.dtype))


class FpnNeck(nn.Module):
    """Four trunk levels -> three maps of ``d_model`` channels at strides 4, 8, 16.

    Only stride 16 receives top-down features (from stride 32); strides 4 and 8 are lateral alone.
    """

    def __init__(self, trunk_channels: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        # Deepest level first: the order of the released checkpoints.
        self.convs = nn.ModuleList(LateralConv(channels, d_model) for channels in reversed(trunk_channels))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        stride4, stride8, stride16, stride32 = (conv(x) for conv, x in zip(reversed(self.convs), levels, strict=True))
        top_down = F.interpolate(stride32, scale_factor=2.0, mode="nearest")
        return stride4, stride8, stride16 + top_down


class ImageEncoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        spec = config.trunk
        self.trunk = Hiera(spec) if isinstance(spec, HieraSpec) else EfficientNetLite()
        self.neck = FpnNeck(self.trunk.channels, config.d_model)

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) normalised images -> maps of ``d_model`` channels at strides 4, 8 and 16."""
        return self.neck(self.trunk(images_bchw))
