"""A frame segmented from simulated prompts, and corrected click by click (paper, appendix D.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_ros.model.prompt_encoder import PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction
from sam2_ros.training.config import PromptMix
from sam2_ros.training.prompts import add_corrective_click, box_prompts, click_prompts

_FED_BACK_LOGITS = 32.0  # as in the tracker


@dataclass(frozen=True)
class PromptPlan:
    """Which frames are corrected, and how often: the same for all objects of a step, in all processes."""

    corrections: tuple[int, ...]  # (T,) corrective clicks on each frame where it is prompted as an image
    later_frame: int | None  # one after the first that is corrected while tracking
    later_corrections: int

    @classmethod
    def draw(cls, mix: PromptMix, num_frames: int, generator: torch.Generator) -> PromptPlan:
        def chance(probability: float) -> bool:
            return bool(torch.rand((), generator=generator) < probability)

        def count() -> int:
            return int(torch.randint(1, mix.max_corrections + 1, (), generator=generator))

        corrections = tuple(count() if chance(mix.correction_probability) else 0 for _ in range(num_frames))
        later_frame = None
        # Not the last frame, because no later frame would use its memory.
        if num_frames > 2 and chance(mix.later_correction_probability):
            later_frame = int(torch.randint(1, num_frames - 1, (), generator=generator))
        return cls(corrections, later_frame, count())


@dataclass(frozen=True)
class Round:
    """One decoding, and the clicks and boxes that it was made from."""

    prediction: MaskPrediction
    points: PointPrompts | None  # None: a given mask, or memory alone


@dataclass(frozen=True)
class PromptedObjects:
    """The objects of one frame that are prompted in the same way."""

    rows: Tensor  # (B,) their places in the batch
    rounds: list[Round]  # from the prompt alone, then after each corrective click


@dataclass(frozen=True)
class Scene:
    """One frame and the truth about its objects, for a batch of objects."""

    features: ImageFeatures
    masks_b1hw: Tensor  # (B, 1, S, S) of 0 and 1
    generators: Sequence[torch.Generator]  # one an object

    def of(self, rows: Tensor) -> Scene:
        return Scene(select(self.features, rows), self.masks_b1hw[rows], [self.generators[i] for i in rows.tolist()])


def prompt_objects(
    model: SAM2, scene: Scene, mask_share: float, box_share: float, corrections: int, mix: PromptMix
) -> dict[str, PromptedObjects]:
    """Segment every object from its own prompt, by kind: "mask", "box" or "click"; kinds without objects are absent."""
    kinds: dict[str, list[int]] = {"mask": [], "box": [], "click": []}
    for row, generator in enumerate(scene.generators):
        draw = float(torch.rand((), generator=generator))
        kinds["mask" if draw < mask_share else "box" if draw < mask_share + box_share else "click"].append(row)
    prompted = {}
    for kind, members in kinds.items():
        if not members:
            continue
        rows = torch.tensor(members, device=scene.masks_b1hw.device)
        group = scene.of(rows)
        if kind == "mask":
            prompted[kind] = PromptedObjects(rows, [Round(model.adopt_mask(group.features, group.masks_b1hw), None)])
            continue
        if kind == "click":
            points = click_prompts(group.masks_b1hw, group.generators, mix.center_click_share)
        else:
            points = box_prompts(group.masks_b1hw, group.generators)
        conditioned = model.without_memory(group.features)
        first = Round(model.decode_masks(conditioned, group.features, points, multimask=kind == "click"), points)
        rounds = [first, *correct(model, group, conditioned, first, corrections, mix)]
        prompted[kind] = PromptedObjects(rows, rounds)
    return prompted


def correct(
    model: SAM2, scene: Scene, conditioned_bchw: Tensor, start: Round, count: int, mix: PromptMix
) -> list[Round]:
    """``count`` more rounds, each after one more click on the error of the one before, which is fed back."""
    rounds: list[Round] = []
    latest = start
    for _ in range(count):
        logits = latest.prediction.logits_b1hw.detach()
        predicted = F.interpolate(logits, scene.masks_b1hw.shape[2:], mode="bilinear", align_corners=False) > 0
        points = add_corrective_click(
            latest.points, predicted, scene.masks_b1hw, scene.generators, mix.truth_click_share, mix.center_click_share
        )
        prediction = model.decode_masks(
            conditioned_bchw,
            scene.features,
            points,
            logits.clamp(-_FED_BACK_LOGITS, _FED_BACK_LOGITS),
            multimask=points.labels_bn.shape[1] == 1,  # a single click is ambiguous, more are not
        )
        latest = Round(prediction, points)
        rounds.append(latest)
    return rounds


def select(features: ImageFeatures, rows: Tensor) -> ImageFeatures:
    """Those batch elements, in that order."""
    return ImageFeatures(features.top_bchw[rows], features.stride8_bchw[rows], features.stride4_bchw[rows])
