"""From a model's name to a tracker that is ready for its first image."""

from __future__ import annotations

from pathlib import Path

import torch

from sam2_ros.model.checkpoint import load_checkpoint
from sam2_ros.model.config import model_config
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker

EMBEDDED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "nano.pt"


def load_tracker(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    postprocess: bool = True,
    weights: str = "embedded",
    image_size: int | None = None,
    lost_after_frames: int = 30,
) -> Tracker:
    """A tracker ready for its first image.

    Args:
        model, checkpoint, device, postprocess, weights, image_size: see ``load_network``.
        lost_after_frames: see ``Tracker``.

    Raises:
        ValueError, sam2_ros.model.checkpoint.CheckpointError: see ``load_network``.
    """
    return Tracker(load_network(model, checkpoint, device, postprocess, weights, image_size), lost_after_frames)


def load_network(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    postprocess: bool = True,
    weights: str = "embedded",
    image_size: int | None = None,
) -> SAM2:
    """The network with its weights, on its device and ready to run.

    Args:
        model: a name from the model table: "nano", "sam2.1_hiera_tiny", ...; None takes the model that the checkpoint
            is for, and "nano" without a checkpoint.
        checkpoint: weights file; None takes the embedded ones, which only "nano" has.
        device: "cpu", "cuda", "cuda:1", ...
        postprocess: the official builder's default settings (stability fallback, binarised prompted masks);
            False gives the official benchmark's.
        weights: "embedded", or "random" for dry runs without meaningful masks.
        image_size: side of the model's square input in px where it should differ from the table's.

    Raises:
        ValueError: unknown model, size or kind of weights.
        sam2_ros.model.checkpoint.CheckpointError: the weights do not fit or cannot be read.
    """
    if weights not in ("embedded", "random"):
        raise ValueError(f'weights: expected "embedded" or "random", got {weights!r}')
    model = model or "nano"
    config = model_config(model, image_size)
    if checkpoint is None and weights == "embedded" and model != "nano":
        raise ValueError(f"{model} has no embedded weights: name a checkpoint file, or use the model nano")
    network = SAM2(config, StabilityFallback() if postprocess else None, binarize_prompted_masks=postprocess)
    if checkpoint is not None:
        load_checkpoint(network, Path(checkpoint))
    elif weights == "embedded":
        load_checkpoint(network, EMBEDDED_WEIGHTS)
    network = network.to(device).eval()
    if model == "nano":
        # Depthwise convolutions are several times faster with channels last.
        network.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
