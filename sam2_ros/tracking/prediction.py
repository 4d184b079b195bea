"""What the network says about one encoded image: objects from their memories or from prompts, and new memories.

Objects attend in batches of those whose memories have the same length; prompts are applied object by object. Then
what one prediction means: whether the object is visible, and how reliable its memory is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import ABSENT_LOGIT, SAM2, ImageFeatures, MaskPrediction, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, FrameScore, gather_tokens, stack_tokens
from sam2_ros.tracking.prompts import AcceptedPrompt, Prompt, to_model_points
from sam2_ros.tracking.state import Frame, InputFrame, RawFrame, Track
from sam2_ros.tracking.transforms import image_to_input, logits_to_image_size, mask_to_input
from sam2_ros.tracking.zoom.views import through_window
from sam2_ros.tracking.zoom.window import Window

T = TypeVar("T")

_REFINE_CLAMP_LOGITS = 32.0  # earlier logits fed back with a correction are clamped to this (official code)
_MAX_BATCH = 16  # objects in one batch, so that the peak memory of a step does not grow with their number
_MULTIMASK_MAX_POINTS = 1  # more points, or a box, count as unambiguous


def encode(model: SAM2, frame: RawFrame | InputFrame, window: Window | None = None) -> Frame:
    """Encode an image, or the part of it in a window."""
    inputs = frame.inputs_13ss if isinstance(frame, InputFrame) else input_of(model, frame, window)
    return Frame(frame.index, model.encode_image(inputs), frame.height, frame.width, window, when=frame.when)


def input_of(model: SAM2, raw: RawFrame, window: Window | None = None) -> Tensor:
    image_rgb = raw.image_rgb if window is None else raw.image_rgb[window.slices]
    return image_to_input(image_rgb, model.config.image_size, model.no_mem_embed.device)


def track_from_memory(
    model: SAM2, frame: Frame, tracks: Sequence[Track], policy: BankPolicy
) -> dict[str, MaskPrediction]:
    """Predict every object in this frame from its memory; all tracks must have one.

    Objects attend in batches of those whose memories have the same length, and are decoded all together.
    """
    predictions: dict[str, MaskPrediction] = {}
    for chunk in _chunks([list(tracks)]):
        groups: dict[tuple[int, int], list[tuple[str, MemoryTokens]]] = defaultdict(list)
        for track in chunk:
            selection = track.select(policy, frame.index)
            tokens = gather_tokens(model, selection, track.frames)
            groups[len(selection.spatial), len(selection.pointers)].append((track.object_id, tokens))
        conditioned: dict[str, Tensor] = {}
        for group in groups.values():
            attended = model.attend_to_memory(frame.features, stack_tokens([tokens for _, tokens in group]))
            conditioned.update(zip((object_id for object_id, _ in group), attended.split(1), strict=True))
        rows_bchw = torch.cat([conditioned[track.object_id] for track in chunk])
        batch = model.decode_masks(rows_bchw, frame.features.expand(len(chunk)))
        predictions |= {track.object_id: _row(batch, row) for row, track in enumerate(chunk)}
    return predictions


def apply_prompts(
    model: SAM2,
    frame: Frame,
    track: Track,
    given: Sequence[AcceptedPrompt],
    policy: BankPolicy,
    tracked: MaskPrediction | None,
) -> tuple[MaskPrediction, FrameMemory]:
    """Segment one object from its prompts for this frame; its prediction and its memory of the frame.

    Points accumulate: each prompt is decoded with all points before it and with the mask that they gave, as when a user
    corrects one frame step by step (``add_new_points_or_box`` with ``clear_old_points=False``; a box discards the
    points before it).

    Args:
        model, frame, policy: as in ``Engine``.
        track: as of before this frame.
        given: in the order of acceptance; a REPLACE can only be the first.
        tracked: the object's prediction from memory, which the prompts correct; None without memory or with REPLACE.
    """
    device, features = frame.features.top_bchw.device, frame.features
    prediction = tracked
    clicks: Prompt | None = None
    conditioned = None
    for prompt in (through_window(each.prompt, frame.window) for each in given):
        if prompt.mask is not None:
            prediction = model.adopt_mask(features, mask_to_input(prompt.mask, model.config.image_size, device))
            clicks = None
            continue
        if conditioned is None:
            conditioned = conditioned_on(model, frame, track if tracked is not None else None, policy)
        clicks = prompt if clicks is None else clicks.followed_by(prompt)
        prediction = corrected(model, frame, conditioned, clicks, prediction)
    assert prediction is not None, "apply_prompts needs at least one prompt"
    return prediction, _encode(model, frame, [prediction], prompted=True)[0]


def corrected(
    model: SAM2, frame: Frame, conditioned_bchw: Tensor, clicks: Prompt, prediction: MaskPrediction | None
) -> MaskPrediction:
    """One object decoded from all its points so far, and from what was known of it before the last of them.

    Args:
        model, frame: as in ``Engine``.
        conditioned_bchw: of ``conditioned_on``.
        clicks: points and box, without a mask.
        prediction: from memory, or of the points before; None: nothing was known.
    """
    points = to_model_points(clicks, *frame.encoded_hw, model.config.image_size, frame.features.top_bchw.device)
    earlier = None
    if prediction is not None:
        earlier = prediction.logits_b1hw.clamp(-_REFINE_CLAMP_LOGITS, _REFINE_CLAMP_LOGITS)
    multimask = clicks.num_tokens <= _MULTIMASK_MAX_POINTS
    return model.decode_masks(conditioned_bchw, frame.features, points, earlier, multimask)


def conditioned_on(model: SAM2, frame: Frame, track: Track | None, policy: BankPolicy) -> Tensor:
    """(1, d_model, h, w): the top features conditioned on the track's memory; without a track, on no memory."""
    if track is None:
        return model.without_memory(frame.features)
    return model.attend_to_memory(frame.features, gather_tokens(model, track.select(policy, frame.index), track.frames))


