"""Masks of one recording from clicks, and their propagation through its frames, forward and backward.

Each call concerns one masklet and runs a tracker of its own: the memory is made of the frames that the masklet has, so
nothing that is known of other objects is lost, and nothing needs to be kept between calls. ``step`` has no direction;
backward is the same stream with the frames the other way round.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource, ProjectError
from sam2_ros.annotate.recordings import Recording
from sam2_ros.tracking.image_predictor import logits_of_mask
from sam2_ros.tracking.prompts import Prompt, fit_to_image, make_prompt
from sam2_ros.tracking.state import PrefetchedImage
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptError

CACHED_FRAMES = 24  # whose features are kept: for the large models about 25 MB each
MAX_CONDITIONING = 7  # frames beside the one that propagation starts from; the tracker keeps 8
PHASES = (1, 2, 3)

_ID = "masklet"


@dataclass(frozen=True)
class Propagation:
    """One frame that propagation reached."""

    index: int
    frame: MaskletFrame
    done: int  # frames so far, and in all unless a doubtful one ends it earlier
    total: int


class Segmenter:
    """Segments in one recording. Not thread-safe; stores nothing.

    Args:
        tracker: its network and settings are used; the tracker itself is left alone.
        recording: whose frames are read.
    """

    def __init__(self, tracker: Tracker, recording: Recording) -> None:
        self._tracker = _empty(tracker)
        self._predictor = tracker.image_predictor()
        self._recording = recording
        self._encoded: OrderedDict[int, PrefetchedImage] = OrderedDict()

    def encode(self, index: int) -> PrefetchedImage:
        """The features of a frame: kept for the frames that were asked for last, so that the next click is quick.

        Raises:
            ProjectError: there is no such frame, or it cannot be read.
        """
        if index not in self._encoded:
            self._encoded[index] = self._tracker.prefetch(self._recording.frame_rgb(index))
            if len(self._encoded) > CACHED_FRAMES:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(index)
        return self._encoded[index]

    def click(
        self, masklet: Masklet | None, index: int, prompts: Sequence[FramePrompt], phase: int = 3
    ) -> MaskletFrame:
        """The mask of one frame from its prompts.

        Phases 1 and 2 (SAM 2 paper, section 5) look at the frame alone. In phase 3 the masklet's other frames are
        remembered: the object is found in this frame first, unless it has a mask there, and the prompts correct that.

        Args:
            masklet: as it is now; None for a new one.
            index: of the frame.
            prompts: all of this frame, in the order given. A box starts the mask anew.
            phase: 1, 2 or 3.

        Raises:
            ProjectError: no prompt, one that does not fit the frame, a locked frame, or an unknown phase.
        """
        if phase not in PHASES:
            raise ProjectError(f"phase: expected 1, 2 or 3, got {phase}")
        if not prompts:
            raise ProjectError("expected at least one click or box; a frame without prompts is cleared, not clicked")
        if masklet is not None and masklet.is_frame_locked(index):
            raise ProjectError(f"{masklet.masklet_id} ({masklet.name}): frame {index} is locked: unlock it first")
        try:
            given = _joined(prompts)
            fit_to_image(given, *self._recording.info.size_hw)
            remembered = [] if masklet is None or phase != 3 else self._conditioning(masklet, index)
            shown = None if given.box_xyxy is not None else _visible_mask(masklet, index)
            if remembered:
                return self._click_with_memory(masklet, index, prompts, given, shown, remembered)
            if shown is not None and masklet is not None and masklet.frames[index].prompts:
                shown = None  # it is what these clicks but the last gave: they are repeated in order
            return self._click_alone(index, prompts, given, shown)
        except PromptError as error:
            raise ProjectError(str(error)) from error

    def propagate(
        self, masklet: Masklet, start: int, stop: int, until_doubtful: float | None = None
    ) -> Iterator[Propagation]:
        """Track a masklet from a frame with a mask to another one, the last included; backward if ``stop < start``.

        Locked frames, and those that a person made, steer: all of them are remembered, later ones too. A locked frame
        in the way ends it (a barrier); one that a person made is passed, and not given out.

        Args:
            masklet: as it is now.
            start, stop: frames.
            until_doubtful: stop after the first frame whose ``doubtfulness`` is at least this.

        Raises:
            ProjectError: no mask in ``start`` to begin with, or a frame outside the recording. Raised at the first
                frame, as all of this happens when the result is iterated.
        """
        if not 0 <= stop < len(self._recording):
            raise ProjectError(f"frame: expected 0 to {len(self._recording) - 1}, got {stop}")
        mask = _visible_mask(masklet, start)
        if mask is None:
            raise ProjectError(f"{masklet.masklet_id} ({masklet.name}) has no mask in frame {start} to propagate")
        path = _until_locked(masklet, start, stop)
        tracker = self._with_memory(masklet, self._conditioning(masklet, start))
        tracker.add_prompt(_ID, mask=mask)
        tracker.step(self.encode(start))
        for done, index in enumerate(path, 1):
            kept = _visible_mask(masklet, index) if masklet.is_kept(index) else None
            if kept is not None:
                tracker.add_prompt(_ID, mask=kept)
            frame = MaskletFrame.of_tracked(tracker.step(self.encode(index))[_ID])
            if masklet.is_kept(index):
                continue
            yield Propagation(index, frame, done, len(path))
            if until_doubtful is not None and frame.doubtfulness >= until_doubtful:
                return

    def _click_alone(
        self, index: int, prompts: Sequence[FramePrompt], given: Prompt, shown: NDArray[np.bool_] | None
    ) -> MaskletFrame:
        """Click after click in the frame alone, each with the logits of the one before fed back, as with SAM."""
        self._predictor.set_image(self.encode(index))
        logits = None if shown is None else logits_of_mask(self._predictor.model, shown)[None].cpu().numpy()
        count = len(given.points_xy)
        steps = range(1, count + 1) if logits is None and given.box_xyxy is None else [count]
        for points in steps:
            multimask = points == 1 and logits is None and given.box_xyxy is None
            xy, labels = given.points_xy[:points], given.labels[:points]
            best = self._predictor.predict(xy, labels, given.box_xyxy, logits, multimask).ordered()[:1]
            logits = best.logits
        quality = float(np.clip(best.scores[0], 0, 1))
        return MaskletFrame.of_mask(best.masks[0], MaskSource.CLICK, quality=quality, prompts=prompts)

    def _click_with_memory(
        self,
        masklet: Masklet | None,
        index: int,
        prompts: Sequence[FramePrompt],
        given: Prompt,
        shown: NDArray[np.bool_] | None,
        remembered: Sequence[int],
    ) -> MaskletFrame:
        assert masklet is not None
        tracker = self._with_memory(masklet, remembered)
        if shown is not None:
            tracker.add_prompt(_ID, mask=shown)
        points = given.points_xy if len(given.points_xy) else None
        tracker.add_prompt(_ID, points=points, labels=given.labels, box=given.box_xyxy)
        tracked = tracker.step(self.encode(index))[_ID]
        return MaskletFrame.of_tracked(tracked, MaskSource.CLICK, prompts)

    def _conditioning(self, masklet: Masklet, index: int) -> list[int]:
        """The frames to remember for one frame: the nearest that are kept, or else the nearest that is known."""
        others = [i for i, frame in masklet.frames.items() if i != index and frame.visible]
        kept = [i for i in others if masklet.is_kept(i)] or sorted(others, key=lambda i: (abs(i - index), i))[:1]
        return sorted(kept, key=lambda i: (abs(i - index), i))[:MAX_CONDITIONING]

    def _with_memory(self, masklet: Masklet, remembered: Sequence[int]) -> Tracker:
        """A tracker that was shown these frames of the masklet, the nearest last; without any it knows nothing."""
        tracker = _empty(self._tracker)
        for index in reversed(remembered):
            tracker.add_prompt(_ID, mask=masklet.frames[index].mask())
            tracker.step(self.encode(index))
        return tracker


def _empty(tracker: Tracker) -> Tracker:
    """A tracker without objects with the same network. A shallow copy: a tracker replaces its state as a whole."""
    other = copy.copy(tracker)
    other.reset()
    return other


def _joined(prompts: Sequence[FramePrompt]) -> Prompt:
    """All clicks of a frame as one prompt; a later box discards what came before it."""
    joined: Prompt | None = None
    for each in prompts:
        points = each.points_xy or None
        prompt = make_prompt(points, each.labels if points else None, each.box_xyxy)
        joined = prompt if joined is None else joined.followed_by(prompt)
    assert joined is not None
    return joined


def _visible_mask(masklet: Masklet | None, index: int) -> NDArray[np.bool_] | None:
    """(H, W) bool; None where the frame is not annotated, or shows nothing."""
    frame = None if masklet is None else masklet.frames.get(index)
    if frame is None or not frame.visible:
        return None
    mask = frame.mask()
    return mask if mask.any() else None


def _until_locked(masklet: Masklet, start: int, stop: int) -> list[int]:
    """The frames after ``start`` up to ``stop``, or to before the next locked one."""
    step = 1 if stop >= start else -1
    path: list[int] = []
    for index in range(start + step, stop + step, step):
        if masklet.is_frame_locked(index):
            break
        path.append(index)
    return path
