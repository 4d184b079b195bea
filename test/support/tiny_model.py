"""A network small enough to run hundreds of frames in a test, with every part that a released size has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.evaluation.official import randomise
from sam2_ros.model.config import MODELS, HieraSpec, ModelConfig, PerceiverSpec, PooledMemory, RepViTSpec, VitSpec
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.transforms import logits_in_image
from sam2_ros.tracking.types import FrameResult
from sam2_ros.tracking.zoom.window import Window

# What two ways to the same answer may differ by, on a tiny model's logits of up to 27. The sums are of float32, but
# memories are kept as bfloat16: where the last bit of a sum decides to which side one is rounded, 2^-8 of a memory
# comes back, as the third decimal of a logit. Which instructions a processor has decides such bits, and so do the
# number of threads and where in memory a weight lies.
ROUNDING_LOGITS = 5e-3
# What a prompt or a memory more or less makes of them, at least, in one frame of several.
OTHER_LOGITS = 0.02

TINY = replace(
    MODELS["nano"],
    memory_selection="recent",
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
    """All that a caller sees of both is the same to within ``ROUNDING_LOGITS``, but for the time it took."""
    assert result.frame_index == expected.frame_index
    assert result.rejected == expected.rejected
    for ours, theirs in zip(result, expected, strict=True):
        assert (ours.object_id, ours.label, ours.state) == (theirs.object_id, theirs.label, theirs.state)
        assert abs(ours.score - theirs.score) < ROUNDING_LOGITS  # a probability moves less than its logit
        assert (ours.low_res_logits is None) == (theirs.low_res_logits is None)
        if ours.low_res_logits is not None and theirs.low_res_logits is not None:
            assert_same_logits(ours.low_res_logits, theirs.low_res_logits, str(ours.object_id))
    sure = _without_near_tie(expected)
    assert sure.mean() > 0.5
    assert np.array_equal(result.label_image[sure], expected.label_image[sure])


def assert_same_logits(ours: NDArray[np.float32], theirs: NDArray[np.float32], where: str = "") -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING_LOGITS, err_msg=where)


def assert_other_logits(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """What tells the two apart is no rounding: ``assert_same_logits`` would have noticed it.

    Of one frame or of several, of which one is enough: most corrections are as good as forgotten six frames later.
    """
    assert np.abs(ours - theirs).max() > OTHER_LOGITS


def logits_of(object_id: str, results: Sequence[FrameResult]) -> NDArray[np.float32]:
    """(T, S/4, S/4): an object's logits in each of these frames."""
    return np.stack([result[object_id].low_res_logits for result in results])


def _without_near_tie(result: FrameResult) -> NDArray[np.bool_]:
    """(H, W); False where zero or another object's logit is so near to the highest that rounding could decide."""
    height, width = result.label_image.shape
    windows = [None if t.window_xyxy is None else Window(*t.window_xyxy, (height, width)) for t in result]
    full = [
        torch.from_numpy(logits_in_image(torch.from_numpy(t.low_res_logits)[None, None], window, (height, width)))[None]
        for t, window in zip(result, windows, strict=True)
        if t.low_res_logits is not None
    ]
    nothing = [torch.full((1, height, width), value) for value in (0.0, -torch.inf)]
    highest, second = torch.cat((*nothing, *full)).topk(2, dim=0).values
    return (highest - second > 2 * ROUNDING_LOGITS).numpy()
