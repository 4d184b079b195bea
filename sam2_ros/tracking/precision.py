"""Which floating-point types the heavy parts of a network run in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sam2_ros.model.config import HieraSpec, ModelConfig

PRECISIONS = ("auto", "float32", "bfloat16")
_FAST_ON_CPU = ("amx_bf16", "avx512_bf16", "bf16")  # as torch.cpu.get_capabilities names them, of x86 and Arm


@dataclass(frozen=True)
class Precision:
    """Types of the two parts that are nearly all of the work; the rest is float32."""

    image_encoder: torch.dtype
    memory_attention: torch.dtype

    def __str__(self) -> str:
        names = [str(dtype).removeprefix("torch.") for dtype in (self.image_encoder, self.memory_attention)]
        return names[0] if names[0] == names[1] else f"{names[0]}, memory attention in {names[1]}"


def choose_precision(precision: str, config: ModelConfig, device: torch.device) -> Precision:
    """What a user's word means for a network.

    Args:
        precision: "float32", "bfloat16", or "auto": bfloat16 where the device computes it faster than float32 and the
            masks stay nearly the same (mean IoU with those of float32 above 0.99). nano's image encoder is too narrow
            for that.
        config: of the network.
        device: where it runs.

    Raises:
        ValueError: another word.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16(device)):
        return Precision(torch.float32, torch.float32)
    if precision == "auto" and not isinstance(config.trunk, HieraSpec):
        return Precision(torch.float32, torch.bfloat16)
    return Precision(torch.bfloat16, torch.bfloat16)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16; else they are emulated, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older versions
    return any(found.get(name, False) for name in _FAST_ON_CPU)