def encode_memories(model: SAM2, frame: Frame, tracked: Mapping[str, MaskPrediction]) -> dict[str, FrameMemory]:
    """The memory of this frame for every object that was tracked into it without a prompt."""
    memories: dict[str, FrameMemory] = {}
    for ids in _chunks([list(tracked)]):
        memories.update(zip(ids, _encode(model, frame, [tracked[i] for i in ids], prompted=False), strict=True))
    return memories


def _encode(model: SAM2, frame: Frame, predictions: Sequence[MaskPrediction], prompted: bool) -> list[FrameMemory]:
    spatial = model.encode_memory(
        frame.features.expand(len(predictions)),
        torch.cat([p.logits_b1hw for p in predictions]),
        torch.cat([p.object_score_logits_b1 for p in predictions]),
        prompted,
    )
    return [FrameMemory(spatial[row : row + 1], p.pointer_bc) for row, p in enumerate(predictions)]


def _chunks(groups: Iterable[list[T]]) -> Iterator[list[T]]:
    for group in groups:
        for start in range(0, len(group), _MAX_BATCH):
            yield group[start : start + _MAX_BATCH]


def _row(batch: MaskPrediction, row: int) -> MaskPrediction:
    return MaskPrediction(**{f.name: getattr(batch, f.name)[row : row + 1] for f in fields(batch)})


def is_visible(prediction: MaskPrediction, height: int, width: int, above_logit: float = 0.0) -> bool:
    """Whether the model finds the object and its mask is not empty: an empty mask is not visible, whatever the score.

    Args:
        prediction: of one object (B = 1).
        height, width: of the part of the image that was seen, px. Scaled to it, a small mask can become empty.
        above_logit: the model's ``visible_above_logit``.
    """
    logits_1hw = prediction.logits_b1hw[:, 0]
    if not bool(prediction.object_score_logits_b1 > above_logit):
        return False
    pixels = int((logits_1hw > 0).sum())
    if 0 < pixels < logits_1hw.numel() // 64:
        return bool((logits_to_image_size(logits_1hw, height, width) > 0).any())
    return pixels > 0


def presence_of(prediction: MaskPrediction, above_logit: float = 0.0) -> float:
    """Certainty that one object (B = 1) is there, 0..1; above 0.5 where it is visible, if its mask is not empty.

    Args:
        prediction: of one object.
        above_logit: the model's ``visible_above_logit``.
    """
    return float((prediction.object_score_logits_b1 - above_logit).sigmoid())


def score_of(prediction: MaskPrediction, visible: bool, is_prompted: bool) -> FrameScore:
    """How reliable the memory of a frame is: predicted IoU times the certainty of presence (SAM 3's tracker).

    Args:
        prediction: of one object (B = 1).
        visible: from ``is_visible``.
        is_prompted: a user has said what the frame shows, so it is beyond doubt.
    """
    if is_prompted:
        return FrameScore(is_empty=not visible)
    presence = float(prediction.object_score_logits_b1.sigmoid())
    return FrameScore(float(prediction.iou_b) * (2 * presence - 1) if visible else 0.0, is_empty=not visible)


def area_px(prediction: MaskPrediction, height: int, width: int) -> int:
    """Area of the mask in a part of the image of this size, px; at least 1 where the mask is not empty."""
    logits_hw = prediction.logits_b1hw[0, 0]
    cells = int((logits_hw > 0).sum())
    return max(1, round(cells * height * width / logits_hw.numel())) if cells else 0


def shown_mask(prediction: MaskPrediction) -> NDArray[np.bool_]:
    """(S/4, S/4) of one object (B = 1); empty where it is absent."""
    return np.asarray((prediction.logits_b1hw[0, 0] > 0).cpu().numpy())


def looks_of(features: ImageFeatures, logits_b1hw: Tensor) -> NDArray[np.float32]:
    """(B, C), each of length 1: what things look like to the network, to compare them in one image.

    Mean features under each mask, as deviations from those of the whole image.

    Args:
        features: of the image.
        logits_b1hw: masks, none of them empty.
    """
    top_chw = features.top_bchw[0]
    shares_bp = F.interpolate((logits_b1hw > 0).float(), top_chw.shape[1:], mode="area").flatten(1)
    top_cp = top_chw.flatten(1)
    mean_bc = shares_bp @ top_cp.T / shares_bp.sum(1, keepdim=True)
    looks_bc = (mean_bc - top_cp.mean(1)) / top_cp.std(1).clamp(min=1e-6)
    return np.asarray(F.normalize(looks_bc).cpu().numpy(), np.float32)


def as_absent(prediction: MaskPrediction) -> MaskPrediction:
    """The prediction of an object that cannot be there, or not there, whatever the network says."""
    return replace(
        prediction,
        logits_b1hw=torch.full_like(prediction.logits_b1hw, ABSENT_LOGIT),
        object_score_logits_b1=-prediction.object_score_logits_b1.abs(),
    )
