"""What the session's worker does with an image or a command. ROS-free; one thread calls everything here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.events import EventSource
from sam2_ros.session.first_views import FirstViews
from sam2_ros.session.objects import ObjectBook, TrackerLike, TrackingView
from sam2_ros.session.out_of_memory import free_cached_memory, is_out_of_memory
from sam2_ros.session.parameters import NodeParameters
from sam2_ros.session.prompts import PromptOutcome, PromptRequest
from sam2_ros.session.segmentation import Segmentation, SegmentRequest, segment_in_slices
from sam2_ros.session.stats import StatsCollector
from sam2_ros.session.work_queue import Arrival
from sam2_ros.tracking.types import FrameResult

if TYPE_CHECKING:
    from sam2_ros.tracking.heads import AheadImage

logger = logging.getLogger(__name__)

NO_VIEW = TrackingView(header=None, stamp_ns=0, image_rgb=None, result=None, objects=(), frames_dropped=0)


class SessionWork:
    """The tracker and all that is said about its objects. ``view`` is frozen and replaced: any thread may read it."""

    def __init__(
        self,
        tracker: TrackerLike,
        events: EventSource,
        stats: StatsCollector,
        *,
        decode: Callable[[Any], NDArray[np.uint8]],
        publish: Callable[[TrackingView], None],
        parameters: Callable[[], NodeParameters],
        now_ns: Callable[[], int],
    ) -> None:
        self._tracker = tracker
        self._events = events
        self._stats = stats
        self._decode = decode
        self._publish = publish
        self._parameters = parameters
        self._now_ns = now_ns
        self._book = ObjectBook(tracker, prompts_have_stamps=parameters().prompt_buffer_s > 0)
        self.first_views = FirstViews()
        self._frame_size: tuple[int, int] | None = None  # (H, W) of the next image, or of the last one
        self.view = NO_VIEW

    # Images ----------------------------------------------------------------------------------------------------------

    def read(self, image: Arrival, ahead: AheadImage | None) -> NDArray[np.uint8] | None:
        """The image's pixels, whose size the next prompts are for; None when it is not to be processed."""
        if self._is_too_old(image):
            return None
        try:
            image_rgb = self._decode(image.message) if ahead is None else ahead.image_rgb
        except ValueError as error:
            self._stats.note_failure(f"image refused: {error}", with_traceback=False)
            return None
        except Exception as error:
            self._stats.note_failure(f"image could not be read: {type(error).__name__}: {error}")
            return None
        self._frame_size = (image_rgb.shape[0], image_rgb.shape[1])
        return image_rgb

    def _is_too_old(self, image: Arrival) -> bool:
        limit_s = self._parameters().max_image_age_s
        age_s = (self._now_ns() - image.stamp_ns) / 1e9
        if not limit_s or not image.stamp_ns or age_s <= limit_s:
            return False
        self._stats.note_too_old(age_s, limit_s)
        return True

    def process(self, image: Arrival, image_rgb: NDArray[np.uint8], ahead: AheadImage | None) -> None:
        """Track all objects into the image, and tell everybody."""
        result = self._step(image, image_rgb if ahead is None else ahead)
        if result is None:
            return
        inferred_s = self._stats.now_s()
        for object_id, why in result.rejected:
            logger.warning("the prompt for %s was refused when it met its image: %s", object_id, why)
        self._book.observe(result, image.stamp_ns)
        header, dropped = image.message.header, self._stats.dropped
        behind = dict(self._tracker.frames_behind)
        self.view = view = TrackingView(header, image.stamp_ns, image_rgb, result, self._book.views(), dropped, behind)
        self.first_views.tell(view)  # before publishing: the callers have waited long enough
        self._events.observed(view)
        try:
            self._publish(view)
        except Exception as error:
            self._stats.note_failure(f"result could not be published: {type(error).__name__}: {error}")
            return
        age_ms = (self._now_ns() - image.stamp_ns) / 1e6 if image.stamp_ns else None
        self._stats.note_processed(image.arrival_s, inferred_s, result.inference_ms, age_ms)

    def _step(self, image: Arrival, pixels: NDArray[np.uint8] | AheadImage) -> FrameResult | None:
        try:
            return self._tracker.step(pixels, image.stamp_ns / 1e9 if image.stamp_ns else None)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            memory_is_out = is_out_of_memory(error)
            if not memory_is_out:
                self._stats.note_failure(f"image could not be processed: {why}")
        if memory_is_out:  # not in the handler: there the error still holds what the model had in hand
            self._drop_newest(image, why)
        return None

    def _drop_newest(self, image: Arrival, why: str) -> None:
        """Go on with one object less."""
        newest = self._tracker.object_ids[-1:]
        what = f"{newest[0]!r}, the newest object, was dropped" if newest else "there is no object to drop"
        message = f"out of memory, {what} ({why})"
        self._stats.note_failure(message, with_traceback=False)
        if newest:
            self._book.remove(newest)
            self._events.removed(newest, message, image.message.header)
            self.refresh_view()
        free_cached_memory()

    # Commands --------------------------------------------------------------------------------------------------------

    def refresh_view(self) -> None:
        """Let ``view`` show what commands have changed."""
        behind = dict(self._tracker.frames_behind)
        self.view = replace(self.view, objects=self._book.views(), frames_behind=behind)

    def apply(
        self, batch: tuple[PromptRequest, ...], first_view: Future[TrackingView] | None
    ) -> tuple[PromptOutcome, ...]:
        batch = tuple(self._book.settled(request) for request in batch)
        outcomes = self._book.apply_all(batch, self._frame_size)
        self._events.prompted(batch, outcomes)
        accepted = {outcome.object_id for outcome in outcomes if outcome.accepted}
        if first_view is not None and accepted:
            self.first_views.add(first_view, accepted)
        return outcomes

    def remove(self, object_ids: tuple[str, ...]) -> tuple[str, ...]:
        removed = self._book.remove(object_ids)
        self._events.removed(removed)
        return removed

    def clear(self) -> tuple[str, ...]:
        removed = self._book.clear()
        self._events.cleared(removed)
        return removed

    def reset(self, why: str, time_went_back: bool = False) -> tuple[str, ...]:
        removed = self._book.reset()
        self._stats.restart_dropped()
        self.view = NO_VIEW
        self._events.reset(why, time_went_back)
        return removed

    def restart(self, back_s: float) -> None:
        """Time has jumped back."""
        why = f"image stamps went back by {back_s:.2f} s (a bag that starts again?): tracking is reset"
        logger.warning("%s", why)
        self.reset(why, time_went_back=True)

    def segment_in_slices(self, request: SegmentRequest) -> Generator[None, None, Segmentation]:
        return (yield from segment_in_slices(self._tracker.image_predictor(), request, self.view))

    def save(self) -> dict[str, Any]:
        return self._book.save()

    def load(self, saved: Mapping[str, Any], path: str) -> TrackingView:
        """Go on with the objects of a saved session; the new view."""
        self._book.load(saved)
        self.refresh_view()
        self._events.loaded(path, self.view.objects)
        return self.view
