"""An EfficientNet-Lite0 trunk (arXiv 1905.11946): depthwise convolutions with ReLU6 and no squeeze-and-excite.

Batch norms are folded into the convolutions: ImageNet statistics stay as they are in training and cost nothing after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2_ros.model.packed_conv import convolve, keep

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
    """A convolution and its ReLU6, padded as TensorFlow's "SAME": of an odd total, more at the right and bottom.

    Zeros in a kernel that is larger by one make up for the smaller part at the left and top: the images are padded
    evenly, inside the convolution, where a padded copy of them would take a quarter of the trunk's time.
    """

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        make_kernel = _one_larger if total % 2 else keep
        return convolve(self, x, relu6=True, padding=(total + 1) // 2, make_kernel=make_kernel)


def _one_larger(weight: Tensor) -> Tensor:
    """With zeros at the top and the left; not by F.pad, which does not survive ONNX export on a weight."""
    weight = torch.cat((torch.zeros_like(weight[:, :, :1]), weight), dim=2)
    return torch.cat((torch.zeros_like(weight[..., :1]), weight), dim=3)


class InvertedResidual(nn.Module):
    """1x1 up, depthwise, 1x1 down; a shortcut where the shape stays."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = dim_in * expansion
        self.expand = nn.Conv2d(dim_in, inner, 1) if expansion > 1 else None
        self.depthwise = SamePadConv(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, dim_out, 1)
        self.has_shortcut = stride == 1 and dim_in == dim_out

    def forward(self, x_bchw: Tensor) -> Tensor:
        y = x_bchw if self.expand is None else convolve(self.expand, x_bchw, relu6=True)
        y = convolve(self.project, self.depthwise(y), relu6=False)
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

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        x = self.stem(images_bchw.to(self.stem.weight.dtype))
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LEVEL_ENDS:
                levels.append(x)
        return levels
