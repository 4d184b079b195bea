"""An EfficientNet-Lite0 trunk (arXiv 1905.11946): depthwise convolutions with ReLU6 and no squeeze-and-excite.

Batch norms are folded into the convolutions: the ImageNet statistics stay fixed in training and cost nothing later.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# blocks, kernel, stride of the first, expansion, width out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LEVEL_ENDS = (2, 4, 10, 15)  # the last block at stride 4, 8, 16 and 32
_LEVEL_CHANNELS = (24, 40, 112, 320)


class SamePadConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": if the total is odd, the larger part is at the right and bottom.

    For an odd total the kernel gets a further row and column of zeros, so that even padding gives the same result. The
    convolution can do even padding itself; making a padded copy of the images would take a quarter of the trunk's time.
    """

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        weight = self.weight
        if total % 2:  # F.pad on a weight cannot be exported to ONNX
            weight = torch.cat((torch.zeros_like(weight[:, :, :1]), weight), dim=2)
            weight = torch.cat((torch.zeros_like(weight[..., :1]), weight), dim=3)
        return F.conv2d(x, weight, self.bias, self.stride, (total + 1) // 2, 1, self.groups)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, 1x1 projection; with a shortcut if the shape does not change."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = dim_in * expansion
        self.expand = nn.Conv2d(dim_in, inner, 1) if expansion > 1 else None
        self.depthwise = SamePadConv(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, dim_out, 1)
        self.has_shortcut = stride == 1 and dim_in == dim_out

    def forward(self, x_bchw: Tensor) -> Tensor:
        y = x_bchw if self.expand is None else F.relu6(self.expand(x_bchw), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x_bchw + y if self.has_shortcut else y


class EfficientNetLite(nn.Module):
    """Images (B, 3, S, S) -> four maps at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = _LEVEL_CHANNELS
        self.stem = SamePadConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        width = 32
        for repeats, kernel, first_stride, expansion, width_out in _STAGES:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                self.blocks.append(InvertedResidual(width, width_out, kernel, stride, expansion))
                width = width_out

    def heavy_parts(self) -> list[nn.Module]:
        """All layers: there is no residual stream to keep in float32."""
        return [self]

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(images_bchw.to(self.stem.weight.dtype)), inplace=True)
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LEVEL_ENDS:
                levels.append(x)
        return levels
