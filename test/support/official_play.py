"""One script of prompts played to the official predictor and to our tracker, and what they answered compared.

The image encoder is compared in a case of its own; here each side encodes the frames once for all of its cases.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from official_cases import (
    NUM_FRAMES,
    Box,
    Case,
    ClearPrompts,
    Prompt,
    Remove,
    Reset,
    ShiftScore,
)

from sam2_ros.evaluation.official import build_official, official_state, randomise
from sam2_ros.model.config import model_config
from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.transforms import image_to_input, logits_to_image_size

T = TypeVar("T")

TOLERANCE_LOGITS = 1e-3
MIN_IOU = 0.9999
_CPU = torch.device("cpu")
_SEED, _OBJECT_SCORE_BIAS = 7, 4.0
_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
_REMEMBERED = 256  # answers of the memory attention, of 4 MiB at the released size


@dataclass(frozen=True)
class Setting:
    """Which model runs, and how."""

    model: str
    image_size: int
    postprocess: bool

    def __str__(self) -> str:
        return f"{self.model}-{self.image_size}px-{'default' if self.postprocess else 'benchmark'}"


@dataclass(frozen=True)
class Answer:
    """One object in one frame."""

    low_res_hw: NDArray[np.float32]
    score_logit: float  # > 0: visible


@dataclass(frozen=True)
class FrameAnswer:
    objects: dict[int, Answer]
    label_image: NDArray[np.integer]  # (H, W); the object's id


@dataclass(frozen=True)
class Difference:
    """How far two runs are from each other, over all objects and frames."""

    worst_logit: float
    worst_score_logit: float
    min_iou: float  # of an object's masks at the image's size, over its frames: rounding moves a pixel in some of them


class Clip:
    """The camera's frames, as input of one size, and each side's features of them."""

    def __init__(self, frames: list[NDArray[np.uint8]], image_size: int) -> None:
        self.frames = frames
        self.inputs = [image_to_input(frame, image_size, _CPU) for frame in frames]
        self._features: dict[tuple, list] = {}
        self._attended: dict[tuple, OrderedDict[bytes, torch.Tensor]] = {}

    @torch.inference_mode()
    def features(self, encode: Callable[[torch.Tensor], T], *key: object) -> list[T]:
        """Each frame encoded. ``key`` stands for the weights: with another memory, other random ones follow."""
        if key not in self._features:
            self._features[key] = [encode(image) for image in self.inputs]
        return self._features[key]

    @contextlib.contextmanager
    def attending_once(self, attention: torch.nn.Module, *key: object) -> Iterator[None]:
        """Let ``attention`` answer what it was asked before, bit for bit, from memory: many scripts begin alike.

        It is three quarters of the time at the released size. ``key`` stands for the weights.
        """
        compute, answers = attention.forward, self._attended.setdefault(key, OrderedDict())

        def recall(*args, **kwargs) -> torch.Tensor:  # type: ignore[no-untyped-def]
            question = _digest([*args, *sorted(kwargs.items())])
            if question not in answers:
                answers[question] = compute(*args, **kwargs)
            answers.move_to_end(question)
            if len(answers) > _REMEMBERED:
                answers.popitem(last=False)
            return answers[question].clone()

        attention.forward = recall
        try:
            yield
        finally:
            del attention.forward


def _digest(values: Iterable[object]) -> bytes:
    """Stands for nested sequences of tensors and plain values, with every bit of them."""
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, torch.Tensor):
            digest.update(repr((value.shape, value.dtype)).encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, list | tuple):
            digest.update(_digest(value))
        else:
            digest.update(repr(value).encode())
    return digest.digest()


def build_pair(setting: Setting, case: Case) -> tuple[torch.nn.Module, SAM2]:
    """The official predictor and our model with the same random weights."""
    official, ours = official_of(setting, case), ours_of(setting, case)
    ours.load_state_dict(official.state_dict())
    return official, ours


def official_of(setting: Setting, case: Case) -> torch.nn.Module:
    """The official predictor with random weights; of SAM 2's relatives in a process that has their code."""
    overrides = ("++model.non_overlap_masks=true", *case.overrides)
    if case.corrections_are_conditioning:
        overrides += ("++model.add_all_frames_to_correct_as_cond=true",)
    official = build_official(setting.model, setting.image_size, setting.postprocess, overrides)
    randomise(official, _SEED, _OBJECT_SCORE_BIAS)
    _let_masks_matter(official)
    return official


