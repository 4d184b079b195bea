"""Segmentation of single images between two camera images: one request after the other, a short slice at a time.

Modules that need torch are imported on first use: programs without torch import the types of this module.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam2_ros.heap import retried_out_of_memory
from sam2_ros.session.objects import PromptRequest, TrackingView
from sam2_ros.session.work_queue import TooManyRequestsError, fail_all
from sam2_ros.tracking.types import PromptError

if TYPE_CHECKING:
    from sam2_ros.tracking.image_predictor import ImagePrediction, ImagePredictor
    from sam2_ros.tracking.prompts import Prompt

logger = logging.getLogger(__name__)

MAX_REQUESTS = 4  # in progress or waiting; of more, the last would time out before its turn
PROMPTS_PER_SLICE = POINTS_PER_SLICE = 16  # the longest wait of tracking, besides the encoding of an image
_PIXELS_PER_SLICE = 16 * 640 * 480  # of all masks at the image's size: of a larger image fewer are in a slice


@dataclass(frozen=True)
class SegmentRequest:
    """One image, and the prompts to segment in it."""

    header: Any  # of the image message, passed on unchanged
    image_rgb: NDArray[np.uint8] | None  # (H, W, 3); None = the newest processed camera image, with its header
    prompts: tuple[PromptRequest, ...]
    everything: bool = False  # instead of prompts
    multimask: bool = False  # three masks a prompt instead of the best one


@dataclass(frozen=True)
class SegmentedThing:
    """One mask of the answer, cropped to its box: at full size the masks of a large request would take gigabytes."""

    prompt_index: int  # 0 with ``everything``
    score: float  # predicted IoU, 0..1
    box_xyxy: tuple[int, int, int, int] | None  # tight, x1 and y1 exclusive; None = the mask is empty
    mask: NDArray[np.bool_]  # (y1 - y0, x1 - x0)


@dataclass(frozen=True)
class Segmentation:
    """The answer."""

    header: Any
    height: int
    width: int
    things: tuple[SegmentedThing, ...]  # by prompt, then best first
    notes: tuple[str, ...] = ()  # what was changed to make prompts fit the image, such as a clipped box


Slices = Generator[Any, None, Segmentation]  # after every ``yield`` something else may use the network


def segment_in_slices(predictor: ImagePredictor, request: SegmentRequest, newest: Callable[[], TrackingView]) -> Slices:
    """Answer a request.

    Raises:
        PromptError: the request cannot be used; the message says what was expected.
    """
    header, image_rgb = request.header, request.image_rgb
    if image_rgb is None:
        view = newest()
        header, image_rgb = view.header, view.image_rgb
    if image_rgb is None:
        raise PromptError("no camera image has been processed yet: send an image with the request, or ask again later")
    if request.everything == bool(request.prompts):
        raise PromptError(
            f"expected either prompts or everything = true, got {len(request.prompts)} prompt(s) and "
            f"everything = {str(request.everything).lower()}"
        )
    height, width = image_rgb.shape[:2]
    notes: tuple[str, ...] = ()
    if request.everything:
        things = yield from _everything(predictor, image_rgb)
    else:
        read = [_read(number, prompt, (height, width)) for number, prompt in enumerate(request.prompts)]
        notes = tuple(note for _, note in read if note)
        things = yield from _prompted(predictor, image_rgb, [prompt for prompt, _ in read], request.multimask)
    return Segmentation(header, height, width, things, notes)


def _everything(
    predictor: ImagePredictor, image_rgb: NDArray[np.uint8]
) -> Generator[Any, None, tuple[SegmentedThing, ...]]:
    from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator, settings_for

    settings = settings_for(predictor.model.config.name)
    settings = replace(
        settings, points_per_batch=min(settings.points_per_batch, _per_slice(image_rgb, POINTS_PER_SLICE))
    )
    found = yield from AutomaticMaskGenerator(predictor.model, settings).steps(image_rgb)
    return tuple(SegmentedThing(0, each.predicted_iou, each.box_xyxy, each.mask) for each in found)


def _prompted(
    predictor: ImagePredictor, image_rgb: NDArray[np.uint8], prompts: list[Prompt], multimask: bool
) -> Generator[Any, None, tuple[SegmentedThing, ...]]:
    predict = predictor.predict_batch if multimask else predictor.predict_best
    retried_out_of_memory(functools.partial(predictor.set_image, image_rgb))
    # Prompts of one kind go through the network as one batch.
    order = sorted(range(len(prompts)), key=lambda number: (prompts[number].num_tokens, prompts[number].mask is None))
    things: list[SegmentedThing] = []
    count = _per_slice(image_rgb, PROMPTS_PER_SLICE)
    for start in range(0, len(order), count):
        yield
        numbers = order[start : start + count]
        found = retried_out_of_memory(functools.partial(predict, [prompts[number] for number in numbers]))
        for number, prediction in zip(numbers, found, strict=True):
            things += _cropped(number, prediction.ordered())
    return tuple(sorted(things, key=lambda thing: thing.prompt_index))  # stable: best first stays


def _per_slice(image_rgb: NDArray[np.uint8], limit: int) -> int:
    height, width = image_rgb.shape[:2]
    return min(limit, max(_PIXELS_PER_SLICE // (height * width), 1))


def _read(number: int, request: PromptRequest, image_size: tuple[int, int]) -> tuple[Prompt, str]:
    """The prompt for this image, and what was changed to make it fit."""
    from sam2_ros.tracking.prompts import clipping_note, fit_to_image, make_prompt

    try:
        given = request.in_pixels(image_size)
        prompt = make_prompt(given.points_xy, given.point_labels, given.box_xyxy, given.mask)
        fitted = fit_to_image(prompt, *image_size)
    except PromptError as error:
        raise PromptError(f"prompts[{number}]: {error}") from None
    note = clipping_note(prompt, fitted)
    return fitted, f"prompts[{number}]: {note}" if note else ""


def _cropped(number: int, prediction: ImagePrediction) -> Iterator[SegmentedThing]:
    from sam2_ros.tracking.transforms import tight_box_xyxy

    for score, mask in zip(prediction.scores, prediction.masks, strict=True):
        box = tight_box_xyxy(mask)
        x0, y0, x1, y1 = box or (0, 0, 0, 0)
        yield SegmentedThing(number, float(score), box, mask[y0:y1, x0:x1].copy())


@dataclass(frozen=True)
class _Job:
    slices: Slices
    done: Future[Segmentation]


class SegmentationQueue:
    """Requests in order of arrival. Filled from any thread, processed by the model thread, one slice at a time.

    Cancelling a future ends the work on its request at the next slice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._jobs: deque[_Job] = deque()
        self._closed: Exception | None = None

    def add(self, slices: Slices) -> Future[Segmentation]:
        """The future answer, which raises what ``slices`` raises, or TooManyRequestsError."""
        job = _Job(slices, Future())
        with self._lock:
            self._jobs = deque(each for each in self._jobs if not each.done.cancelled())
            if self._closed is not None:
                job.done.set_exception(self._closed)
            elif len(self._jobs) >= MAX_REQUESTS:
                job.done.set_exception(
                    TooManyRequestsError(
                        f"{len(self._jobs)} such requests wait already, all that fit: ask again when one of "
                        "them has been answered"
                    )
                )
            else:
                self._jobs.append(job)
        return job.done

    @property
    def has_work(self) -> bool:
        with self._lock:
            return bool(self._jobs)

    def advance(self) -> None:
        """Work on the oldest request for one slice. On the model thread."""
        with self._lock:
            self._jobs = deque(each for each in self._jobs if not each.done.cancelled())
            job = self._jobs[0] if self._jobs else None
        if job is None:
            return
        try:
            next(job.slices)
            return
        except StopIteration as end:
            answer, failure = end.value, None
        except Exception as error:
            answer, failure = None, error
            if not isinstance(error, PromptError):  # a PromptError is the caller's mistake
                logger.exception("an image could not be segmented")
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
        if not job.done.set_running_or_notify_cancel():
            return
        if failure is not None:
            job.done.set_exception(failure)
        else:
            job.done.set_result(answer)

    def close(self, error: Exception) -> None:
        """Answer all waiting and later requests with ``error``."""
        with self._lock:
            self._closed = error
            left, self._jobs = self._jobs, deque()
        fail_all((job.done for job in left), error)
