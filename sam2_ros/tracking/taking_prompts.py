"""A prompt is checked and put where it belongs, with those that wait or into the past; and undo takes one back."""

from __future__ import annotations

from sam2_ros.tracking.frame_buffer import frame_of_index, frame_of_stamp, reach
from sam2_ros.tracking.prompts import GivenPrompt, Prompt, check_fits
from sam2_ros.tracking.replay import roll_back, track_before
from sam2_ros.tracking.state import StreamState
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.types import PromptAction, PromptError

MAX_LABEL = 65535  # what a label image of 16 bits holds
_MAX_PROMPTS = 64  # of one object for one frame: they are all applied in one step


def action_for(state: StreamState, object_id: str, prompt: Prompt, action: PromptAction | None) -> PromptAction:
    """The action that is meant: without one, ADD for an unknown id and REFINE for a known one.

    Raises:
        PromptError: it cannot be done with this object or this prompt.
    """
    if not isinstance(object_id, str) or not object_id:
        raise PromptError(f"object_id: expected a non-empty string, got {object_id!r}")
    known = object_id in state.tracks
    if action is None:
        action = PromptAction.REFINE if known else PromptAction.ADD
    if not isinstance(action, PromptAction):  # a number would pass for another action further on
        raise PromptError(f"action: expected a PromptAction, got {action!r}")
    if action is PromptAction.UNDO:
        raise PromptError("UNDO takes no prompt: call undo")
    if action is PromptAction.ADD and known:
        raise PromptError(f"object {object_id!r} exists already; REFINE or REPLACE it, or use another id")
    if action is not PromptAction.ADD and not known:
        every = ", ".join(state.tracks) or "none"
        raise PromptError(f"no object {object_id!r} to {action.name.lower()}; known: {every}")
    if action is PromptAction.ADD and state.next_label > MAX_LABEL:
        raise PromptError(f"{object_id}: all labels up to {MAX_LABEL} have been given; reset starts again at 1")
    if action is not PromptAction.REFINE and not prompt.shows_object:
        start = "is new" if action is PromptAction.ADD else "is to be replaced"
        raise PromptError(f"{object_id} {start}: expected at least one point labelled 1, a box or a mask")
    return action


def frame_for(state: StreamState, frame_index: int | None, stamp_s: float | None) -> int:
    """The frame that a prompt is for: a kept one, or the next.

    Raises:
        PromptError: not one that is kept, or named in both ways.
    """
    if frame_index is not None and stamp_s is not None:
        raise PromptError(f"expected a frame_index or a stamp, got both ({frame_index} and {stamp_s})")
    if frame_index is not None:
        return frame_of_index(state.past, state.next_frame, frame_index)
    if stamp_s is not None:
        return frame_of_stamp(state.past, state.next_frame, state.latest_s, stamp_s)
    return state.next_frame


def take_prompt(
    state: StreamState,
    object_id: str,
    prompt: Prompt,
    action: PromptAction,
    index: int,
    next_size: tuple[int, int] | None,
) -> None:
    """Put a prompt with those that wait for the next frame, or roll its object back to a past one.

    Args:
        state: changed.
        object_id, prompt, action: ADD, REFINE or REPLACE, from ``action_for``.
        index: from ``frame_for``.
        next_size: (H, W) of the next image, as far as it is known.

    Raises:
        PromptError: it does not fit its frame.
    """
    is_next = index == state.next_frame
    size = next_size if is_next else state.past[index].size
    if size is not None:
        check_fits(prompt, *size)
    if action is PromptAction.ADD:
        state.tracks[object_id] = Track(object_id, state.next_label)
        state.next_label += 1
    earlier = state.waiting.get(object_id, ()) if is_next else state.prompts_of(object_id, index)
    if len(earlier) >= _MAX_PROMPTS:
        raise PromptError(f"{object_id}: frame {index} already has {len(earlier)} prompts, all that it can take")
    state.prompts_given += 1
    given = (*earlier, GivenPrompt(state.prompts_given, action, prompt))
    if is_next:
        state.waiting[object_id] = given
        return
    track = state.tracks[object_id] if action is PromptAction.ADD else track_before(state, object_id, index)
    if track is None:
        raise PromptError(f"{object_id} did not exist yet in frame {index}: expected a later frame")
    roll_back(state, track, index, given)


def take_back(state: StreamState, object_id: str) -> None:
    """Undo the latest prompt of an object.

    Args:
        state: changed.
        object_id: of a known object.

    Raises:
        PromptError: there is none that can be undone.
    """
    latest, index = _latest_prompt(state, object_id)
    if index == state.next_frame:
        remaining = tuple(each for each in state.waiting.pop(object_id) if each is not latest)
        if remaining:
            state.waiting[object_id] = remaining
        return
    track = track_before(state, object_id, index)
    assert track is not None, "it was prompted there"
    roll_back(state, track, index, tuple(e for e in state.prompts_of(object_id, index) if e is not latest))


def _latest_prompt(state: StreamState, object_id: str) -> tuple[GivenPrompt, int]:
    """The prompt that an undo takes back, and its frame.

    Raises:
        PromptError: there is none, it is what the object began with, or its frame is not kept any more.
    """
    given = [(each, state.next_frame) for each in state.waiting.get(object_id, ())]
    given += [(each, index) for index in state.past for each in state.prompts_of(object_id, index)]
    latest, index = max(given, key=lambda each: each[0].number, default=(None, 0))
    replay = state.replays.get(object_id)
    gone = state.out_of_reach.get(object_id) if replay is None else replay.out_of_reach
    if gone is not None and (latest is None or gone.number > latest.number):
        raise PromptError(
            f"{object_id}: its latest prompt was for frame {gone.frame_index}, and {reach(state.past)}; REPLACE it, "
            "or keep more (buffer_frames)"
        )
    if latest is None:
        raise PromptError(f"{object_id}: nothing to undo: none of its prompts is known any more")
    if latest.action is PromptAction.ADD:
        raise PromptError(f"{object_id}: nothing to undo: it has only its first prompt; remove the object instead")
    return latest, index