def ours_of(setting: Setting, case: Case) -> SAM2:
    """Our model, still without these weights."""
    config = replace(model_config(setting.model, setting.image_size), **dict(case.memory))
    fallback = StabilityFallback() if setting.postprocess else None
    return SAM2(config, fallback, binarize_prompted_masks=setting.postprocess).eval()


def _let_masks_matter(official: torch.nn.Module) -> None:
    """Left alone, random memories hardly depend on the mask: then all objects end up with nearly the same one."""
    louder = [official.memory_encoder.mask_downsampler.encoder[-1]]
    louder += [layer.cross_attn_image.out_proj for layer in official.memory_attention.layers]
    for module in louder:
        module.weight.data.mul_(4.0)


def ellipse_mask(box: Box, height: int, width: int) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = np.array(box) * (width, height, width, height)
    y, x = np.mgrid[:height, :width] + 0.5
    return (2 * (x - x0) / (x1 - x0) - 1) ** 2 + (2 * (y - y0) / (y1 - y0) - 1) ** 2 < 1


def prompt_in_pixels(prompt: Prompt, height: int, width: int) -> dict:
    """Keyword arguments of ``Tracker.add_prompt``."""
    if prompt.ellipse is not None:
        return {"mask": ellipse_mask(prompt.ellipse, height, width)}
    arguments: dict = {}
    if prompt.points:
        arguments["points"] = [(x * width, y * height) for x, y, _ in prompt.points]
        arguments["labels"] = [label for _, _, label in prompt.points]
    if prompt.box is not None:
        arguments["box"] = np.array(prompt.box) * (width, height, width, height)
    return arguments


def play_ours(model: SAM2, setting: Setting, case: Case, clip: Clip) -> list[FrameAnswer]:
    with clip.attending_once(model.memory_attention, "ours", setting.model, case.memory):
        return _play_ours(model, setting, case, clip)


def _play_ours(model: SAM2, setting: Setting, case: Case, clip: Clip) -> list[FrameAnswer]:
    tracker = Tracker(model, corrections_are_conditioning=case.corrections_are_conditioning)
    features = clip.features(model.encode_image, "ours", setting.model, case.memory)
    answers = []
    since_reset, shift = 0, 0.0
    try:
        for index, image in enumerate(clip.frames):
            for action in (action for action in case.actions if action.frame == index):
                if isinstance(action, Prompt):
                    tracker.add_prompt(str(action.object_id), **prompt_in_pixels(action, *image.shape[:2]))
                elif isinstance(action, Remove):
                    tracker.remove(str(action.object_id))
                elif isinstance(action, ClearPrompts):
                    tracker.clear_prompts(str(action.object_id), action.prompted_frame - since_reset)
                elif isinstance(action, Reset):
                    tracker.reset()
                    since_reset = index
                elif isinstance(action, ShiftScore):
                    shift += action.by
                    model.get_parameter(_SCORE_BIAS).data.add_(action.by)
            model.encode_image = lambda _, index=index: features[index]  # type: ignore[method-assign]
            result = tracker.step(image)
            ids = {tracked.label: int(tracked.object_id) for tracked in result}
            label_to_id = np.array([ids.get(label, 0) for label in range(max(ids, default=0) + 1)])
            objects = {int(t.object_id): Answer(t.low_res_logits, _logit(t.score)) for t in result}
            answers.append(FrameAnswer(objects, label_to_id[result.label_image]))
    finally:
        del model.encode_image
        model.get_parameter(_SCORE_BIAS).data.sub_(shift)
    return answers


