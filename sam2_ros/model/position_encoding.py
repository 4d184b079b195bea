"""Position encodings: 2-D sine maps, 1-D sine of time, random Fourier features of points, axial rotary tables."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

_TEMPERATURE = 10000.0
# A cached table may be made while tracking and used in training, which cannot use tensors of inference mode.
_usable_in_training = torch.inference_mode(False)


def _sine_periods(dim: int, device: torch.device | None) -> Tensor:
    """(dim,) periods; adjacent channels share one, as sine and cosine of the same frequency."""
    index = torch.arange(dim, dtype=torch.float32, device=device)
    return _TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / dim)


@lru_cache(maxsize=32)
@_usable_in_training
def sine_map(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """(1, channels, height, width) float32: y channels first, then x; positions 1..H over H, times 2 pi.

    Constant for a shape and therefore cached; callers must not write to it.
    """

    def along(size: int) -> Tensor:
        position = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        angle = position / (size + 1e-6) * (2 * math.pi)
        angle_nc = angle[:, None] / _sine_periods(channels // 2, device)
        return torch.stack((angle_nc[:, 0::2].sin(), angle_nc[:, 1::2].cos()), dim=2).flatten(1)

    y_chw = along(height).T[:, :, None].expand(-1, height, width)
    x_chw = along(width).T[:, None, :].expand(-1, height, width)
    return torch.cat((y_chw, x_chw))[None].contiguous()


def sine_of_time(times_n: Tensor, dim: int) -> Tensor:
    """(N,) signed times -> (N, dim): all sines, then all cosines (not interleaved)."""
    angle_nc = times_n[:, None] / _sine_periods(dim // 2, times_n.device)
    return torch.cat((angle_nc.sin(), angle_nc.cos()), dim=1)


class RandomFourierEncoding(nn.Module):
    """Points in [0, 1]^2 -> sine and cosine of random projections (SAM, arXiv 2304.02643, appendix A)."""

    positional_encoding_gaussian_matrix: Tensor  # (2, channels / 2), part of a checkpoint

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, xy_norm: Tensor) -> Tensor:
        """(..., 2) float32 x, y in [0, 1] -> (..., channels)."""
        angle = (2 * xy_norm - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """(1, channels, height, width): the encoding of every pixel centre."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        xy_hw2 = torch.stack((x[None, :].expand(height, width), y[:, None].expand(height, width)), dim=-1)
        return self(xy_hw2).permute(2, 0, 1)[None]


@lru_cache(maxsize=32)
@_usable_in_training
def rotary_table(dim: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (height * width, dim / 2) float32: the first half rotates with x, the second with y.

    Axial rotary position encoding (RoPE-Mixed's axial variant, arXiv 2403.13298) as in SAM 2's memory attention.
    """
    frequency = _TEMPERATURE ** (-torch.arange(0, dim, 4, dtype=torch.float32, device=device)[: dim // 4] / dim)
    index = torch.arange(height * width, device=device)
    x, y = (index % width).float(), torch.div(index, width, rounding_mode="floor").float()
    angle_nc = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=1)
    return angle_nc.cos(), angle_nc.sin()


def rotate_pairs(x_bhnc: Tensor, cos_nc: Tensor, sin_nc: Tensor) -> Tensor:
    """Rotate adjacent channel pairs of (B, heads, R * N, C) by the table of N positions, R times over, in float32."""
    b, heads, tokens, c = x_bhnc.shape
    pairs = x_bhnc.float().reshape(b, heads, tokens // cos_nc.shape[0], cos_nc.shape[0], c // 2, 2)
    if torch.compiler.is_compiling():  # neither ONNX nor PyTorch's compiler supports complex numbers
        even, odd = pairs[..., 0], pairs[..., 1]
        turned = torch.stack((even * cos_nc - odd * sin_nc, even * sin_nc + odd * cos_nc), dim=-1)
        return turned.reshape(b, heads, tokens, c).to(x_bhnc.dtype)
    # A rotation is a complex product, several times faster than its four real products.
    turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos_nc, sin_nc))
    return turned.reshape(b, heads, tokens, c).to(x_bhnc.dtype)
