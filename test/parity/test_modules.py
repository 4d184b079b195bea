"""Each part of the network against the official one: all sizes, both versions, the same random weights and inputs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sam2_ros.evaluation.official import build_official, randomise
from sam2_ros.model.config import MODELS, model_config
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, gather_tokens

TOLERANCE = 1e-4  # of the largest value
IMAGE_PX = 128  # the least at which every stage is attended to in windows, some of them padded
NAMES = [name for name in MODELS if "hiera" in name]
SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
NUM_FRAMES = 24


@dataclass(frozen=True)
class Pair:
    official: torch.nn.Module
    ours: SAM2
    features: ImageFeatures  # of a batch of two, any values: those of the encoder have a test of their own

    @property
    def official_features(self) -> list[Tensor]:
        """Finest first, as the official heads take them: (H * W, B, C)."""
        f = self.features
        return [level.flatten(2).permute(2, 0, 1) for level in (f.stride4_bchw, f.stride8_bchw, f.top_bchw)]


def build_both(name: str, image_size: int) -> tuple[torch.nn.Module, SAM2]:
    """The official model and ours, which share their weights."""
    official = build_official(name, image_size, postprocess=False)
    randomise(official, seed=11, object_score_bias=4.0)
    with torch.device("meta"):  # the largest takes seconds to initialise, to no use
        ours = SAM2(model_config(name, image_size)).eval()
    ours.load_state_dict(official.state_dict(), assign=True)
    return official, ours


def some(*names: str) -> list[Any]:
    """All names as parameters; those not named here are for ``make parity`` alone."""
    return [pytest.param(name, marks=pytest.mark.numeric if name in names else pytest.mark.long) for name in NAMES]


# Sizes of one version differ in their trunks alone, versions of one size in all but their trunks.
TRUNKS = some(*(f"sam2.1_hiera_{size}" for size in ("tiny", "small", "base_plus", "large")), "sam2_hiera_tiny")
HEADS = some("sam2.1_hiera_tiny", "sam2_hiera_tiny")


def test_what_is_said_of_sizes_and_versions_is_so() -> None:
    for version, size in (name.split("_hiera_") for name in NAMES):
        config = MODELS[f"{version}_hiera_{size}"]
        assert config.trunk == MODELS[f"sam2.1_hiera_{size}"].trunk
        assert config == replace(MODELS[f"{version}_hiera_tiny"], name=config.name, trunk=config.trunk)


@pytest.fixture(scope="module", params=HEADS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    gc.collect()  # the official model before holds itself in circles, and the largest has a gigabyte
    official, ours = build_both(request.param, IMAGE_PX)
    side = IMAGE_PX // 16
    shapes = (256, side), (64, 2 * side), (32, 4 * side)
    features = ImageFeatures(*(noise(2, channels, size, size, seed=channels) for channels, size in shapes))
    with torch.inference_mode():
        yield Pair(official, ours, features)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def assert_equal(request: pytest.FixtureRequest, pair: Pair, add_row):  # type: ignore[no-untyped-def]
    worst = [0.0]

    def check(what: str, ours: Tensor, official: Tensor) -> None:
        assert ours.shape == official.shape, what
        assert official.numel() == 1 or official.std() > 0, f"{what}: nothing to compare"
        difference = float((ours - official).abs().max() / official.abs().max())
        worst[0] = max(worst[0], difference)
        assert difference < TOLERANCE, f"{what}: differs by {difference} of the largest value"

    yield check
    case = request.function.__name__.removeprefix("test_").replace("_", " ")
    add_row(case, pair.ours.config.name, IMAGE_PX, None, worst[0])


@pytest.mark.parametrize("pair", TRUNKS, indirect=True)
def test_image_encoder(pair: Pair, assert_equal) -> None:  # type: ignore[no-untyped-def]
    images = noise(1, 3, IMAGE_PX, IMAGE_PX, seed=0)
    trunks = zip(pair.ours.image_encoder.trunk(images), pair.official.image_encoder.trunk(images), strict=True)
    for level, (ours, official) in enumerate(trunks):
        assert_equal(f"trunk level {level}", ours, official)
    actual, expected = pair.ours.encode_image(images), pair.official.forward_image(images)["backbone_fpn"]
    for ours, official in zip((actual.stride4_bchw, actual.stride8_bchw, actual.top_bchw), expected, strict=True):
        assert_equal(f"level of {official.shape[-1]} px", ours, official)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_image_encoder_at_the_released_size(add_row, name: str) -> None:  # type: ignore[no-untyped-def]
    """Windows and position embeddings fall otherwise than at the small size."""
    official, ours = build_both(name, 1024)
    image = noise(1, 3, 1024, 1024, seed=0)
    with torch.inference_mode():
        actual, expected = ours.encode_image(image), official.forward_image(image)["backbone_fpn"]
    levels = zip((actual.stride4_bchw, actual.stride8_bchw, actual.top_bchw), expected, strict=True)
    worst = max(float((ours - official).abs().max() / official.abs().max()) for ours, official in levels)
    add_row("image encoder", name, 1024, None, worst)
    assert worst < TOLERANCE


# x, y, label of each point, in model pixels; whether there are earlier mask logits.
PROMPTS = {
    "points": ([(40.0, 30.5, 1), (100.25, 90.0, 0), (3.0, 127.0, 1)], False),
    "box": ([(20.0, 25.0, 2), (90.0, 100.0, 3)], False),
    "box and points": ([(20.0, 25.0, 2), (90.0, 100.0, 3), (50.0, 60.0, 1), (80.0, 30.0, 0)], False),
    "mask": ([], True),
    "points and mask": ([(40.0, 30.5, 1)], True),
    "none": ([], False),
}


def both_points(points: list[tuple[float, float, int]], batch: int) -> tuple[PointPrompts | None, dict | None]:
    """The same points, a little moved in each batch element, as our input and as the official one."""
    if not points:
        return None, None
    rows = torch.tensor(points)
    xy = torch.stack([rows[:, :2] + 2.5 * row for row in range(batch)])
    labels = rows[:, 2].long().expand(batch, -1)
    return PointPrompts(xy, labels), {"point_coords": xy, "point_labels": labels.int()}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_encoder(pair: Pair, assert_equal, prompt: str) -> None:  # type: ignore[no-untyped-def]
    points, has_mask = PROMPTS[prompt]
    ours, official = both_points(points, batch=2)
    mask = 10 * noise(2, 1, IMAGE_PX // 4, IMAGE_PX // 4, seed=1) if has_mask else None
    # As the official heads do where there are no points.
    official = official or {"point_coords": torch.zeros(2, 1, 2), "point_labels": -torch.ones(2, 1, dtype=torch.int)}
    encoder = pair.official.sam_prompt_encoder
    sparse, dense = encoder((official["point_coords"], official["point_labels"]), boxes=None, masks=mask)
    actual = pair.ours.sam_prompt_encoder(ours, mask, batch=2)
    assert_equal("tokens", actual.tokens_bnc, sparse)
    assert_equal("map", actual.dense_bchw, dense)
    assert_equal("position", pair.ours.sam_prompt_encoder.dense_position(), encoder.get_dense_pe())


@contextmanager
def official_encoding_of_prompts(pair: Pair) -> Iterator[None]:
    """Within it, our decoder gets what the official encoder made of the latest prompt.

    A decoder of random weights makes much of a last digit: that of its input would show as up to 5e-3 in its output,
    by which the official decoder in float32 differs from itself in float64 as well.
    """
    encoded: list[EncodedPrompts] = []

    def keep(module, inputs, output):  # type: ignore[no-untyped-def]
        encoded.append(EncodedPrompts(*output))

    handles = [
        pair.official.sam_prompt_encoder.register_forward_hook(keep),
        pair.ours.sam_prompt_encoder.register_forward_hook(lambda module, inputs, output: encoded[-1]),
    ]
    yield
    for handle in handles:
        handle.remove()


def both_decoded(pair: Pair, prompt: str, multimask: bool) -> tuple[MaskPrediction, tuple[Tensor, ...]]:
    points, has_mask = PROMPTS[prompt]
    ours, official = both_points(points, batch=2)
    mask = 10 * noise(2, 1, IMAGE_PX // 4, IMAGE_PX // 4, seed=1) if has_mask else None
    f = pair.features
    fine = [f.stride4_bchw, f.stride8_bchw]
    with official_encoding_of_prompts(pair):
        expected = pair.official._forward_sam_heads(f.top_bchw, official, mask, fine, multimask)
        return pair.ours.decode_masks(f.top_bchw, f, ours, mask, multimask), expected


def assert_same_prediction(assert_equal, actual: MaskPrediction, expected: tuple[Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
    candidates, _, ious, low_res, _, pointer, object_score = expected
    assert_equal("candidates", actual.candidates_bmhw, candidates)
    assert_equal("IoUs", actual.candidate_ious_bm, ious)
    assert_equal("best IoU", actual.iou_b, ious.max(dim=1).values)
    assert_equal("mask", actual.logits_b1hw, low_res)
    assert_equal("pointer", actual.pointer_bc, pointer)
    assert_equal("object score", actual.object_score_logits_b1, object_score)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("multimask", [False, True], ids=["single", "multimask"])
def test_mask_decoder(pair: Pair, assert_equal, prompt: str, multimask: bool) -> None:  # type: ignore[no-untyped-def]
    assert_same_prediction(assert_equal, *both_decoded(pair, prompt, multimask))


def test_mask_decoder_absent(pair: Pair, assert_equal) -> None:  # type: ignore[no-untyped-def]
    """The masks say so and the pointer is the learned one."""
    bias = pair.official.get_parameter(SCORE_BIAS)  # ours too: the weights are shared
    bias.sub_(60)
    actual, expected = both_decoded(pair, "points", multimask=True)
    bias.add_(60)
    assert (expected[3] == -1024).all()
    assert torch.equal(actual.logits_b1hw, expected[3])
    assert_equal("pointer", actual.pointer_bc, expected[5])
    assert_equal("object score", actual.object_score_logits_b1, expected[6])


@pytest.mark.parametrize(
    "stable", [(True, True), (False, False), (False, True)], ids=["stable", "unstable", "one each"]
)
def test_mask_decoder_stability_fallback(  # type: ignore[no-untyped-def]
    pair: Pair, assert_equal, monkeypatch: pytest.MonkeyPatch, stable: tuple[bool, bool]
) -> None:
    official = pair.official.sam_mask_decoder
    single = both_decoded(pair, "box and points", multimask=False)[1][0]
    delta = float(single.abs().median()) / 4  # so that the two objects' stability differs clearly
    official.dynamic_multimask_stability_delta = delta
    low, high = official._get_stability_scores(single).flatten().sort().values.tolist()
    assert 0 < low < high < 1
    threshold = {(True, True): low / 2, (False, False): (1 + high) / 2, (False, True): (low + high) / 2}[stable]
    monkeypatch.setattr(official, "dynamic_multimask_via_stability", True)
    monkeypatch.setattr(official, "dynamic_multimask_stability_thresh", threshold)
    monkeypatch.setattr(pair.ours.sam_mask_decoder, "fallback", StabilityFallback(delta, threshold))
    actual, expected = both_decoded(pair, "box and points", multimask=False)
    changed = (expected[0] != single).flatten(1).any(dim=1)
    assert sorted((~changed).tolist()) == sorted(stable), "the case does not exercise what it says"
    assert_same_prediction(assert_equal, actual, expected)


def test_given_mask(pair: Pair, assert_equal) -> None:  # type: ignore[no-untyped-def]
    """The first of the batch has an object, the second none."""
    mask = torch.zeros(2, 1, IMAGE_PX, IMAGE_PX)
    mask[0, :, 20:61, 33:90] = 1
    f = pair.features
    with official_encoding_of_prompts(pair):
        expected = pair.official._use_mask_as_output(f.top_bchw, [f.stride4_bchw, f.stride8_bchw], mask)
        actual = pair.ours.adopt_mask(f, mask)
    assert_equal("mask", actual.logits_b1hw, expected[3])
    assert_equal("pointer", actual.pointer_bc, expected[5])
    assert_equal("object score", actual.object_score_logits_b1, expected[6])


@pytest.mark.parametrize("prompted", [False, True], ids=["tracked", "prompted"])
@pytest.mark.parametrize("binarise", [False, True], ids=["soft", "binarised"])
def test_memory_encoder(  # type: ignore[no-untyped-def]
    pair: Pair, assert_equal, monkeypatch: pytest.MonkeyPatch, prompted: bool, binarise: bool
) -> None:
    """The first of the batch is present, the second absent."""
    monkeypatch.setattr(pair.ours, "binarize_prompted_masks", binarise)
    monkeypatch.setattr(pair.official, "binarize_mask_from_pts_for_mem_enc", binarise)
    logits, score = 3 * noise(2, 1, IMAGE_PX // 4, IMAGE_PX // 4, seed=5), torch.tensor([[1.5], [-0.5]])
    high_res = torch.nn.functional.interpolate(logits, (IMAGE_PX, IMAGE_PX), mode="bilinear", align_corners=False)
    sizes = [tuple(pair.features.top_bchw.shape[2:])]
    official, position = pair.official._encode_new_memory(
        pair.official_features, sizes, high_res, score, is_mask_from_pts=prompted
    )
    assert_equal("memory", pair.ours.encode_memory(pair.features, logits, score, prompted), official)
    slot = 3
    in_time = position[-1][:1].flatten(2).transpose(1, 2) + pair.official.maskmem_tpos_enc[slot]
    assert_equal("position", pair.ours.memory_positions((slot,)), in_time)


def both_attended(pair: Pair, frame: int, conditioning: set[int], tracked: set[int]) -> tuple[Tensor, Tensor]:
    """Random memories of these frames, as they are before ``frame``."""
    side = IMAGE_PX // 16
    memories = {
        f: FrameMemory(noise(2, 64, side, side, seed=f), noise(2, 256, seed=100 + f)) for f in conditioning | tracked
    }
    position = pair.official.memory_encoder.position_encoding(memories[min(memories)].spatial_bchw)
    outputs = {
        f: {"maskmem_features": m.spatial_bchw, "maskmem_pos_enc": [position], "obj_ptr": m.pointer_bc}
        for f, m in memories.items()
    }
    top = pair.official_features[-1:]
    official = pair.official._prepare_memory_conditioned_features(
        frame_idx=frame,
        is_init_cond_frame=False,
        current_vision_feats=top,
        current_vision_pos_embeds=[
            pair.official.image_encoder.neck.position_encoding(pair.features.top_bchw).flatten(2).permute(2, 0, 1)
        ],
        feat_sizes=[(side, side)],
        output_dict={
            "cond_frame_outputs": {f: outputs[f] for f in sorted(conditioning)},
            "non_cond_frame_outputs": {f: outputs[f] for f in sorted(tracked)},
        },
        num_frames=NUM_FRAMES,
    )
    selection = BankPolicy.of(pair.ours.config).select(frame, conditioning, tracked)
    return pair.ours.attend_to_memory(pair.features, gather_tokens(pair.ours, selection, memories)), official


@pytest.mark.parametrize("count", range(1, 8))
def test_memory_attention(pair: Pair, assert_equal, count: int) -> None:  # type: ignore[no-untyped-def]
    """The frame after ``count`` others, of which the first was prompted."""
    assert_equal("features", *both_attended(pair, count, {0}, set(range(1, count))))


@pytest.mark.parametrize(
    ("conditioning", "tracked"),
    [
        pytest.param({0}, set(range(1, 20)), id="all pointers"),
        pytest.param({0, 7, 18}, set(range(20)) - {0, 7, 18}, id="three prompted"),
        pytest.param({2}, {5, 9, 16, 19}, id="gaps"),
    ],
)
def test_memory_attention_of_a_full_bank(  # type: ignore[no-untyped-def]
    pair: Pair, assert_equal, conditioning: set[int], tracked: set[int]
) -> None:
    assert_equal("features", *both_attended(pair, 20, conditioning, tracked))


def test_features_without_memory(pair: Pair, assert_equal) -> None:  # type: ignore[no-untyped-def]
    side = IMAGE_PX // 16
    official = pair.official._prepare_memory_conditioned_features(
        frame_idx=0,
        is_init_cond_frame=True,
        current_vision_feats=pair.official_features[-1:],
        current_vision_pos_embeds=[],
        feat_sizes=[(side, side)],
        output_dict={},
        num_frames=NUM_FRAMES,
    )
    assert_equal("features", pair.ours.without_memory(pair.features), official)


def test_pointer_time_encoding(pair: Pair, assert_equal) -> None:  # type: ignore[no-untyped-def]
    """Signed: an age below zero belongs to a frame that is still to come, which the 2.1 weights tell apart."""
    from sam2.modeling.sam2_utils import get_1d_sine_pe

    ages = (-7, -1, 0, 1, 2, 15, 23, 400)
    actual = pair.ours.pointer_positions(ages)
    if not pair.ours.config.pointer_time_encoding:
        assert not pair.official.add_tpos_enc_to_obj_ptrs
        assert actual.shape == (1, 4 * len(ages), 64)
        assert not actual.any()
        return
    sine = get_1d_sine_pe(torch.tensor(ages) / (pair.official.max_obj_ptrs_in_encoder - 1), dim=256)
    expected = pair.official.obj_ptr_tpos_proj(sine).repeat_interleave(4, dim=0)[None]
    assert_equal("position", actual, expected)


@pytest.mark.parametrize("pair", TRUNKS, indirect=True)
def test_settings_that_no_weight_shows(pair: Pair) -> None:
    """Where the table of sizes could be wrong though all shapes fit."""
    config, official = pair.ours.config, pair.official
    assert config.num_spatial_memories == official.num_maskmem
    assert config.max_pointers == official.max_obj_ptrs_in_encoder
    assert config.max_conditioning_in_attention is None
    assert official.max_cond_frames_in_attn == -1
    assert replace(config, image_size=1024) == model_config(config.name)
