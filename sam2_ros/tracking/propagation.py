"""One frame of the stream for all objects: what is seen of each, and what that changes in the state.

The same code serves the newest frame (``propagate``) and past frames that are replayed (``replay.catch_up``). With zoom
an object has an encoding of its own, of a window of the image, and all of this happens in that window.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory
from sam2_ros.tracking.outcome import NOTHING_ADVANCED, Advanced, View
from sam2_ros.tracking.prediction import (
    apply_prompts,
    area_px,
    as_absent,
    encode,
    encode_memories,
    input_of,
    score_of,
    shown_mask,
    track_from_memory,
)
from sam2_ros.tracking.prompts import AcceptedPrompt, since_replaced
from sam2_ros.tracking.rules.crowds import yielding
from sam2_ros.tracking.rules.lookalikes import Pair, Verdict, watch
from sam2_ros.tracking.rules.memory_selection import AREAS_KEPT
from sam2_ros.tracking.rules.rivals import rival_box_iou
from sam2_ros.tracking.rules.sightings import Sighting
from sam2_ros.tracking.state import Frame, InputFrame, PastFrame, PrefetchedImage, RawFrame, StreamState, Track, When
from sam2_ros.tracking.types import ObjectState, PromptAction, Scene
from sam2_ros.tracking.zoom.views import window_after, window_in_frame
from sam2_ros.tracking.zoom.window import Window

logger = logging.getLogger(__name__)


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
    lookalike_doubt: bool = False

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
        for track in (track for track in tracks if prompts.get(track.object_id)):
            object_id, given = track.object_id, since_replaced(prompts[track.object_id])
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

    def settle(self, view: View, gone: Collection[str] = (), unclear: Collection[str] = ()) -> Advanced:
        """The outcome of a view: the memory of this frame and the state of each object.

        Args:
            view: from ``look``.
            gone: objects that lose their masks in this frame, and get no memory of it.
            unclear: objects that only get no memory of it.
        """
        frame = view.frame
        predictions = {i: as_absent(found) if i in gone else found for i, found in view.predictions.items()}
        above_logit = self.model.config.visible_above_logit
        visible = {i: view.shows(i, found, above_logit) for i, found in predictions.items()}
        to_encode = {
            track.object_id: predictions[track.object_id]
            for track in view.tracks
            if track.object_id not in view.memories and self._may_remember(track, view, {*gone, *unclear}, visible)
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
            frame.when.time_s,
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


def advance_in_windows(
    engine: Engine,
    frame: Frame | RawFrame | InputFrame,
    tracks: Sequence[Track],
    prompts: Mapping[str, tuple[AcceptedPrompt, ...]],
    num_objects: int,
    others: Mapping[str, Sighting] | None = None,
    pairs: Mapping[tuple[str, str], Pair] | None = None,
) -> tuple[Frame | RawFrame | InputFrame, Advanced]:
    """Track each object in its window, and those without one together in the whole image.

    An object that starts in this frame is looked for in the whole image, and once more in the window round what was
    found: otherwise its first memory would show it at another scale than every later frame.

    Args:
        engine, tracks, prompts: see ``Engine.look``.
        frame: the whole image, encoded already or not.
        num_objects: that are tracked in this frame.
        others: objects that are not among ``tracks`` and keep their masks, for those that overlap them.
        pairs: look-alikes as of the frame before; None: they are not watched.

    Returns:
        The whole frame, encoded if an object needed it, and the outcome.
    """
    if frame.when.scene is Scene.CUT:
        tracks = [track.after_cut() for track in tracks]
        pairs = {}  # seen from elsewhere, sides may be exchanged
    given = {object_id: since_replaced(each) for object_id, each in prompts.items()}
    starting = [t.object_id for t in tracks if not t.has_memory or replaces(given.get(t.object_id, ()))]

    def window_of(track: Track) -> Window | None:
        if not engine.zoom:
            return None
        return window_in_frame(track.window, frame.size_hw, given.get(track.object_id, ()), num_objects)

    windows = {t.object_id: None if t.object_id in starting else window_of(t) for t in tracks}
    image_rgb = frame.image_rgb
    views: list[tuple[View, bool]] = []  # and whether it is the second one, of an object that starts
    whole = [track for track in tracks if windows[track.object_id] is None]
    if whole:
        if not isinstance(frame, Frame):
            frame = replace(encode(engine.model, frame), image_rgb=image_rgb if engine.zoom else None)
        views.append((engine.look(frame, whole, prompts), False))
        if engine.zoom and starting:
            begun = engine.settle(views[0][0])
            windows |= {i: window_of(begun.tracks[i]) for i in starting if i in begun.tracks}
    for track in tracks:
        if (window := windows[track.object_id]) is not None:
            assert image_rgb is not None, "with zoom the image is kept"
            part = encode(engine.model, RawFrame(frame.index, image_rgb, frame.when), window)
            views.append((engine.look(part, [track], prompts), track.object_id in starting))
    return frame, _outcome(engine, views, frame.index, others or {}, pairs)


def _outcome(
    engine: Engine,
    views: Sequence[tuple[View, bool]],
    index: int,
    others: Mapping[str, Sighting],
    pairs: Mapping[tuple[str, str], Pair] | None,
) -> Advanced:
    """The outcome of all views of a frame: objects yield to one another, look-alikes are told apart or doubted.

    Args:
        engine, others, pairs: see ``advance_in_windows``.
        views: and whether each is the second one of an object that starts.
        index: of the frame.
    """
    sightings: dict[str, Sighting] = {}
    for number, (view, _) in enumerate(views if engine.crowd_suppression or engine.lookalike_doubt else ()):
        above_logit = engine.model.config.visible_above_logit if engine.lookalike_doubt else None
        sightings |= view.sightings(number, engine.zoom, above_logit)
    verdict = Verdict(sightings)
    if pairs is not None and engine.lookalike_doubt:
        verdict = watch(pairs, sightings, index)
    for each in verdict.exchanged:
        views = [(view.with_exchanged(*each) if each[0] in view.predictions else view, n) for view, n in views]
    gone = yielding({**others, **verdict.sightings}) if engine.crowd_suppression else set()
    kept = {i: seen for i, seen in verdict.sightings.items() if engine.crowd_suppression and i not in gone}
    advanced = replace(NOTHING_ADVANCED, sightings=kept, doubted=verdict.doubted, pairs=verdict.pairs)
    gone, unclear = gone | set(verdict.doubted), verdict.unclear
    for view, is_second in views:
        seen = engine.settle(view, gone, unclear)
        if not is_second or seen.shows_all:
            advanced = advanced.and_also(seen)
    return advanced


def propagate(
    engine: Engine,
    state: StreamState,
    image: NDArray[np.uint8] | PrefetchedImage,
    when: When,
    buffer_frames: int,
) -> Advanced:
    """Track the objects into the newest image, apply the waiting prompts and add the frame to the buffer.

    A new object whose first prompt is for a past frame has no memory until its replay is finished: it gets no
    prediction, and its prompts for this frame stay in the buffer until the replay arrives here.

    Args:
        engine: network and rules.
        state: changed.
        image: the newest image, (H, W, 3) uint8 RGB, encoded already or not.
        when: what it is in the stream.
        buffer_frames: number of past frames to keep.

    Returns:
        The outcome.
    """
    index = state.next_frame
    frame: Frame | RawFrame | InputFrame = (
        image.as_frame(index, when) if isinstance(image, PrefetchedImage) else RawFrame(index, image, when)
    )
    before = dict(state.tracks)
    tracks = [track for track in before.values() if track.has_memory or track.object_id not in state.replays]
    advanced = NOTHING_ADVANCED
    if tracks:
        ids = {track.object_id for track in tracks}
        prompts = {object_id: given for object_id, given in state.waiting.items() if object_id in ids}
        frame, advanced = advance_in_windows(engine, frame, tracks, prompts, len(before), pairs=state.pairs)
    if buffer_frames:
        frame = for_buffer(engine, frame)
    for object_id, why in advanced.failed.items():
        state.reject_prompts(object_id, why)
    state.tracks.update(advanced.tracks)
    state.pairs = advanced.pairs
    kept = {object_id: track for object_id, track in before.items() if object_id in state.tracks}
    state.next_frame += 1
    past = PastFrame(frame, when.stamp_s, kept, state.waiting, state.cleared, len(before), advanced.sightings)
    state.keep(past, buffer_frames)
    state.waiting, state.cleared = {}, {}
    state.frame_size, state.latest_s = (frame.height, frame.width), when.stamp_s
    return advanced


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
    return InputFrame(frame.index, input_of(engine.model, frame), frame.height, frame.width, frame.when)
