"""What the model does for the objects of one frame: follow them, apply prompts, encode new memories.

Followed objects are batched where their memories have the same length, prompted ones go one by one; results are one
``MaskPrediction`` an object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.memory_tokens import FrameMemory, gather_tokens, stack_tokens
from sam2_ros.tracking.prompts import GivenPrompt, Prompt, to_model_points
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.transforms import image_to_input, mask_to_input

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


@dataclass(frozen=True)
class RawFrame:
    """One image that nothing was looked for in: it is encoded only when a prompt for it comes."""

    index: int
    image_rgb: NDArray[np.uint8]  # (H, W, 3)

    @property
    def height(self) -> int:
        return self.image_rgb.shape[0]

    @property
    def width(self) -> int:
        return self.image_rgb.shape[1]


@dataclass(frozen=True)
class AheadImage:
    """An image that was encoded before its turn; see ``Tracker.encode_ahead``."""

    image_rgb: NDArray[np.uint8]  # (H, W, 3)
    features: ImageFeatures  # batch 1
    network: SAM2  # that made them
    encode_ms: float  # wall time

    def as_frame(self, index: int) -> Frame:
        return Frame(index, self.features, self.image_rgb.shape[0], self.image_rgb.shape[1])


def encode(model: SAM2, raw: RawFrame) -> Frame:
    inputs = image_to_input(raw.image_rgb, model.config.image_size, model.no_mem_embed.device)
    return Frame(raw.index, model.encode_image(inputs), raw.height, raw.width)


def follow(model: SAM2, frame: Frame, tracks: Sequence[Track], policy: BankPolicy) -> dict[str, MaskPrediction]:
    """Find every object that has a memory in this frame. One image encoding serves them all."""
    groups: dict[tuple[int, int], list[tuple[Track, MemoryTokens]]] = defaultdict(list)
    for track in tracks:
        selection = track.select(policy, frame.index)
        tokens = gather_tokens(model, selection, track.frames)
        groups[len(selection.spatial), len(selection.pointers)].append((track, tokens))
    predictions: dict[str, MaskPrediction] = {}
    for group in _chunks(groups.values()):
        conditioned = model.attend_to_memory(frame.features, stack_tokens([tokens for _, tokens in group]))
        batch = model.decode_masks(conditioned, frame.features.expand(len(group)))
        for row, (track, _) in enumerate(group):
            predictions[track.object_id] = _row(batch, row)
    return predictions


def segment_prompted(
    model: SAM2,
    frame: Frame,
    track: Track,
    given: Sequence[GivenPrompt],
    policy: BankPolicy,
    followed: MaskPrediction | None,
) -> tuple[MaskPrediction, FrameMemory]:
    """Segment one object from its prompts for this frame, and remember it.

    Clicks add up: each is decoded together with those before it and with the mask that they gave, as when a user
    corrects one frame step by step (``add_new_points_or_box`` with ``clear_old_points=False``; a box clears them).

    Args:
        given: in the order in which they came; one that replaces the object stands first.
        followed: this object's prediction from memory, which is corrected; None where there is none, or it is replaced.
    """
    device, features = frame.features.top_bchw.device, frame.features
    prediction = followed
    clicks: Prompt | None = None
    conditioned = None
    for prompt in (each.prompt for each in given):
        if prompt.mask is not None:
            prediction = model.adopt_mask(features, mask_to_input(prompt.mask, model.config.image_size, device))
            clicks = None
            continue
        if conditioned is None:
            conditioned = _conditioned(model, frame, track if followed is not None else None, policy)
        clicks = prompt if clicks is None else clicks.followed_by(prompt)
        points = to_model_points(clicks, frame.height, frame.width, model.config.image_size, device)
        earlier = None
        if prediction is not None:
            earlier = prediction.logits_b1hw.clamp(-_REFINE_CLAMP_LOGITS, _REFINE_CLAMP_LOGITS)
        multimask = clicks.num_tokens <= _MULTIMASK_MAX_POINTS
        prediction = model.decode_masks(conditioned, features, points, earlier, multimask)
    assert prediction is not None, "there is always a prompt"
    return prediction, _encode(model, frame, [prediction], prompted=True)[0]


def _conditioned(model: SAM2, frame: Frame, track: Track | None, policy: BankPolicy) -> Tensor:
    """(1, d_model, h, w): the frame as seen with this object's memory; with none where there is no track."""
    if track is None:
        return model.without_memory(frame.features)
    return model.attend_to_memory(frame.features, gather_tokens(model, track.select(policy, frame.index), track.frames))


def encode_memories(model: SAM2, frame: Frame, followed: Mapping[str, MaskPrediction]) -> dict[str, FrameMemory]:
    """This frame's memory of every object that was followed into it."""
    memories: dict[str, FrameMemory] = {}
    for ids in _chunks([list(followed)]):
        memories.update(zip(ids, _encode(model, frame, [followed[i] for i in ids], prompted=False), strict=True))
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