class OfficialPlay:
    """One official inference state that is fed frame by frame, as a stream is."""

    def __init__(self, predictor, setting: Setting, case: Case, clip: Clip) -> None:
        self.predictor, self.case, self.clip = predictor, case, clip
        self.weights = "official", setting.model, case.memory
        self.size = clip.frames[0].shape[:2]
        self.state = official_state(predictor, clip.frames)
        features = clip.features(predictor.forward_image, *self.weights)
        # Kept for all frames instead of the latest: prompts come back to earlier ones, and cases share a clip.
        self.state["cached_features"] = dict(enumerate(zip(clip.inputs, features, strict=True)))
        self.video_res: torch.Tensor | None = None  # (objects, 1, H, W) logits without overlap

    def play(self) -> list[FrameAnswer]:
        with self.clip.attending_once(self.predictor.memory_attention, *self.weights):
            return self._play()

    def _play(self) -> list[FrameAnswer]:
        case, shift = self.case, 0.0
        answers = []
        try:
            for index in range(NUM_FRAMES):
                actions = [action for action in case.actions if action.frame == index]
                for action in actions:
                    if isinstance(action, Remove):
                        self.predictor.remove_object(self.state, action.object_id, need_output=False)
                    elif isinstance(action, ClearPrompts):
                        self.predictor.clear_all_prompts_in_frame(
                            self.state, action.prompted_frame, action.object_id, need_output=False
                        )
                    elif isinstance(action, Reset):
                        self.predictor.reset_state(self.state)
                    elif isinstance(action, ShiftScore):
                        shift += action.by
                        self.predictor.get_parameter(_SCORE_BIAS).data.add_(action.by)
                answers.append(self._frame(index, [action for action in actions if isinstance(action, Prompt)]))
        finally:
            self.predictor.get_parameter(_SCORE_BIAS).data.sub_(shift)
        return answers

    def _frame(self, index: int, prompts: list[Prompt]) -> FrameAnswer:
        known = set(self.state["obj_ids"])
        for prompt in prompts:
            if prompt.object_id not in known:
                self._add(prompt)
        if self.state["obj_ids"]:
            ((_, _, self.video_res),) = self.predictor.propagate_in_video(
                self.state, start_frame_idx=index, max_frame_num_to_track=0
            )
        for prompt in prompts:
            if prompt.object_id in known:
                self._add(prompt)
        return self._answer(index)

    def _add(self, prompt: Prompt) -> None:
        arguments = prompt_in_pixels(prompt, *self.size)
        add = self.predictor.add_new_mask
        if "mask" not in arguments:
            add = self.predictor.add_new_points_or_box
            arguments["clear_old_points"] = (
                "box" in arguments
            )  # clicks add up; a box the official code only takes first
        _, _, self.video_res = add(self.state, prompt.frame, prompt.object_id, **arguments)

    def _answer(self, index: int) -> FrameAnswer:
        objects = {}
        for object_id in self.state["obj_ids"]:
            place = self.state["obj_id_to_idx"][object_id]
            # A correction of this frame waits in the temporary outputs until the next frame is tracked.
            outputs = [
                self.state[kept][place][kind][index]
                for kept in ("temp_output_dict_per_obj", "output_dict_per_obj")
                for kind in ("cond_frame_outputs", "non_cond_frame_outputs")
                if index in self.state[kept][place][kind]
            ]
            kept = outputs[0].get("object_score_logits")  # EfficientTAM's predictor keeps none; see official_worker
            score = float((self.predictor.latest_object_score() if kept is None else kept).sigmoid())
            objects[object_id] = Answer(outputs[0]["pred_masks"][0, 0].numpy(), _logit(score))
        if not objects:
            return FrameAnswer({}, np.zeros(self.size, int))
        highest, winner = self.video_res[:, 0].max(dim=0)
        ids = torch.tensor(self.state["obj_ids"])
        return FrameAnswer(objects, torch.where(highest > 0, ids[winner], 0).numpy())


