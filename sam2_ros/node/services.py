"""The node's services. They exist from construction on; while there is no session they answer why.

A handler that must wait for the worker is a coroutine on a reentrant group: the executor goes on meanwhile, also a
single-threaded one. Nothing that goes wrong in a handler reaches the executor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

import rclpy.task
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import SetBool

from sam2_ros.msg import Prompt
from sam2_ros.node.conversions import outcome_to_message, read_prompt, view_to_message
from sam2_ros.node.object_book import TrackingView
from sam2_ros.node.parameters import NodeParameters
from sam2_ros.node.prompts import PromptOutcome, PromptRequest
from sam2_ros.node.segment_service import fill_response, read_request
from sam2_ros.node.session import Session, SessionStoppedError
from sam2_ros.srv import AddObjects, Clear, ListObjects, RemoveObjects, Reset, SegmentImage
from sam2_ros.tracking.types import PromptError

T = TypeVar("T")

MAX_TIMEOUT_S = 3600.0


class NoAnswerError(RuntimeError):
    """The request was not carried out; the message goes to the caller."""


class Services:
    """``~/add_objects``, ``~/remove_objects``, ``~/list_objects``, ``~/segment_image``, ``~/clear``, ``~/reset``,
    ``~/enable``.

    ``session`` returns the running session, or the reason why there is none.
    """

    def __init__(
        self, node: LifecycleNode, session: Callable[[], Session | str], parameters: Callable[[], NodeParameters]
    ) -> None:
        self._node = node
        self._get_session = session
        self._parameters = parameters
        self._group = ReentrantCallbackGroup()
        self._services = [
            self._serve(AddObjects, "~/add_objects", self._add_objects),
            self._serve(RemoveObjects, "~/remove_objects", self._remove_objects),
            self._serve(ListObjects, "~/list_objects", self._list_objects),
            self._serve(SegmentImage, "~/segment_image", self._segment_image),
            self._serve(Clear, "~/clear", self._clear),
            self._serve(Reset, "~/reset", self._reset),
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
            except (NoAnswerError, PromptError, SessionStoppedError) as error:
                response.success, response.message = False, str(error)
            except Exception as error:
                self._node.get_logger().error(f"{name} failed: {type(error).__name__}: {error}")
                response.success, response.message = False, f"{name} failed, a bug: {type(error).__name__}: {error}"
            return response

        return self._node.create_service(kind, name, answer, callback_group=self._group)

    async def _until(self, future: Future[T], timeout_s: float) -> T | None:
        """The future's result, or None when it did not come in time (it is cancelled then). Raises what it raises."""
        executor = self._node.executor
        woken = rclpy.task.Future(executor=executor)

        def wake(_: object = None) -> None:
            if not woken.done():
                woken.set_result(None)
                executor.wake()  # a task that awaits is only looked at when the executor turns

        timer = threading.Timer(max(timeout_s, 0.0), wake)
        timer.daemon = True
        timer.start()
        future.add_done_callback(wake)
        await woken
        timer.cancel()
        if not future.done() and future.cancel():
            return None
        return future.result()  # done, or being carried out right now: between images, so at once

    async def _answer_of(self, future: Future[T]) -> T:
        timeout_s = self._parameters().service_timeout_s
        answer = await self._until(future, timeout_s)
        if answer is None:
            raise NoAnswerError(busy(timeout_s))
        return answer

    def _timeout_s(self, wanted_s: float, counts: bool = True) -> float:
        """The request's own timeout if it has one and it counts, else the node's."""
        if not 0 <= wanted_s <= MAX_TIMEOUT_S:  # NaN included
            raise NoAnswerError(f"timeout_s must be 0 (the node's default) to {MAX_TIMEOUT_S:g} s, got {wanted_s}")
        return wanted_s if counts and wanted_s > 0 else self._parameters().service_timeout_s

    async def _add_objects(self, session: Session, request: Any, response: Any) -> None:
        if not request.prompts:
            raise NoAnswerError("no prompts: expected at least one in `prompts`")
        timeout_s = self._timeout_s(request.timeout_s, counts=request.wait)
        deadline_s = time.monotonic() + timeout_s
        read = [read_or_refuse(message) for message in request.prompts]
        ticket = session.prompt([item for item in read if isinstance(item, PromptRequest)], wait=request.wait)
        answered = await self._until(ticket.outcomes, timeout_s)
        if answered is None:
            raise NoAnswerError(busy(timeout_s))
        answers = iter(answered)
        outcomes = [item if isinstance(item, PromptOutcome) else next(answers) for item in read]
        hint = ""
        if request.wait and any(outcome.accepted for outcome in outcomes):
            view = await self._until(ticket.first_view, deadline_s - time.monotonic())
            if view is not None:
                outcomes = [refused_by_image(outcome, view) for outcome in outcomes]
            else:
                view, hint = session.view, why_pending(session, timeout_s)
            accepted_ids = {outcome.object_id for outcome in outcomes if outcome.accepted}
            shown = replace(view, objects=tuple(o for o in view.objects if o.tracked.object_id in accepted_ids))
            now_ns = self._node.get_clock().now().nanoseconds
            response.objects = view_to_message(shown, with_masks=True, now_ns=now_ns)
        response.results = [outcome_to_message(outcome) for outcome in outcomes]
        response.success = all(outcome.accepted for outcome in outcomes)
        response.message = summarize(outcomes) + hint

    async def _remove_objects(self, session: Session, request: Any, response: Any) -> None:
        if not request.object_ids:
            raise NoAnswerError("no object_ids: expected at least one; ~/clear removes all objects")
        self._say_removed(response, await self._answer_of(session.remove(request.object_ids)))

    async def _segment_image(self, session: Session, request: Any, response: Any) -> None:
        timeout_s = self._timeout_s(request.timeout_s)
        answer = await self._until(session.segment(read_request(request)), timeout_s)
        if answer is None:
            raise NoAnswerError(f"not done within {timeout_s:g} s; ask again with a longer timeout_s")
        fill_response(response, answer)

    async def _clear(self, session: Session, request: Any, response: Any) -> None:
        self._say_removed(response, await self._answer_of(session.clear()))

    async def _reset(self, session: Session, request: Any, response: Any) -> None:
        self._say_removed(response, await self._answer_of(session.reset()))

    def _say_removed(self, response: Any, removed: tuple[str, ...]) -> None:
        response.removed = list(removed)
        response.success, response.message = True, f"removed: {', '.join(removed) or 'nothing, there was no object'}"

    async def _list_objects(self, session: Session, request: Any, response: Any) -> None:
        view = session.view
        now_ns = self._node.get_clock().now().nanoseconds
        response.objects = view_to_message(view, with_masks=request.with_masks, now_ns=now_ns)
        response.success, response.message = True, f"{len(view.objects)} object(s)"

    async def _enable(self, session: Session, request: Any, response: Any) -> None:
        await self._answer_of(session.set_enabled(request.data))
        response.success, response.message = True, "enabled" if request.data else "disabled; objects are kept"


def busy(timeout_s: float) -> str:
    return f"the model was busy for {timeout_s:g} s; nothing was changed. Try again, or raise service_timeout_s"


def why_pending(session: Session, timeout_s: float) -> str:
    """For a caller who waited in vain for a first mask."""
    reason = f"; no image was processed within {timeout_s:g} s, the objects are PENDING"
    if not session.enabled:
        return f"{reason}: tracking is disabled, call ~/enable"
    last_error = session.stats().last_error
    return f"{reason}; the latest error: {last_error}" if last_error else reason


def read_or_refuse(message: Prompt) -> PromptRequest | PromptOutcome:
    try:
        return read_prompt(message)
    except PromptError as error:
        return PromptOutcome(accepted=False, error=str(error), object_id=message.object_id, label=0)


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
