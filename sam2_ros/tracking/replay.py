"""A prompt for a past frame: the object is rolled back to it and brought up to now, alone, beside its old track.

The result is that of a prompt that came in time. Bit for bit, for an object that was followed alone; objects that were
followed together went through the network in one batch, whose rounding differs in the last digits.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from sam2_ros.tracking.engine import Engine
from sam2_ros.tracking.prompts import GivenPrompt
from sam2_ros.tracking.propagation import RawFrame, encode
from sam2_ros.tracking.state import Replay, StreamState
from sam2_ros.tracking.track import Track

logger = logging.getLogger(__name__)


def track_before(state: StreamState, object_id: str, index: int) -> Track | None:
    """The object as of before a kept frame; None when it did not exist then."""
    replay = state.replays.get(object_id)
    if replay is not None and index >= replay.start:
        return replay.tracks[min(index, replay.next_index)]
    return state.past[index].tracks.get(object_id)


def roll_back(state: StreamState, track: Track, index: int, given: tuple[GivenPrompt, ...]) -> None:
    """Let an object start again before a kept frame, with ``given`` as its prompts for that frame.

    Args:
        state: changed; call ``catch_up`` next.
        track: as of before the frame, from ``track_before``; or a new one.
        index: the frame.
        given: all that count.
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
    """Take the objects that are behind through the frames they have missed; the furthest behind first.

    Args:
        engine: for the frames.
        state: changed.
        budget_ms: stop after this time; None: go on until nothing is behind.
        min_frames: to go through in any case.
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
    """One frame for one object."""
    object_id, index = replay.object_id, replay.next_index
    past = state.past[index]
    track = _cleared(engine, replay.tracks[index], past.cleared.get(object_id, ()), index)
    try:
        frame = encode(engine.model, past.frame) if isinstance(past.frame, RawFrame) else past.frame
        advanced = engine.advance(frame, [track], {object_id: state.prompts_of(object_id, index)})
        why = advanced.failed.get(object_id)
    except Exception as error:
        logger.warning("%s could not be brought up to now", object_id, exc_info=True)
        why = f"frame {index} could not be gone through again: {type(error).__name__}: {error}"
    if why is not None:
        _give_up(state, object_id, why)
        return
    state.past[index] = replace(past, frame=frame)
    state.replays[object_id] = replace(
        replay, next_index=index + 1, tracks={**replay.tracks, index + 1: advanced.tracks[object_id]}
    )


def _give_up(state: StreamState, object_id: str, why: str) -> None:
    """The object goes on as it was, and a new one is gone; the stream must not stop for it."""
    state.rejected += ((object_id, why),)
    del state.replays[object_id]
    if not state.tracks[object_id].has_memory:
        state.forget([object_id])


def _cleared(engine: Engine, track: Track, cleared: tuple[int, ...], next_frame: int) -> Track:
    """The track with these frames cleared, as ``clear_prompts`` does; the last conditioning frame stays."""
    track = track.copy()
    for frame in cleared:
        if frame in track.conditioning and len(track.conditioning) > 1:
            track.demote(engine.policy, frame, next_frame)
    return track


def _finish(engine: Engine, state: StreamState) -> None:
    """Put those that have arrived in the place of their old tracks."""
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
