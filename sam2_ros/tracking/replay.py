"""Prompts: accept or undo one, and replay an object whose past a prompt changes.

A prompt for the next frame waits in the state. A prompt for a past frame rolls its object back to that frame; the
object is then propagated to the present alone, beside its old track, which the new one replaces when it arrives. The
result equals that of a prompt that came in time: bit for bit for an object that was tracked alone; objects that were
tracked together went through the network in one batch, whose rounding differs in the last digits.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.tracking.prompts import (
    KEEP_MORE,
    AcceptedPrompt,
    Prompt,
    allowed_slop_s,
    check_slop,
    clipping_note,
    fit_to_image,
    frame_of_index,
    frame_of_stamp,
    nearest_frame,
    reach,
)
from sam2_ros.tracking.propagation import Engine, advance_in_windows
from sam2_ros.tracking.state import Replay, StreamState, Track
from sam2_ros.tracking.types import PromptAction, PromptError

logger = logging.getLogger(__name__)

MAX_LABEL = 65535  # largest value of a 16-bit label image
_MAX_PROMPTS = 64  # of one object for one frame, because one step applies them all


def resolve_action(state: StreamState, object_id: str, prompt: Prompt, action: PromptAction | None) -> PromptAction:
    """The action of a prompt; None means ADD for an unknown id and REFINE for a known one.

    Raises:
        PromptError: the action does not fit this object or this prompt.
    """
    if not isinstance(object_id, str) or not object_id:
        raise PromptError(f"object_id: expected a non-empty string, got {object_id!r}")
    known = object_id in state.tracks
    if action is None:
        action = PromptAction.REFINE if known else PromptAction.ADD
    if not isinstance(action, PromptAction):  # an IntEnum compares equal to plain numbers
        raise PromptError(f"action: expected a PromptAction, got {action!r}")
    if action is PromptAction.UNDO:
        raise PromptError("UNDO takes no prompt: call undo")
    if action is PromptAction.ADD and known:
        raise PromptError(f"object {object_id!r} exists already; REFINE or REPLACE it, or use another id")
    if action is not PromptAction.ADD and not known:
        every = ", ".join(state.tracks) or "none"
        raise PromptError(f"no object {object_id!r} to {action.name.lower()}; known: {every}")
    if action is PromptAction.ADD and state.next_label > MAX_LABEL:
        raise PromptError(f"all labels up to {MAX_LABEL} have been given; reset starts again at 1")
    if action is not PromptAction.REFINE and not prompt.shows_object:
        start = "is new" if action is PromptAction.ADD else "is to be replaced"
        raise PromptError(f"the object {start}: expected at least one point labelled 1, a box or a mask")
    return action


def resolve_frame(state: StreamState, frame_index: int | None, stamp_s: float | None, slop_s: float) -> int:
    """The frame that a prompt is for: the next one, or one in the buffer.

    Raises:
        PromptError: the frame is not in the buffer, no image is near the stamp, or both are given.
    """
    if frame_index is not None and stamp_s is not None:
        raise PromptError(f"expected a frame_index or a stamp, got both ({frame_index} and {stamp_s})")
    if frame_index is not None:
        return frame_of_index(state.kept_s, state.next_frame, frame_index)
    if stamp_s is not None:
        return frame_of_stamp(state.kept_s, state.next_frame, state.latest_s, stamp_s, slop_s)
    return state.next_frame


def note_clipping(state: StreamState, object_id: str, given: Prompt, fitted: Prompt) -> None:
    """Report it with the next result, and log it, when a box was clipped."""
    if note := clipping_note(given, fitted):
        state.notes += ((object_id, note),)
        logger.info("%s: %s", object_id, note)


def accept_prompt(
    state: StreamState,
    object_id: str,
    prompt: Prompt,
    action: PromptAction,
    index: int,
    next_size: tuple[int, int] | None,
    stamp_s: float | None = None,
) -> None:
    """Queue a prompt for the next frame, or roll its object back to a past one.

    Args:
        state: changed.
        object_id, prompt: of a known object, or a new one with ADD.
        action: from ``resolve_action``.
        index: from ``resolve_frame``.
        next_size: (H, W) of the next image; None if unknown.
        stamp_s: of the image that the prompt is for; None: of the frame itself.

    Raises:
        PromptError: the prompt does not fit its frame.
    """
    is_next = index == state.next_frame
    size = next_size if is_next else state.past[index].size
    if size is not None:
        fitted = fit_to_image(prompt, *size)
        note_clipping(state, object_id, prompt, fitted)
        prompt = fitted
    if action is PromptAction.ADD:
        state.tracks[object_id] = Track(object_id, state.next_label)
        state.next_label += 1
    earlier = state.waiting.get(object_id, ()) if is_next else state.prompts_of(object_id, index)
    if len(earlier) >= _MAX_PROMPTS:
        raise PromptError(f"frame {index} already has {len(earlier)} prompts, all that it can take")
    state.prompts_given += 1
    given = (*earlier, AcceptedPrompt(state.prompts_given, action, prompt, stamp_s if is_next else None))
    if is_next:
        state.waiting[object_id] = given
        return
    _give_to_past(state, object_id, index, given)


def _give_to_past(state: StreamState, object_id: str, index: int, given: tuple[AcceptedPrompt, ...]) -> None:
    """Roll an object back to a frame in the buffer, with ``given`` as its prompts for that frame; PromptError where it
    did not exist then."""
    is_new = given[-1].action is PromptAction.ADD
    track = state.tracks[object_id] if is_new else track_before(state, object_id, index)
    if track is None:
        raise PromptError(f"it did not exist yet in frame {index}: expected a later frame")
    roll_back(state, track, index, given)


def settle_waiting_prompts(state: StreamState, height: int, width: int, stamp_s: float | None, slop_s: float) -> None:
    """Give the waiting prompts to the image that has come, or to the one before that is nearer to the time they name.

    Boxes are clipped to the image. Prompts that do not fit it, or name a time too far from all images, are rejected,
    and new objects without another prompt removed.

    Args:
        state: changed; call ``catch_up`` next.
        height, width: of the image, px.
        stamp_s: when it was taken.
        slop_s: as in ``allowed_slop_s``.
    """
    for object_id, given in list(state.waiting.items()):
        try:
            places = [_frame_before(state, each.stamp_s, stamp_s, slop_s) for each in given]
            for each, index in zip(given, places, strict=True):
                if index is not None:
                    fitted = _fitted(state, object_id, each, *state.past[index].size)
                    _give_to_past(state, object_id, index, (*state.prompts_of(object_id, index), fitted))
            now = [each for each, index in zip(given, places, strict=True) if index is None]
            state.waiting[object_id] = tuple(_fitted(state, object_id, each, height, width) for each in now)
        except PromptError as error:
            state.reject_prompts(object_id, str(error))
        else:
            if not now:
                del state.waiting[object_id]


def _frame_before(state: StreamState, meant_s: float | None, image_s: float | None, slop_s: float) -> int | None:
    """The frame in the buffer that a waiting prompt is for, now that the next image has come; None: it is for that.

    Raises:
        PromptError: no image was taken near the time that it names.
    """
    if meant_s is None or image_s is None or abs(image_s - meant_s) <= slop_s:
        return None
    allowed_s = allowed_slop_s(state.kept_s, slop_s)
    if nearest := nearest_frame(state.kept_s, meant_s):
        off_s = abs(nearest[1] - meant_s)
        if off_s <= allowed_s and off_s < abs(image_s - meant_s):
            return nearest[0]
    check_slop(meant_s, image_s, allowed_s, "the next image")
    return None


def _fitted(state: StreamState, object_id: str, given: AcceptedPrompt, height: int, width: int) -> AcceptedPrompt:
    """The prompt for an image of this size; PromptError when it does not fit."""
    fitted = fit_to_image(given.prompt, height, width)
    note_clipping(state, object_id, given.prompt, fitted)
    return replace(given, prompt=fitted)


def undo_prompt(state: StreamState, object_id: str) -> None:
    """Undo the latest prompt of an object.

    Args:
        state: changed.
        object_id: a known object.

    Raises:
        PromptError: no prompt can be undone.
    """
    latest, index = _latest_prompt(state, object_id)
    if index == state.next_frame:
        remaining = tuple(each for each in state.waiting.pop(object_id) if each is not latest)
        if remaining:
            state.waiting[object_id] = remaining
        return
    track = track_before(state, object_id, index)
    assert track is not None, "an object with a prompt for a frame exists there"
    roll_back(state, track, index, tuple(e for e in state.prompts_of(object_id, index) if e is not latest))


def _latest_prompt(state: StreamState, object_id: str) -> tuple[AcceptedPrompt, int]:
    """The prompt to undo, and its frame.

    Raises:
        PromptError: there is none, it is the object's first prompt, or its frame has left the buffer.
    """
    given = [(each, state.next_frame) for each in state.waiting.get(object_id, ())]
    given += [(each, index) for index in state.past for each in state.prompts_of(object_id, index)]
    latest, index = max(given, key=lambda each: each[0].number, default=(None, 0))
    replay = state.replays.get(object_id)
    gone = state.out_of_reach.get(object_id) if replay is None else replay.out_of_reach
    if gone is not None and (latest is None or gone.number > latest.number):
        raise PromptError(
            f"nothing to undo: its latest prompt was for frame {gone.frame_index}, and {reach(state.kept_s)}; "
            f"REPLACE it, or {KEEP_MORE}"
        )
    if latest is None:
        raise PromptError("nothing to undo: none of its prompts is known any more")
    if latest.action is PromptAction.ADD:
        raise PromptError("nothing to undo: it has only its first prompt; remove the object instead")
    return latest, index


def track_before(state: StreamState, object_id: str, index: int) -> Track | None:
    """The track as of before a frame in the buffer; None if the object did not exist then."""
    replay = state.replays.get(object_id)
    if replay is not None and index >= replay.start:
        return replay.tracks[min(index, replay.next_index)]
    return state.past[index].tracks.get(object_id)


def roll_back(state: StreamState, track: Track, index: int, given: tuple[AcceptedPrompt, ...]) -> None:
    """Roll an object back to before a frame in the buffer, with ``given`` as its prompts for that frame.

    Args:
        state: changed; call ``catch_up`` next.
        track: as of before the frame, from ``track_before``, or a new one.
        index: the frame.
        given: all prompts of the object for this frame.
    """
    replay = state.replays.get(track.object_id)
    prompts = {**(replay.prompts if replay is not None else {}), index: given}
    if replay is None or index < replay.start:
        gone = replay.out_of_reach if replay is not None else state.out_of_reach.get(track.object_id)
        replay = Replay(track.object_id, index, index, {index: track}, prompts, gone)
    elif index < replay.next_index:
        kept = {i: t for i, t in replay.tracks.items() if i <= index}
        replay = replace(replay, next_index=index, tracks=kept, prompts=prompts)
    else:
        replay = replace(replay, prompts=prompts)
    state.replays[track.object_id] = replay


def catch_up(engine: Engine, state: StreamState, budget_ms: float | None, min_frames: int) -> None:
    """Propagate the objects that are behind through the frames they missed; the one furthest behind first.

    Args:
        engine: network and rules.
        state: changed.
        budget_ms: stop after this time; None: continue until no object is behind.
        min_frames: number of frames to process whatever the budget.
    """
    started = time.perf_counter()
    done = 0
    _finish(engine, state)
    while state.replays:
        spent = budget_ms is not None and (time.perf_counter() - started) * 1e3 >= budget_ms
        if spent and done >= min_frames:
            return
        index = min(replay.next_index for replay in state.replays.values())
        for replay in [each for each in state.replays.values() if each.next_index == index]:
            _advance(engine, state, replay)
        done += 1
        _finish(engine, state)


def _advance(engine: Engine, state: StreamState, replay: Replay) -> None:
    """Propagate one object through one frame."""
    object_id, index = replay.object_id, replay.next_index
    past = state.past[index]
    track = _cleared(engine, replay.tracks[index], past.cleared.get(object_id, ()), index)
    try:
        given = {object_id: state.prompts_of(object_id, index)}
        others = {i: replace(seen, is_prompted=True) for i, seen in past.sightings.items() if i != object_id}
        frame, advanced = retried_out_of_memory(
            lambda: advance_in_windows(engine, past.frame, [track], given, state.objects_in(index), others)
        )
        why = advanced.failed.get(object_id)
    except Exception as error:
        logger.warning("the replay of %s failed", object_id, exc_info=True)
        why = f"frame {index} could not be replayed: {type(error).__name__}: {error}"
    if why is not None:
        _give_up(state, object_id, why)
        return
    state.past[index] = replace(past, frame=frame)
    state.replays[object_id] = replace(
        replay, next_index=index + 1, tracks={**replay.tracks, index + 1: advanced.tracks[object_id]}
    )


def _give_up(state: StreamState, object_id: str, why: str) -> None:
    """Keep the old track, or remove the object if it has none: a failed replay must not stop the stream."""
    state.rejected += ((object_id, why),)
    del state.replays[object_id]
    if not state.tracks[object_id].has_memory:
        state.forget([object_id])


def _cleared(engine: Engine, track: Track, cleared: tuple[int, ...], next_frame: int) -> Track:
    """The track after ``clear_prompts`` of these frames; its last conditioning frame is kept."""
    track = track.copy()
    for frame in cleared:
        if frame in track.conditioning and len(track.conditioning) > 1:
            track.demote(engine.policy, frame, next_frame)
    return track


def _finish(engine: Engine, state: StreamState) -> None:
    """Replace the old tracks of the objects whose replay has reached the present."""
    for replay in [each for each in state.replays.values() if each.next_index == state.next_frame]:
        for index, past in state.past.items():
            if index >= replay.start:
                given = state.prompts_of(replay.object_id, index)
                state.past[index] = past.corrected(replay.tracks[index], given)
        arrived, cleared = replay.tracks[state.next_frame], state.cleared.get(replay.object_id, ())
        state.tracks[replay.object_id] = _cleared(engine, arrived, cleared, state.next_frame)
        if replay.out_of_reach is not None:
            state.out_of_reach[replay.object_id] = replay.out_of_reach
        del state.replays[replay.object_id]
        state.forget_pairs([replay.object_id])  # a prompt has said which it is
