"""Callers who wait for the first image that was processed with their prompts. ROS-free; the session's worker's own."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace

from sam2_ros.session.objects import TrackingView
from sam2_ros.session.work_queue import fail_all


@dataclass(frozen=True)
class _Waiting:
    future: Future[TrackingView]
    object_ids: frozenset[str]
    rejected: tuple[tuple[str, str], ...] = ()


class FirstViews:
    """A prompt for a past image counts as processed when its object has been brought up to now."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def add(self, future: Future[TrackingView], object_ids: Collection[str]) -> None:
        self._waiting.append(_Waiting(future, frozenset(object_ids)))

    def tell(self, view: TrackingView) -> None:
        """Answer those whose objects are up to now; what was rejected on the way is in ``view.result`` then."""
        assert view.result is not None, "only a processed image can answer"
        still_waiting = []
        for each in self._waiting:
            rejected = each.rejected + view.result.rejected
            if each.object_ids & set(view.frames_behind):
                if not each.future.cancelled():
                    still_waiting.append(replace(each, rejected=rejected))
            elif each.future.set_running_or_notify_cancel():
                each.future.set_result(replace(view, result=replace(view.result, rejected=rejected)))
        self._waiting = still_waiting

    def fail(self, error: Exception) -> None:
        """Nobody will be answered any more."""
        waiting, self._waiting = self._waiting, []
        fail_all((each.future for each in waiting), error)
