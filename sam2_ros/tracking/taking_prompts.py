"""Whether a prompt can be taken now, and which one an undo takes back; nothing is changed here."""

from __future__ import annotations

from sam2_ros.tracking.frame_buffer import frame_of_index, frame_of_stamp, reach
from sam2_ros.tracking.prompts import GivenPrompt, Prompt
from sam2_ros.tracking.stream_state import StreamState
from sam2_ros.tracking.types import PromptAction, PromptError

_MAX_LABEL = 65535  # what a label image of 16 bits holds
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
    if action is PromptAction.UNDO:
        raise PromptError("UNDO takes no prompt: call undo")
    if action is PromptAction.ADD and known:
        raise PromptError(f"object {object_id!r} exists already; REFINE or REPLACE it, or use another id")
    if action is not PromptAction.ADD and not known:
        every = ", ".join(state.tracks) or "none"
        raise PromptError(f"no object {object_id!r} to {action.name.lower()}; known: {every}")
    if action is PromptAction.ADD and state.next_label > _MAX_LABEL:
        raise PromptError(f"{object_id}: all labels up to {_MAX_LABEL} have been given; reset starts again at 1")
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


def prompts_for(state: StreamState, object_id: str, index: int) -> tuple[GivenPrompt, ...]:
    """The prompts that an object has for a frame already.

    Raises:
        PromptError: there is no room for another.
    """
    waiting = state.waiting.get(object_id, ())
    given = waiting if index == state.next_frame else state.prompts_of(object_id, index)
    if len(given) >= _MAX_PROMPTS:
        raise PromptError(f"{object_id}: frame {index} already has {len(given)} prompts, all that it can take")
    return given


def latest_prompt(state: StreamState, object_id: str) -> tuple[GivenPrompt, int]:
    """The prompt that an undo takes back, and its frame.

    Raises:
        PromptError: there is none, it is what the object began with, or its frame is not kept any more.
    """
    given = [(each, state.next_frame) for each in state.waiting.get(object_id, ())]
    given += [(each, index) for index in state.past for each in state.prompts_of(object_id, index)]
    latest, index = max(given, key=lambda each: each[0].number, default=(None, 0))
    gone = state.out_of_reach.get(object_id)
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
