"""Trunk and feature pyramid: the part of SAM 2 that runs once per image (paper section 4, "Image encoder")."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_ros.model.config import EfficientNetLiteSpec, HieraSpec, ModelConfig, RepViTSpec
from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.model.hiera import Hiera
from sam2_ros.model.inference import is_cpu_inference
from sam2_ros.model.layers import chained_1x1
from sam2_ros.model.repvit import RepViT
from sam2_ros.model.vit import PlainNeck, Vit


class LateralConv(nn.Module):
    """A named 1x1 convolution, so that its weights are named ``convs.N.conv``."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.conv(x_bchw.to(self.conv.weight.dtype))


class FpnNeck(nn.Module):
    """Four trunk levels -> a map of ``d_model`` channels at stride 16 and what the decoder takes from strides 4 and 8.

    Only stride 16 receives top-down features (from stride 32); strides 4 and 8 are lateral alone.
    """

    def __init__(self, trunk_channels: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        # Deepest level first: the order of the released checkpoints.
        self.convs = nn.ModuleList(LateralConv(channels, d_model) for channels in reversed(trunk_channels))

    def forward(self, levels: list[Tensor], conv_s0: nn.Conv2d, conv_s1: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """``conv_s0`` and ``conv_s1``: the mask decoder's own 1x1 convolutions of strides 4 and 8.

        Nothing else uses the neck's wide maps there, so they are not computed.
        """
        stride32, stride16, stride8, stride4 = (lateral for lateral in self.convs if isinstance(lateral, LateralConv))
        top_down = F.interpolate(stride32(levels[3]), scale_factor=2.0, mode="nearest")
        return (
            chained_1x1(levels[0], stride4.conv, conv_s0),
            chained_1x1(levels[1], stride8.conv, conv_s1),
            stride16(levels[2]) + top_down,
        )


Maps = tuple[Tensor, Tensor, Tensor]


class ImageEncoder(nn.Module):
    # Set from outside (``tracking/runtime/encoder_engine.py``): called with this module, images and laterals, it makes
    # the maps in PyTorch's place, or says None to leave them to it. Not called where something is trained or traced.
    engine: Callable[..., Maps | None] | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = _trunk(config)
        neck = FpnNeck if config.fine_maps else PlainNeck
        self.neck = neck(self.trunk.channels, config.d_model)

    def forward(self, images_bchw: Tensor, *laterals: nn.Conv2d) -> Maps:
        """(B, 3, S, S) normalised images -> the neck's maps at strides 4, 8 and 16.

        Args:
            laterals: the mask decoder's, see ``MaskDecoder.laterals``.
        """
        if self.engine is not None and is_cpu_inference(images_bchw):
            maps = self.engine(self, images_bchw, laterals)
            if maps is not None:
                return maps
        return self.plain(images_bchw, *laterals)

    def plain(self, images_bchw: Tensor, *laterals: nn.Conv2d) -> Maps:
        """``forward`` in PyTorch."""
        maps: Maps = self.neck(self.trunk(images_bchw), *laterals)
        return maps


def _trunk(config: ModelConfig) -> Hiera | EfficientNetLite | RepViT | Vit:
    spec = config.trunk
    if isinstance(spec, HieraSpec):
        return Hiera(spec)
    if isinstance(spec, RepViTSpec):
        return RepViT(spec)
    return EfficientNetLite() if isinstance(spec, EfficientNetLiteSpec) else Vit(spec)