def compare(ours: list[FrameAnswer], official: list[FrameAnswer]) -> Difference:
    """Assert that masks are equal wherever the official logits leave no doubt; measure the rest."""
    worst_logit, worst_score_logit = 0.0, 0.0
    masks: dict[int, list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {}
    for index, (our_frame, official_frame) in enumerate(zip(ours, official, strict=True)):
        assert our_frame.objects.keys() == official_frame.objects.keys(), f"frame {index}: other objects"
        height, width = official_frame.label_image.shape
        full = {}
        for object_id, expected in official_frame.objects.items():
            answer = our_frame.objects[object_id]
            worst_logit = max(worst_logit, float(np.abs(answer.low_res_hw - expected.low_res_hw).max()))
            worst_score_logit = max(worst_score_logit, abs(answer.score_logit - expected.score_logit))
            our_full, full[object_id] = (_at_size(a.low_res_hw, height, width) for a in (answer, expected))
            sure = np.abs(full[object_id]) > TOLERANCE_LOGITS
            assert ((our_full > 0) == (full[object_id] > 0))[sure].all(), f"frame {index}, {object_id}: masks differ"
            masks.setdefault(object_id, []).append((our_full > 0, full[object_id] > 0))
        sure = _no_near_tie(list(full.values()), height, width)
        same = our_frame.label_image == official_frame.label_image
        assert same[sure].all(), f"frame {index}: label images differ in {(~same & sure).sum()} pixels"
    ious = [iou(*(np.stack(side) for side in zip(*pairs, strict=True))) for pairs in masks.values()]
    return Difference(worst_logit, worst_score_logit, min(ious))


def assert_not_trivial(official: list[FrameAnswer], seen_frames: Iterable[int] | None) -> None:
    """Without this a model that finds the object absent everywhere, or always the same, would agree with anything."""
    seen = set(range(len(official)) if seen_frames is None else seen_frames)
    scores = [answer.score_logit for frame in official for answer in frame.objects.values()]
    assert max(scores) - min(scores) > 2 * TOLERANCE_LOGITS, "the object score is the same in all frames"
    moves = [_mask_moves(*frames) for frames in pairwise(official)]
    assert not seen or max(moves) > 100 * TOLERANCE_LOGITS, "the masks are the same in all frames"
    shares = []
    for index, frame in enumerate(official):
        for object_id, answer in frame.objects.items():
            visible = answer.low_res_hw.max() > -1000
            assert visible == (index in seen), f"frame {index}: object {object_id} is {'seen' if visible else 'absent'}"
            if visible:
                assert answer.low_res_hw.std() > 0.1
                shares.append((answer.low_res_hw > 0).mean())
        full = [_at_size(answer.low_res_hw, *frame.label_image.shape) for answer in frame.objects.values()]
        assert _no_near_tie(full, *frame.label_image.shape).mean() > 0.5, f"frame {index}: objects are too alike"
    assert not shares or any(0.02 < share < 0.98 for share in shares)


def _mask_moves(before: FrameAnswer, after: FrameAnswer) -> float:
    """The most that a logit of an object changes from one frame to the next; 0 without an object in both."""
    both = before.objects.keys() & after.objects.keys()
    changes = (np.abs(after.objects[i].low_res_hw - before.objects[i].low_res_hw).max() for i in both)
    return float(max(changes, default=0.0))


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def _at_size(low_res_hw: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return logits_to_image_size(torch.from_numpy(low_res_hw)[None], height, width)[0].numpy()


def _no_near_tie(full: list[NDArray[np.float32]], height: int, width: int) -> NDArray[np.bool_]:
    """Where neither zero nor another object's logit is as near as the tolerance to the highest."""
    ordered = np.sort(
        np.stack([np.full((height, width), -1e4, np.float32), np.zeros((height, width), np.float32), *full]), axis=0
    )
    return ordered[-1] - ordered[-2] > TOLERANCE_LOGITS
