"""What the services say, and what a bad request is answered with."""

from __future__ import annotations

from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import read_prompt
from sam2_ros.session.objects import PromptAction, PromptOutcome, PromptRequest, TrackingView
from sam2_ros.session.session import Session
from sam2_ros.tracking.types import PromptError

MAX_TIMEOUT_S = 3600.0


class NoAnswerError(RuntimeError):
    """The request was not carried out; the message goes to the caller."""


def timeout_s(wanted_s: float, default_s: float) -> float:
    """The request's own timeout if it has one, else the node's."""
    if not 0 <= wanted_s <= MAX_TIMEOUT_S:  # NaN included
        raise NoAnswerError(f"timeout_s must be 0 (the node's default) to {MAX_TIMEOUT_S:g} s, got {wanted_s}")
    return wanted_s if wanted_s > 0 else default_s


def busy(waited_s: float) -> str:
    return f"the model was busy for {waited_s:g} s; nothing was changed. Try again, or raise service_timeout_s"


def why_pending(session: Session, waited_s: float) -> str:
    """For a caller who waited in vain for a first mask."""
    behind = session.view.frames_behind
    if behind and session.enabled:
        frames = ", ".join(f"{object_id} by {count}" for object_id, count in behind.items())
        return f"; not yet brought up to now within {waited_s:g} s, behind are (images): {frames}"
    reason = f"; no image was processed within {waited_s:g} s, the objects are PENDING"
    if not session.enabled:
        return f"{reason}: tracking is disabled, call ~/enable"
    stats = session.stats()
    if stats.too_old_s:
        return f"{reason}: the newest was {stats.too_old_s:.2f} s old, more than max_image_age_s"
    return f"{reason}; the latest error: {stats.last_error}" if stats.last_error else reason


def read_or_refuse(message: Prompt) -> PromptRequest | PromptOutcome:
    try:
        return read_prompt(message)
    except PromptError as error:
        return PromptOutcome(accepted=False, error=str(error), object_id=message.object_id, label=0)


def read_correction(message: Prompt) -> PromptRequest | PromptOutcome:
    """As ``read_or_refuse``, for a known object."""
    read = read_or_refuse(message)
    if isinstance(read, PromptRequest) and read.action is PromptAction.ADD:
        error = "expected action REFINE, REPLACE or UNDO, got ADD; ~/add_objects adds objects"
        return PromptOutcome(accepted=False, error=error, object_id=message.object_id, label=0)
    return read


def refused_by_image(outcome: PromptOutcome, view: TrackingView) -> PromptOutcome:
    """An accepted prompt becomes a refused one where it did not fit the first image, or where its object is gone."""
    refused = dict(view.result.rejected) if view.result is not None else {}
    is_there = any(item.tracked.object_id == outcome.object_id for item in view.objects)
    if not outcome.accepted or (is_there and outcome.object_id not in refused):
        return outcome
    error = refused.get(outcome.object_id, "the object was removed before an image came; add it again")
    return PromptOutcome(accepted=False, error=error, object_id=outcome.object_id, label=0)


def summarize(outcomes: list[PromptOutcome]) -> str:
    accepted = sum(outcome.accepted for outcome in outcomes)
    refused = [f"{o.object_id or 'a new object'}: {o.error}" for o in outcomes if not o.accepted]
    return "; ".join([f"{accepted} of {len(outcomes)} prompt(s) accepted", *refused])
