"""A network small enough to run hundreds of frames in a test, with every part that a released size has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sam2_ros.evaluation.official import randomise
from sam2_ros.model.config import MODELS, HieraSpec, ModelConfig, PerceiverSpec, PooledMemory, RepViTSpec, VitSpec
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.types import FrameResult

TINY = replace(
    MODELS["nano"],
    name="tiny-test",
    trunk=HieraSpec(8, 1, (1, 1, 2, 1), (3,), window_sizes=(8, 4, 6, 2), background_grid=(2, 2)),
    image_size=64,
    d_model=32,
    memory_dim=16,
    memory_layers=1,
    memory_ffn_dim=32,
    decoder_heads=2,
    decoder_ffn_dim=32,
    iou_hidden_dim=16,
    num_spatial_memories=4,
    max_pointers=8,
    pointer_time_encoding=True,
)

TINY_EDGETAM = replace(
    TINY,
    name="tiny-edgetam",
    trunk=RepViTSpec(widths=(8, 16, 24, 32), depths=(1, 1, 2, 1)),
    pointer_time_encoding=False,
    no_object_memory_embed=False,
    perceiver=PerceiverSpec(grid=2),
)
TINY_EFFICIENTTAM = replace(
    TINY,
    name="tiny-efficienttam",
    trunk=VitSpec(16, 2, depth=3, global_blocks=(2,), window=3, position_grid=3),
    pointer_time_encoding=False,
    no_object_memory_embed=False,
    fine_maps=False,
)
TINY_EFFICIENTTAM_1 = replace(TINY_EFFICIENTTAM, name="tiny-efficienttam-1", pooled_memory=PooledMemory())
TINY_EFFICIENTTAM_2 = replace(
    TINY_EFFICIENTTAM, name="tiny-efficienttam-2", pooled_memory=PooledMemory(weight_in_keys=True)
)


def tiny_model(
    config: ModelConfig = TINY,
    seed: int = 0,
    object_score_bias: float = 20.0,
    fallback: StabilityFallback | None = None,
    binarize_prompted_masks: bool = False,
) -> SAM2:
    """Random weights in eval mode. The large object score makes every object visible; negative makes all absent."""
    model = SAM2(config, fallback, binarize_prompted_masks).eval()
    randomise(model, seed, object_score_bias)
    # Left alone, random memories are so alike that no test could tell one object's from another's.
    louder = [(model.memory_encoder.mask_downsampler.encoder[-1], 4.0)]
    louder += [(layer.cross_attn_image.out_proj, 8.0) for layer in model.memory_attention.layers]
    louder += [(mlp.layers[-1], 10.0) for mlp in model.sam_mask_decoder.output_hypernetworks_mlps]
    for module, factor in louder:
        module.weight.data.mul_(factor)
    return model


def shift_object_score(model: SAM2, by: float) -> None:
    """Make objects that were visible absent from now on, or the reverse."""
    model.get_parameter("sam_mask_decoder.pred_obj_score_head.layers.2.bias").data.add_(by)


def noise_frames(count: int, height: int = 48, width: int = 80, seed: int = 0) -> list[NDArray[np.uint8]]:
    """(height, width, 3) uint8 frames that have nothing in common."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def assert_same_result(result: FrameResult, expected: FrameResult) -> None:
    """Bit for bit, but for the time it took."""
    assert result.frame_index == expected.frame_index
    assert result.rejected == expected.rejected
    assert np.array_equal(result.label_image, expected.label_image)
    for ours, theirs in zip(result, expected, strict=True):
        assert (ours.object_id, ours.label, ours.state, ours.score) == (
            theirs.object_id,
            theirs.label,
            theirs.state,
            theirs.score,
        )
        assert np.array_equal(ours.low_res_logits, theirs.low_res_logits)
