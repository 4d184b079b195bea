"""One frame for several objects: track them from memory, apply prompts, encode new memories.

Objects are tracked in batches of those whose memories have the same length; prompts are applied object by object. With
zoom an object has an encoding of its own, of a window of the image, and all of this happens in that window. The same
code serves the newest frame (``propagate``) and past frames that are replayed (``replay.catch_up``).
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.model.sam2 import SAM2, MaskPrediction, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory, gather_tokens, stack_tokens
from sam2_ros.tracking.prompts import AcceptedPrompt, Prompt, fit_to_image, since_replaced, to_model_points
from sam2_ros.tracking.state import (
    Frame,
    InputFrame,
    PastFrame,
    PrefetchedImage,
    RawFrame,
    StreamState,
    Track,
    note_clipping,
)
from sam2_ros.tracking.transforms import image_to_input, logits_to_image_size, mask_to_input
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError
from sam2_ros.tracking.zoom.views import through_window, window_after, window_in_frame
from sam2_ros.tracking.zoom.window import Window

logger = logging.getLogger(__name__)

T = TypeVar("T")

_REFINE_CLAMP_LOGITS = 32.0  # earlier logits fed back with a correction are clamped to this (official code)
_MAX_BATCH = 16  # objects in one batch, so that the peak memory of a step does not grow with their number
_MULTIMASK_MAX_POINTS = 1  # more points, or a box, count as unambiguous


def encode(model: SAM2, frame: RawFrame | InputFrame, window: Window | None = None) -> Frame:
    """Encode an image, or the part of it in a window."""
    inputs = frame.inputs_13ss if isinstance(frame, InputFrame) else _input_of(model, frame, window)
    return Frame(frame.index, model.encode_image(inputs), frame.height, frame.width, window)


def _input_of(model: SAM2, raw: RawFrame, window: Window | None = None) -> Tensor:
    image_rgb = raw.image_rgb if window is None else raw.image_rgb[window.slices]
    return image_to_input(image_rgb, model.config.image_size, model.no_mem_embed.device)


def for_buffer(engine: Engine, frame: Frame | RawFrame | InputFrame) -> Frame | RawFrame | InputFrame:
    """The frame as the buffer keeps it: an unencoded image as the model's input, unless the image takes less memory.

    So a replayed frame is, bit for bit, what it would have been in time. With zoom the image itself is kept.
    """
    if isinstance(frame, Frame):
        return frame.kept(with_image=engine.zoom)
    if isinstance(frame, InputFrame):
        return frame
    input_bytes = 3 * engine.model.config.image_size**2 * torch.float32.itemsize
    if engine.zoom or frame.image_rgb.nbytes <= input_bytes:
        return frame.kept()
    return InputFrame(frame.index, _input_of(engine.model, frame), frame.height, frame.width)


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
class Advanced:
    """The outcome of one frame."""

    tracks: dict[str, Track]  # with the memory of this frame; without new objects whose prompts failed
    predictions: dict[str, MaskPrediction]  # of the same objects
    failed: dict[str, str]  # object id -> reason why its prompts for this frame could not be applied
    windows: dict[str, Window]  # that objects were seen through; the others were seen in the whole image

    def shows(self, object_id: str) -> bool:
        return object_id in self.tracks and self.tracks[object_id].state is ObjectState.TRACKED

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

    def advance(
        self, frame: Frame, tracks: Sequence[Track], prompts: Mapping[str, tuple[AcceptedPrompt, ...]]
    ) -> Advanced:
        """Track the objects into this frame, or into the part of it that is encoded, then apply their prompts.

        A prompt that makes the model fail is reported in ``Advanced.failed``, and the object continues without it. A
        failure outside of prompts is an error of the whole frame and is raised.

        Args:
            frame: later than every frame in the memory of the tracks.
            tracks: as of before this frame; not written to. A track without a memory must have a prompt.
            prompts: for this frame, by object id.
        """
        predictions = track_from_memory(self.model, frame, [t for t in tracks if t.has_memory], self.policy)
        memories: dict[str, FrameMemory] = {}
        applied: dict[str, Sequence[AcceptedPrompt]] = {}
        failed: dict[str, str] = {}
        for track in tracks:
            object_id = track.object_id
            given = since_replaced(prompts.get(object_id, ()))
            if not given:
                continue
            tracked = None if _replaces(given) else predictions.get(object_id)
            try:
                prediction, memory = retried_out_of_memory(
                    functools.partial(apply_prompts, self.model, frame, track, given, self.policy, tracked)
                )
            except Exception as error:  # of any kind: a prompt must not stop the stream
                logger.warning("the prompt for %s could not be applied", object_id, exc_info=True)
                failed[object_id] = f"the model could not apply the prompt: {type(error).__name__}: {error}"
                continue
            predictions[object_id], memories[object_id], applied[object_id] = prediction, memory, given
        memories |= encode_memories(self.model, frame, {i: p for i, p in predictions.items() if i not in memories})
        after = {
            track.object_id: self._updated(
                track, frame, applied.get(track.object_id, ()), predictions[track.object_id], memories[track.object_id]
            )
            for track in tracks
            if track.object_id in predictions
        }
        windows = {} if frame.window is None else dict.fromkeys(predictions, frame.window)
        return Advanced(after, predictions, failed, windows)

    def _updated(
        self,
        track: Track,
        frame: Frame,
        applied: Sequence[AcceptedPrompt],
        prediction: MaskPrediction,
        memory: FrameMemory,
    ) -> Track:
        """The track after a frame."""
        updated = Track(track.object_id, track.label) if _replaces(applied) else track.copy()
        # As in the official code a corrected frame is a tracked one; a first prompt or a mask makes it a conditioning
        # frame.
        is_conditioning = not updated.has_memory or any(each.prompt.mask is not None for each in applied)
        is_conditioning |= bool(applied) and self.corrections_are_conditioning
        updated.remember(self.policy, frame.index, memory, is_conditioning)
        visible = is_visible(prediction, *frame.encoded_hw)
        recover_after = 1 if applied else self.recover_after_frames  # a user who prompts it has seen it
        updated.update_state(frame.index, visible, self.lost_after_frames, recover_after)
        follows = self.zoom and updated.state is ObjectState.TRACKED
        logits_hw = prediction.logits_b1hw[0, 0]
        updated.window = window_after(logits_hw, frame.window, frame.size_hw) if follows else None
        return updated


def is_visible(prediction: MaskPrediction, height: int, width: int) -> bool:
    """Whether the model finds the object and its mask is not empty: an empty mask is not visible, whatever the score.

    Args:
        prediction: of one object (B = 1).
        height, width: of the part of the image that was seen, px. Scaled to it, a small mask can become empty.
    """
    logits_1hw = prediction.logits_b1hw[:, 0]
    if not bool(prediction.object_score_logits_b1 > 0):
        return False
    pixels = int((logits_1hw > 0).sum())
    if 0 < pixels < logits_1hw.numel() // 64:
        return bool((logits_to_image_size(logits_1hw, height, width) > 0).any())
    return pixels > 0


def _replaces(given: Sequence[AcceptedPrompt]) -> bool:
    return bool(given) and given[0].action is PromptAction.REPLACE


def advance_in_windows(
    engine: Engine,
    frame: Frame | RawFrame | InputFrame,
    tracks: Sequence[Track],
    prompts: Mapping[str, tuple[AcceptedPrompt, ...]],
    num_objects: int,
) -> tuple[Frame | RawFrame | InputFrame, Advanced]:
    """``Engine.advance`` for each object in its window, and for those without one together in the whole image.

    An object that starts in this frame is looked for in the whole image, and once more in the window round what was
    found: else its first memory would show it at another scale than every later frame.

    Args:
        engine, tracks, prompts: see ``Engine.advance``.
        frame: the whole image, encoded already or not.
        num_objects: that are tracked in this frame.

    Returns:
        The whole frame, encoded if an object needed it, and the outcome.
    """
    given = {track.object_id: since_replaced(prompts.get(track.object_id, ())) for track in tracks}
    starting = [t.object_id for t in tracks if not t.has_memory or _replaces(given[t.object_id])]

    def window_of(track: Track) -> Window | None:
        followed = track.window if engine.zoom else None
        return window_in_frame(followed, frame.size_hw, given[track.object_id], num_objects)

    windows = {t.object_id: None if t.object_id in starting else window_of(t) for t in tracks}
    image_rgb, advanced = frame.image_rgb, NOTHING_ADVANCED
    whole = [track for track in tracks if windows[track.object_id] is None]
    if whole:
        if not isinstance(frame, Frame):
            frame = replace(encode(engine.model, frame), image_rgb=image_rgb if engine.zoom else None)
        advanced = engine.advance(frame, whole, prompts)
        windows |= {i: window_of(advanced.tracks[i]) for i in starting if i in advanced.tracks}
    for track in tracks:
        if (window := windows[track.object_id]) is not None:
            assert image_rgb is not None, "with zoom the image is kept"
            view = encode(engine.model, RawFrame(frame.index, image_rgb), window)
            seen = engine.advance(view, [track], prompts)
            if track.object_id not in starting or seen.shows(track.object_id):
                advanced = advanced.and_also(seen)
    return frame, advanced


def reject_unfit_prompts(state: StreamState, height: int, width: int) -> None:
    """Clip waiting boxes to this image, reject prompts that do not fit it, remove new objects without another one."""
    for object_id, given in list(state.waiting.items()):
        try:
            fitted = tuple(replace(each, prompt=fit_to_image(each.prompt, height, width)) for each in given)
        except PromptError as error:
            _reject_prompts(state, object_id, str(error))
            continue
        for before, after in zip(given, fitted, strict=True):
            note_clipping(state, object_id, before.prompt, after.prompt)
        state.waiting[object_id] = fitted


def propagate(
    engine: Engine,
    state: StreamState,
    image: NDArray[np.uint8] | PrefetchedImage,
    stamp_s: float | None,
    buffer_frames: int,
) -> Advanced:
    """Track the objects into the newest image, apply the waiting prompts and add the frame to the buffer.

    A new object whose first prompt is for a past frame has no memory until its replay is finished: it gets no
    prediction, and its prompts for this frame stay in the buffer until the replay arrives here.

    Args:
        engine: network and rules.
        state: changed.
        image: the newest image, (H, W, 3) uint8 RGB, encoded already or not.
        stamp_s: when it was taken; None if unknown.
        buffer_frames: number of past frames to keep.

    Returns:
        The outcome.
    """
    index = state.next_frame
    frame: Frame | RawFrame | InputFrame = (
        image.as_frame(index) if isinstance(image, PrefetchedImage) else RawFrame(index, image)
    )
    before = dict(state.tracks)
    tracks = [track for track in before.values() if track.has_memory or track.object_id not in state.replays]
    advanced = NOTHING_ADVANCED
    if tracks:
        ids = {track.object_id for track in tracks}
        prompts = {object_id: given for object_id, given in state.waiting.items() if object_id in ids}
        frame, advanced = advance_in_windows(engine, frame, tracks, prompts, len(before))
    if buffer_frames:
        frame = for_buffer(engine, frame)
    for object_id, why in advanced.failed.items():
        _reject_prompts(state, object_id, why)
    state.tracks.update(advanced.tracks)
    kept = {object_id: track for object_id, track in before.items() if object_id in state.tracks}
    state.next_frame += 1
    state.keep(PastFrame(frame, stamp_s, kept, state.waiting, state.cleared, len(before)), buffer_frames)
    state.waiting, state.cleared = {}, {}
    state.frame_size, state.latest_s = (frame.height, frame.width), stamp_s
    return advanced


def _reject_prompts(state: StreamState, object_id: str, why: str) -> None:
    """Report the reason with the next result, and remove the object if it has nothing but these prompts."""
    state.rejected += ((object_id, why),)
    del state.waiting[object_id]
    if not state.tracks[object_id].has_memory and object_id not in state.replays:
        state.forget([object_id])
