"""Segmentation of single images between two camera images, in slices that each take one turn at the model.

What has torch in it is imported on first use: the messages' side of the node is also imported by programs without it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sam2_ros.session.objects import PromptRequest, TrackingView
from sam2_ros.tracking.types import PromptError

if TYPE_CHECKING:
    from sam2_ros.tracking.image_predictor import ImagePrediction, ImagePredictor
    from sam2_ros.tracking.prompts import Prompt

T = TypeVar("T")


@dataclass(frozen=True)
class SegmentRequest:
    """One image and what to segment in it."""

    header: Any  # of the image message, handed through
    image_rgb: NDArray[np.uint8] | None  # (H, W, 3); None = the newest processed camera image, with its header
    prompts: tuple[PromptRequest, ...]
    everything: bool = False  # instead of prompts
    multimask: bool = False  # three masks a prompt instead of the best one


@dataclass(frozen=True)
class SegmentedThing:
    """One mask of the answer."""

    prompt_index: int  # 0 with ``everything``
    score: float  # predicted IoU, 0..1
    mask: NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Segmentation:
    """The answer."""

    header: Any
    height: int
    width: int
    things: tuple[SegmentedThing, ...]  # by prompt, then best first


def segment_in_turns(
    predictor: ImagePredictor, request: SegmentRequest, newest: TrackingView
) -> Generator[None, None, Segmentation]:
    """Answer a request; after every ``yield`` something else may use the network.

    Raises:
        PromptError: the request makes no sense, with what was expected.
    """
    header, image_rgb = request.header, request.image_rgb
    if image_rgb is None:
        header, image_rgb = newest.header, newest.image_rgb
    if image_rgb is None:
        raise PromptError("no camera image has been processed yet: send an image with the request, or ask again later")
    if request.everything == bool(request.prompts):
        raise PromptError(
            f"expected either prompts or everything = true, got {len(request.prompts)} prompt(s) and "
            f"everything = {str(request.everything).lower()}"
        )
    height, width = image_rgb.shape[:2]
    if request.everything:
        from sam2_ros.tracking.mask_generator import AutomaticMaskGenerator

        steps = AutomaticMaskGenerator(predictor.model).steps(image_rgb)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                things = tuple(SegmentedThing(0, found.predicted_iou, found.mask) for found in end.value)
                return Segmentation(header, height, width, things)
            yield
    prompts = [_read(number, prompt, (height, width)) for number, prompt in enumerate(request.prompts)]
    predictor.set_image(image_rgb)
    yield
    if request.multimask:
        return Segmentation(header, height, width, _things([p.ordered() for p in predictor.predict_batch(prompts)]))
    return Segmentation(header, height, width, _things(predictor.predict_best(prompts)))


def _read(number: int, request: PromptRequest, image_size: tuple[int, int]) -> Prompt:
    from sam2_ros.tracking.prompts import make_prompt

    try:
        given = request.in_pixels(image_size)
        return make_prompt(given.points_xy, given.point_labels, given.box_xyxy, given.mask)
    except PromptError as error:
        raise PromptError(f"prompts[{number}]: {error}") from None


def _things(predictions: Sequence[ImagePrediction]) -> tuple[SegmentedThing, ...]:
    return tuple(
        SegmentedThing(number, float(score), mask)
        for number, prediction in enumerate(predictions)
        for score, mask in zip(prediction.scores, prediction.masks, strict=True)
    )


def run_in_turns(submit: Callable[[Callable[[], None]], Future[None]], steps: Generator[Any, None, T]) -> Future[T]:
    """Run ``steps`` to the end, each up to its next ``yield`` as a command of its own.

    Args:
        submit: queues a command and returns its future.
        steps: not begun.

    Returns:
        What ``steps`` returns or raises, or what befalls one of the commands. Cancelling it ends the work at the next
        ``yield``.
    """
    whole: Future[T] = Future()

    def advance() -> None:
        if whole.cancelled():
            steps.close()
            return
        try:
            next(steps)
        except StopIteration as end:
            if whole.set_running_or_notify_cancel():
                whole.set_result(end.value)
        else:
            go_on()

    def pass_on(done: Future[None]) -> None:
        error = done.exception()
        if error is not None and whole.set_running_or_notify_cancel():
            whole.set_exception(error)

    def go_on() -> None:
        submit(advance).add_done_callback(pass_on)

    go_on()
    return whole
