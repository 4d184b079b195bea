"""The node's services. They exist from construction on; while there is no session they answer with the reason.

A handler that must wait for the model is a coroutine on a reentrant group, so the executor continues meanwhile, even a
single-threaded one. No exception of a handler reaches the executor.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from sam2_ros.image_io.encodings import ImageError
from sam2_ros.image_io.integrity import MAX_PIXELS
from sam2_ros.msg import Prompt, SegmentedMask, TrackedObjectArray
from sam2_ros.node.background import NoAnswerError, Waiting
from sam2_ros.node.conversions import (
    SERVICE_QOS,
    array_to_image,
    decode_image,
    outcome_to_message,
    read_prompt,
    view_to_message,
)
from sam2_ros.saved_values import MAX_NAME_LENGTH
from sam2_ros.session.objects import PromptAction, PromptOutcome, PromptRequest, TrackingView
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.persistence import SessionFileError, read_session, session_path, write_session
from sam2_ros.session.segmentation import Segmentation, SegmentedThing, SegmentRequest
from sam2_ros.session.session import Session
from sam2_ros.session.work_queue import SessionStoppedError, TooManyRequestsError
from sam2_ros.srv import (
    AddObjects,
    Clear,
    ListObjects,
    LoadSession,
    RefineObject,
    RemoveObjects,
    Reset,
    SaveSession,
    SegmentImage,
)
from sam2_ros.tracking.types import PromptError

T = TypeVar("T")
MAX_TIMEOUT_S = 3600.0


class Services:
    """The node's service servers.

    ``session`` returns the running session, or the reason why there is none; ``is_active`` whether images reach it;
    ``on_enabled`` is told what ``~/enable`` has set.
    """

    def __init__(
        self,
        node: LifecycleNode,
        session: Callable[[], Session | str],
        parameters: Callable[[], NodeParameters],
        is_active: Callable[[], bool],
        on_enabled: Callable[[bool], None] = lambda enabled: None,
    ) -> None:
        self._node = node
        self._on_enabled = on_enabled
        self._is_active = is_active
        self._get_session = session
        self._parameters = parameters
        self._group = ReentrantCallbackGroup()
        self._waiting = Waiting(node, lambda: parameters().service_timeout_s)
        self._services = [
            self._serve(AddObjects, "~/add_objects", self._add_objects),
            self._serve(RefineObject, "~/refine_object", self._refine_object),
            self._serve(RemoveObjects, "~/remove_objects", self._remove_objects),
            self._serve(ListObjects, "~/list_objects", self._list_objects),
            self._serve(SegmentImage, "~/segment_image", self._segment_image),
            self._serve(Clear, "~/clear", self._clear),
            self._serve(Reset, "~/reset", self._reset),
            self._serve(SaveSession, "~/save_session", self._save_session),
            self._serve(LoadSession, "~/load_session", self._load_session),
            self._serve(SetBool, "~/enable", self._enable),
        ]

    def names(self) -> list[str]:
        return [service.service_name for service in self._services]

    def _serve(self, kind: Any, name: str, handle: Callable[[Session, Any, Any], Awaitable[None]]) -> Any:
        async def answer(request: Any, response: Any) -> Any:
            try:
                session = self._get_session()
                if isinstance(session, str):
                    raise NoAnswerError(session)
                await handle(session, request, response)
            except (NoAnswerError, PromptError, SessionFileError, SessionStoppedError, TooManyRequestsError) as error:
                response.success, response.message = False, str(error)
            except Exception as error:
                self._node.get_logger().error(f"{name} failed: {type(error).__name__}: {error}")
                response.success, response.message = False, f"{name} failed, a bug: {type(error).__name__}: {error}"
            return response

        return self._node.create_service(kind, name, answer, qos_profile=SERVICE_QOS, callback_group=self._group)

    async def _session_path(self, wanted: str) -> Path:
        folder = self._parameters().session_dir
        return await self._waiting.file_access(lambda: session_path(wanted, folder), Path(wanted))

    async def _answer_of(self, future: Future[T]) -> T:
        limit_s = self._parameters().service_timeout_s
        answer = await self._waiting.until(future, limit_s)
        if answer is None:
            raise NoAnswerError(busy(limit_s))
        return answer

    def _timeout_s(self, wanted_s: float) -> float:
        return timeout_s(wanted_s, self._parameters().service_timeout_s)

    async def _add_objects(self, session: Session, request: Any, response: Any) -> None:
        if not request.prompts:
            raise NoAnswerError("no prompts: expected at least one in `prompts`")
        check_count(request.prompts)
        read = [read_or_reject(message) for message in request.prompts]
        outcomes = await self._prompt(session, read, request, response)
        response.results = [outcome_to_message(outcome) for outcome in outcomes]

    async def _refine_object(self, session: Session, request: Any, response: Any) -> None:
        (outcome,) = await self._prompt(session, [read_correction(request.prompt)], request, response)
        response.result = outcome_to_message(outcome)

    async def _prompt(
        self, session: Session, read: Sequence[PromptRequest | PromptOutcome], request: Any, response: Any
    ) -> list[PromptOutcome]:
        """Hand prompts to the session and, with ``wait``, wait for their image; sets all but the results."""
        limit_s = self._timeout_s(request.timeout_s)
        if not request.wait:
            limit_s = self._parameters().service_timeout_s
        deadline_s = time.monotonic() + limit_s
        for rejected in (item for item in read if isinstance(item, PromptOutcome)):
            session.events.rejected(rejected.object_id, rejected.error)
        ticket = session.prompt([item for item in read if isinstance(item, PromptRequest)], wait=request.wait)
        answered = await self._waiting.until(ticket.outcomes, limit_s)
        if answered is None:
            raise NoAnswerError(busy(limit_s))
        answers = iter(answered)
        outcomes = [item if isinstance(item, PromptOutcome) else next(answers) for item in read]
        hint = ""
        if request.wait and any(outcome.accepted for outcome in outcomes):
            view = await self._waiting.until(ticket.first_view, deadline_s - time.monotonic())
            if view is not None:
                outcomes = [judged_by_image(outcome, view) for outcome in outcomes]
            else:
                view, hint = session.view, why_pending(session, limit_s, self._why_deaf(session))
            accepted_ids = {outcome.object_id for outcome in outcomes if outcome.accepted}
            shown = replace(view, objects=tuple(o for o in view.objects if o.tracked.object_id in accepted_ids))
            response.objects = self._to_message(shown, with_masks=True)
        response.success = all(outcome.accepted for outcome in outcomes)
        response.message = summarize(outcomes) + hint
        return outcomes

    def _why_deaf(self, session: Session) -> str:
        """Why no image can reach the session, and what to do; empty when images can."""
        if not self._is_active():
            name = self._node.get_fully_qualified_name()
            return f"the node is inactive: ros2 lifecycle set {name} activate"
        return "" if session.enabled else "tracking is disabled: call ~/enable"

    def _to_message(self, view: TrackingView, *, with_masks: bool) -> TrackedObjectArray:
        now_ns = self._node.get_clock().now().nanoseconds
        return view_to_message(view, with_masks=with_masks, now_ns=now_ns)

    async def _remove_objects(self, session: Session, request: Any, response: Any) -> None:
        if not request.object_ids:
            raise NoAnswerError("no object_ids: expected at least one; ~/clear removes all objects")
        self._say_removed(response, await self._waiting.until_freed(session.remove(request.object_ids)))

    async def _segment_image(self, session: Session, request: Any, response: Any) -> None:
        limit_s = self._timeout_s(request.timeout_s)
        wanted = read_request(request, self._parameters().max_image_pixels)
        if wanted.image_rgb is None and session.view.image_rgb is None and (why := self._why_deaf(session)):
            raise NoAnswerError(f"no camera image has been processed yet, and {why}; or send an image with the request")
        answer = await self._waiting.until(session.segment(wanted), limit_s)
        if answer is None:
            raise NoAnswerError(f"not done within {limit_s:g} s; ask again with a longer timeout_s")
        fill_response(response, answer)

    async def _clear(self, session: Session, request: Any, response: Any) -> None:
        self._say_removed(response, await self._waiting.until_freed(session.clear()))

    async def _reset(self, session: Session, request: Any, response: Any) -> None:
        self._say_removed(response, await self._waiting.until_freed(session.reset()))

    def _say_removed(self, response: Any, removed: tuple[str, ...]) -> None:
        response.removed = list(removed)
        response.success, response.message = True, f"removed: {', '.join(removed) or 'nothing, there was no object'}"

    async def _list_objects(self, session: Session, request: Any, response: Any) -> None:
        view = session.view
        response.objects = self._to_message(view, with_masks=request.with_masks)
        response.success, response.message = True, f"{len(view.objects)} object(s)"

    async def _enable(self, session: Session, request: Any, response: Any) -> None:
        changed = session.set_enabled(request.data)
        await (self._answer_of(changed) if request.data else self._waiting.until_freed(changed))
        self._on_enabled(request.data)
        response.success, response.message = True, "enabled" if request.data else "disabled; objects are kept"

    async def _save_session(self, session: Session, request: Any, response: Any) -> None:
        path = await self._session_path(request.path)
        saved = await self._answer_of(session.save())
        await self._waiting.file_access(lambda: write_session(path, saved, overwrite=request.overwrite), path)
        count = len(saved["objects"])
        session.events.saved(str(path), count)
        response.path, response.object_count = str(path), count
        response.success, response.message = True, f"{count} object(s) written to {path}"

    async def _load_session(self, session: Session, request: Any, response: Any) -> None:
        if not request.path:
            raise NoAnswerError("no path: expected that of a file that ~/save_session wrote")
        path = await self._session_path(request.path)
        saved = await self._waiting.file_access(lambda: read_session(path), path)
        view = await self._waiting.until_freed(session.load(saved, str(path)))
        response.objects = self._to_message(view, with_masks=False)
        response.success, response.message = True, f"{len(view.objects)} object(s) read from {path}"


MAX_PROMPTS = 256  # of one call: they are carried out between two images


def check_count(prompts: Sequence[Any]) -> None:
    """PromptError for more prompts than one call may have."""
    if len(prompts) > MAX_PROMPTS:
        raise PromptError(f"prompts: expected at most {MAX_PROMPTS} in a call, got {len(prompts)}; call again for more")


def timeout_s(wanted_s: float, default_s: float) -> float:
    """The request's own timeout if it has one, else the node's."""
    if not 0 <= wanted_s <= MAX_TIMEOUT_S:  # NaN included
        raise NoAnswerError(f"timeout_s must be 0 (the node's default) to {MAX_TIMEOUT_S:g} s, got {wanted_s}")
    return wanted_s if wanted_s > 0 else default_s


def busy(waited_s: float) -> str:
    return f"the model was busy for {waited_s:g} s; nothing was changed. Try again, or raise service_timeout_s"


def why_pending(session: Session, waited_s: float, why_deaf: str) -> str:
    """Why no first mask came in time, for the caller. ``why_deaf``: why no image can come, empty when images can."""
    behind = session.view.frames_behind
    if behind and not why_deaf:
        frames = ", ".join(f"{object_id} by {count}" for object_id, count in behind.items())
        return f"; not yet replayed up to the newest image after {waited_s:g} s, images behind: {frames}"
    reason = f"; no image was processed within {waited_s:g} s, the objects are PENDING"
    if why_deaf:
        return f"{reason}: {why_deaf}"
    stats = session.stats()
    if stats.too_old_s:
        return f"{reason}: the newest was {stats.too_old_s:.2f} s old, more than max_image_age_s"
    return f"{reason}; the latest error: {stats.last_error}" if stats.last_error else reason


def read_or_reject(message: Prompt) -> PromptRequest | PromptOutcome:
    try:
        return read_prompt(message)
    except PromptError as error:
        name = message.object_id[:MAX_NAME_LENGTH]  # of one that was too long its beginning
        return PromptOutcome(accepted=False, error=str(error), object_id=name, label=0)


def read_correction(message: Prompt) -> PromptRequest | PromptOutcome:
    """As ``read_or_reject``, for a known object."""
    read = read_or_reject(message)
    if isinstance(read, PromptRequest) and read.action is PromptAction.ADD:
        error = "expected action REFINE, REPLACE or UNDO, got ADD; ~/add_objects adds objects"
        return PromptOutcome(accepted=False, error=error, object_id=message.object_id, label=0)
    return read


def judged_by_image(outcome: PromptOutcome, view: TrackingView) -> PromptOutcome:
    """An accepted prompt becomes a rejected one where it did not fit the first image, or where its object is gone; one
    that was made to fit it says so."""
    rejected = dict(view.result.rejected) if view.result is not None else {}
    is_there = any(item.tracked.object_id == outcome.object_id for item in view.objects)
    if not outcome.accepted:
        return outcome
    if is_there and outcome.object_id not in rejected:
        notes = dict(view.result.notes) if view.result is not None else {}
        return replace(outcome, note=outcome.note or notes.get(outcome.object_id, ""))
    error = rejected.get(outcome.object_id, "the object was removed before an image came; add it again")
    return PromptOutcome(accepted=False, error=error, object_id=outcome.object_id, label=0)


def summarize(outcomes: list[PromptOutcome]) -> str:
    accepted = sum(outcome.accepted for outcome in outcomes)
    said = [f"{o.object_id or 'a new object'}: {o.error or o.note}" for o in outcomes if o.error or o.note]
    return "; ".join([f"{accepted} of {len(outcomes)} prompt(s) accepted", *said])


def read_request(message: Any, max_pixels: int = MAX_PIXELS) -> SegmentRequest:
    """A ``SegmentImage`` request as the session takes it; PromptError when the message itself makes no sense."""
    check_count(message.prompts)
    image = message.image
    is_empty = image.width == 0 and image.height == 0 and len(image.data) == 0
    try:
        image_rgb = None if is_empty else decode_image(image, max_pixels)
    except ImageError as error:
        raise PromptError(f"the image cannot be read: {error}") from None
    prompts = []
    for number, prompt in enumerate(message.prompts):
        try:
            prompts.append(read_prompt(prompt))
        except PromptError as error:
            raise PromptError(f"prompts[{number}]: {error}") from None
    return SegmentRequest(image.header, image_rgb, tuple(prompts), message.everything, message.multimask)


def fill_response(response: Any, answer: Segmentation) -> None:
    """A ``SegmentImage`` response of a request that was carried out."""
    response.header = answer.header if isinstance(answer.header, Header) else Header()
    response.width, response.height = answer.width, answer.height
    response.masks = [_mask_to_message(thing, response.header) for thing in answer.things]
    response.success, response.message = True, "; ".join([f"{len(answer.things)} mask(s)", *answer.notes])


def _mask_to_message(thing: SegmentedThing, header: Header) -> SegmentedMask:
    message = SegmentedMask(prompt_index=thing.prompt_index, score=thing.score, area=int(thing.mask.sum()))
    if thing.box_xyxy is not None:
        x0, y0, x1, y1 = thing.box_xyxy
        message.roi = RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0)
        message.mask = array_to_image(thing.mask.astype(np.uint8) * 255, "mono8", header)
    return message
