"""Gradient checkpointing: activations are computed again when their gradients are needed, instead of being kept."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from sam2_ros.model.sam2 import SAM2


def recompute_activations(model: SAM2) -> None:
    """Make the model's four functions keep their inputs only. Applied from outside, without changes to the model."""
    for name in ("encode_image", "attend_to_memory", "decode_masks", "encode_memory"):
        # Nothing in the model is random, so no random state has to be kept for the second computation.
        again = partial(checkpoint, getattr(model, name), use_reentrant=False, preserve_rng_state=False)
        setattr(model, name, again)
