"""One frame for several objects: track them from memory, apply prompts, encode new memories.

Objects are tracked in batches of those whose memories have the same length; prompts are applied object by object. With
zoom an object has an encoding of its own, of a window of the image, and all of this happens in that window.
``zoom/advance.py`` brings the windows of a frame together.
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.model.sam2 import SAM2, MaskPrediction, MemoryTokens
from sam2_ros.tracking.frames import Frame, InputFrame, RawFrame
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, gather_tokens, stack_tokens
from sam2_ros.tracking.prompts import AcceptedPrompt, Prompt, since_replaced, to_model_points
from sam2_ros.tracking.rules.crowds import Sighting, in_whole_image
from sam2_ros.tracking.rules.memory_selection import AREAS_KEPT
from sam2_ros.tracking.rules.rivals import rival_box_iou
from sam2_ros.tracking.rules.sightings import area_px, as_absent, is_visible, score_of, shown_mask
from sam2_ros.tracking.state import Track
from sam2_ros.tracking.transforms import image_to_input, mask_to_input
from sam2_ros.tracking.types import ObjectState, PromptAction, Scene
from sam2_ros.tracking.zoom.views import through_window, window_after
from sam2_ros.tracking.zoom.window import Window

logger = logging.getLogger(__name__)

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
    """Predict every object in this frame from its memory; all tracks must have one."""
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
            conditioned = _conditioned(model, frame, track if tracked is not None else None, policy)
        clicks = prompt if clicks is None else clicks.followed_by(prompt)
        points = to_model_points(clicks, *frame.encoded_hw, model.config.image_size, device)
        earlier = None
        if prediction is not None:
            earlier = prediction.logits_b1hw.clamp(-_REFINE_CLAMP_LOGITS, _REFINE_CLAMP_LOGITS)
        multimask = clicks.num_tokens <= _MULTIMASK_MAX_POINTS
        prediction = model.decode_masks(conditioned, features, points, earlier, multimask)
    assert prediction is not None, "apply_prompts needs at least one prompt"
    return prediction, _encode(model, frame, [prediction], prompted=True)[0]


def _conditioned(model: SAM2, frame: Frame, track: Track | None, policy: BankPolicy) -> Tensor:
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


@dataclass(frozen=True)
class View:
    """What the network sees in one encoded image, or part of one, before anything is made of it."""

    frame: Frame
    tracks: tuple[Track, ...]  # that have a prediction, as of before this frame
    predictions: Mapping[str, MaskPrediction]
    memories: Mapping[str, FrameMemory]  # of the objects with prompts
    applied: Mapping[str, Sequence[AcceptedPrompt]]  # likewise
    failed: Mapping[str, str]  # object id -> reason why its prompts for this frame could not be applied

    def sightings(self, zoom: bool) -> dict[str, Sighting]:
        """What decides who yields; with ``zoom`` masks of different windows become comparable."""
        masks = {i: shown_mask(found) for i, found in self.predictions.items()}
        if zoom:
            masks = {i: in_whole_image(mask_hw, self.frame.window) for i, mask_hw in masks.items()}
        return {
            track.object_id: Sighting(
                masks[track.object_id],
                track.hidden_frame,
                float(self.predictions[track.object_id].iou_b),
                track.label,
                track.object_id in self.applied,
            )
            for track in self.tracks
        }


@dataclass(frozen=True)
class Advanced:
    """The outcome of one frame."""

    tracks: dict[str, Track]  # with the memory of this frame; without new objects whose prompts failed
    predictions: dict[str, MaskPrediction]  # of the same objects
    failed: dict[str, str]  # object id -> reason why its prompts for this frame could not be applied
    windows: dict[str, Window]  # that objects were seen through; the others were seen in the whole image
    sightings: dict[str, Sighting] = field(default_factory=dict)  # with ``crowd_suppression``

    @property
    def shows_all(self) -> bool:
        return bool(self.tracks) and all(track.state is ObjectState.TRACKED for track in self.tracks.values())

    def and_also(self, others: Advanced) -> Advanced:
        """Both outcomes combined; for an object that is in both, that of ``others``."""
        return Advanced(*({**getattr(self, f.name), **getattr(others, f.name)} for f in fields(self)))


NOTHING_ADVANCED = Advanced({}, {}, {}, {})


@dataclass(frozen=True)
class Engine:
    """The network and the rules of one tracker; stateless. See ``Tracker`` for the settings."""

    model: SAM2
    policy: BankPolicy
    lost_after_frames: int
    corrections_are_conditioning: bool
    recover_after_frames: int = 1
    zoom: bool = False
    crowd_suppression: bool = False
    lost_after_s: float = 0.0
    recover_after_s: float = 0.0

    def advance(
        self, frame: Frame, tracks: Sequence[Track], prompts: Mapping[str, tuple[AcceptedPrompt, ...]]
    ) -> Advanced:
        """``look``, and what comes of it; no object yields to another."""
        return self.settle(self.look(frame, tracks, prompts))

    def look(self, frame: Frame, tracks: Sequence[Track], prompts: Mapping[str, tuple[AcceptedPrompt, ...]]) -> View:
        """Track the objects into this frame, or into the part of it that is encoded, then apply their prompts.

        A prompt that makes the model fail is reported in ``View.failed``, and the object continues without it. A
        failure outside of prompts is an error of the whole frame and is raised.

        Args:
            frame: later than every frame in the memory of the tracks.
            tracks: as of before this frame; not written to. A track without a memory must have a prompt.
            prompts: for this frame, by object id.
        """
        predictions = track_from_memory(self.model, frame, [t for t in tracks if t.has_memory], self.policy)
        if frame.when.scene is Scene.COVERED:
            predictions = {object_id: as_absent(found) for object_id, found in predictions.items()}
        memories: dict[str, FrameMemory] = {}
        applied: dict[str, Sequence[AcceptedPrompt]] = {}
        failed: dict[str, str] = {}
        for track in tracks:
            object_id = track.object_id
            given = since_replaced(prompts.get(object_id, ()))
            if not given:
                continue
            tracked = None if replaces(given) else predictions.get(object_id)
            try:
                prediction, memory = retried_out_of_memory(
                    functools.partial(apply_prompts, self.model, frame, track, given, self.policy, tracked)
                )
            except Exception as error:  # of any kind: a prompt must not stop the stream
                logger.warning("the prompt for %s could not be applied", object_id, exc_info=True)
                failed[object_id] = f"the model could not apply the prompt: {type(error).__name__}: {error}"
                continue
            predictions[object_id], memories[object_id], applied[object_id] = prediction, memory, given
        there = tuple(track for track in tracks if track.object_id in predictions)
        return View(frame, there, predictions, memories, applied, failed)

    def settle(self, view: View, gone: Collection[str] = ()) -> Advanced:
        """The outcome of a view: the memory of this frame and the state of each object.

        Args:
            view: from ``look``.
            gone: objects that lose their masks in this frame, and get no memory of it.
        """
        frame = view.frame
        predictions = {i: as_absent(found) if i in gone else found for i, found in view.predictions.items()}
        above_logit = self.model.config.visible_above_logit
        visible = {  # what a user has just prompted is there, however sure the network is
            i: is_visible(found, *frame.encoded_hw, 0.0 if view.applied.get(i) else above_logit)
            for i, found in predictions.items()
        }
        to_encode = {
            track.object_id: predictions[track.object_id]
            for track in view.tracks
            if track.object_id not in view.memories and self._may_remember(track, view, gone, visible)
        }
        memories = {**view.memories, **encode_memories(self.model, frame, to_encode)}
        after = {
            track.object_id: self._updated(
                track,
                frame,
                view.applied.get(track.object_id, ()),
                predictions[track.object_id],
                memories.get(track.object_id),
                visible[track.object_id],
            )
            for track in view.tracks
        }
        windows = {} if frame.window is None else dict.fromkeys(predictions, frame.window)
        return Advanced(after, predictions, dict(view.failed), windows)

    @staticmethod
    def _may_remember(track: Track, view: View, gone: Collection[str], visible: Mapping[str, bool]) -> bool:
        """Whether this frame can become a memory of a track without a prompt."""
        hidden = track.object_id in gone or view.frame.when.scene in (Scene.COVERED, Scene.FROZEN)
        return not hidden and (visible[track.object_id] or not track.is_sought)

    def _updated(
        self,
        track: Track,
        frame: Frame,
        applied: Sequence[AcceptedPrompt],
        prediction: MaskPrediction,
        memory: FrameMemory | None,
        visible: bool,
    ) -> Track:
        """The track after a frame; without a memory of it where there is none."""
        updated = Track(track.object_id, track.label) if replaces(applied) else track.copy()
        updated.update_state(
            frame.index,
            visible,
            self.lost_after_frames,
            1 if applied else self.recover_after_frames,  # a user who prompts it has seen it
            frame.when.stamp_s,
            self.lost_after_s,
            0.0 if applied else self.recover_after_s,
        )
        updated.is_sought &= not applied and updated.state is not ObjectState.TRACKED
        if memory is not None and not updated.is_sought:
            self._remember(updated, frame, applied, prediction, memory, visible)
        else:
            updated.drop_old(self.policy, frame.index + 1)
        follows = self.zoom and updated.state is ObjectState.TRACKED
        logits_hw = prediction.logits_b1hw[0, 0]
        updated.window = window_after(logits_hw, frame.window, frame.size_hw) if follows else None
        return updated

    def _remember(
        self,
        updated: Track,
        frame: Frame,
        applied: Sequence[AcceptedPrompt],
        prediction: MaskPrediction,
        memory: FrameMemory,
        visible: bool,
    ) -> None:
        # As in the official code a corrected frame is a tracked one; a first prompt or a mask makes it a conditioning
        # frame.
        is_conditioning = not updated.has_memory or any(each.prompt.mask is not None for each in applied)
        is_conditioning |= bool(applied) and self.corrections_are_conditioning
        if self.policy.needs_scores:
            score = score_of(prediction, visible, is_prompted=bool(applied))
            if self.policy.finds_anchors and visible and self._finds_anchor(updated, frame, prediction):
                score, is_conditioning = replace(score, is_anchor=not is_conditioning), True
            memory = replace(memory, score=score)
        updated.remember(self.policy, frame.index, memory, is_conditioning)

    def _finds_anchor(self, updated: Track, frame: Frame, prediction: MaskPrediction) -> bool:
        """Whether this frame tells the object, which is visible, from a rival; its area is noted for later frames."""
        area, earlier_px = area_px(prediction, *frame.encoded_hw), updated.areas_px
        updated.areas_px = (*earlier_px, area)[-AREAS_KEPT:]
        if not self.policy.may_anchor(frame.index, updated.conditioning, float(prediction.iou_b), area, earlier_px):
            return False
        candidates_mhw = (prediction.candidates_bmhw[0] > 0).cpu().numpy()
        return self.policy.shows_rival(rival_box_iou(shown_mask(prediction), candidates_mhw))


def replaces(given: Sequence[AcceptedPrompt]) -> bool:
    return bool(given) and given[0].action is PromptAction.REPLACE
