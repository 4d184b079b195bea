"""What the model does for the objects of one frame: follow them, apply prompts, encode new memories.

Objects are batched where their memories have the same length; results are one ``MaskPrediction`` an object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.memory_tokens import FrameMemory, gather_tokens, stack_tokens
from sam2_ros.tracking.preprocess import mask_to_input
from sam2_ros.tracking.prompts import to_model_points
from sam2_ros.tracking.track import Track

T = TypeVar("T")

_REFINE_CLAMP_LOGITS = 32.0  # earlier logits fed back with a correction are kept within this (official code)
_MAX_BATCH = 16  # objects at once, so that a step's memory does not grow with their number
_MULTIMASK_MAX_POINTS = 1  # more points, or a box, are taken as unambiguous


@dataclass(frozen=True)
class Frame:
    """One encoded image."""

    index: int
    features: ImageFeatures  # batch 1
    height: int  # of the camera image, px
    width: int


def follow(model: SAM2, frame: Frame, tracks: Sequence[Track], policy: BankPolicy) -> dict[str, MaskPrediction]:
    """Find every object that has a memory in this frame. One image encoding serves them all."""
    groups: dict[tuple[int, int], list[tuple[Track, MemoryTokens]]] = defaultdict(list)
    for track in tracks:
        selection = track.select(policy, frame.index)
        tokens = gather_tokens(model, selection, track.frames)
        groups[len(selection.spatial), len(selection.pointers)].append((track, tokens))
    predictions: dict[str, MaskPrediction] = {}
    for group in _chunks(groups.values()):
        features = frame.features.expand(len(group))
        conditioned = model.attend_to_memory(features, stack_tokens([tokens for _, tokens in group]))
        batch = model.decode_masks(conditioned, features)
        for row, (track, _) in enumerate(group):
            predictions[track.object_id] = _row(batch, row)
    return predictions


def apply_prompt(
    model: SAM2, frame: Frame, track: Track, policy: BankPolicy, followed: MaskPrediction | None
) -> MaskPrediction:
    """Segment one object from its waiting prompt; where it was followed into this frame, correct that.

    Args:
        followed: this object's prediction from memory; None for a new object.
    """
    prompt = track.pending
    assert prompt is not None
    device = frame.features.top_bchw.device
    if prompt.mask is not None:
        return model.adopt_mask(frame.features, mask_to_input(prompt.mask, model.config.image_size, device))
    points = to_model_points(prompt, frame.height, frame.width, model.config.image_size, device)
    multimask = prompt.num_tokens <= _MULTIMASK_MAX_POINTS
    if followed is None:
        return model.decode_masks(model.without_memory(frame.features), frame.features, points, multimask=multimask)
    tokens = gather_tokens(model, track.select(policy, frame.index), track.frames)
    conditioned = model.attend_to_memory(frame.features, tokens)
    logits = followed.logits_b1hw.clamp(-_REFINE_CLAMP_LOGITS, _REFINE_CLAMP_LOGITS)
    return model.decode_masks(conditioned, frame.features, points, logits, multimask)


def encode_memories(
    model: SAM2, frame: Frame, predictions: Mapping[str, MaskPrediction], prompted: Sequence[str]
) -> dict[str, FrameMemory]:
    """This frame's memory of every object: prompted and followed ones in a batch each."""
    memories: dict[str, FrameMemory] = {}
    followed = [object_id for object_id in predictions if object_id not in prompted]
    chunks = [(ids, False) for ids in _chunks([followed])] + [(ids, True) for ids in _chunks([list(prompted)])]
    for ids, is_prompted in chunks:
        spatial = model.encode_memory(
            frame.features.expand(len(ids)),
            torch.cat([predictions[i].logits_b1hw for i in ids]),
            torch.cat([predictions[i].object_score_logits_b1 for i in ids]),
            is_prompted,
        )
        for row, object_id in enumerate(ids):
            memories[object_id] = FrameMemory(spatial[row : row + 1], predictions[object_id].pointer_bc)
    return memories


def _chunks(groups: Iterable[list[T]]) -> Iterator[list[T]]:
    for group in groups:
        for start in range(0, len(group), _MAX_BATCH):
            yield group[start : start + _MAX_BATCH]


def _row(batch: MaskPrediction, row: int) -> MaskPrediction:
    return MaskPrediction(**{f.name: getattr(batch, f.name)[row : row + 1] for f in fields(batch)})
