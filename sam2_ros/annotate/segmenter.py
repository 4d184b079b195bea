"""Masks of a recording for an annotator: a frame from its prompts, with or without memory, and propagation both ways.

The memories of an object are made from the stored masks alone: those of *anchors*, the
frames whose mask a person made or locked, as conditioning frames, and those of the frames just before as tracked ones.
So a result depends on what the person sees, not on how they got there, and stays the same after a restart.

Backward is forward in mirrored time: frame ``i`` has the time ``-i``, as the official predictor does with ``reverse``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource, ProjectError
from sam2_ros.data.files.masks import encode_rle
from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.image_predictor import EncodedImage, decode, logits_of_mask
from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory
from sam2_ros.tracking.prediction import conditioned_on, corrected, encode
from sam2_ros.tracking.prompts import AcceptedPrompt, Prompt, fit_to_image, make_prompt
from sam2_ros.tracking.propagation import Engine
from sam2_ros.tracking.state import Frame, RawFrame, Track
from sam2_ros.tracking.transforms import logits_to_image_size, mask_to_input
from sam2_ros.tracking.types import ObjectState, PromptAction, PromptError

T = TypeVar("T")

PHASES = (1, 2, 3)  # of the paper's data engine, section 5.1
DOUBTFUL = 0.5  # ``MaskletFrame.doubtfulness`` from which a person should look at a frame
MAX_ANCHORS = 4  # that a frame is conditioned on: each costs as much as a remembered frame
_LOST_AFTER_FRAMES = 30
_CONTEXTS = 8
_CORRECTIONS = 64


class FrameSource(Protocol):
    """Frames of one size: a ``Recording``, or the sequence of a data set."""

    def __len__(self) -> int: ...

    def frame_rgb(self, index: int, /) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        ...


@dataclass(frozen=True)
class Propagation:
    """One frame of a propagation."""

    index: int
    frames: dict[str, MaskletFrame]  # by masklet id; without those that end before, and without anchors, which are kept
    done: int  # frames so far
    total: int  # frames at most


class _KnownMasks:
    """What is stored of one object, as the network needs it."""

    def __init__(self, masklet: Masklet) -> None:
        self._masklet = masklet
        frames = masklet.frames
        self.barriers = frozenset(masklet.locked_frames)
        self.kept = frozenset(index for index in frames if masklet.is_kept(index))
        made = self.kept or {index for index, frame in frames.items() if frame.source is not MaskSource.PROPAGATED}
        self.anchors = sorted(index for index in made if frames[index].visible)
        self.mask_of = lru_cache(maxsize=16)(self._mask_of)

    def _mask_of(self, index: int) -> NDArray[np.bool_] | None:
        """(H, W) of a frame in which the object is visible; None for any other."""
        if self.code_of(index) is None:
            return None
        mask = self._masklet.frames[index].mask()
        return mask if mask.any() else None

    def code_of(self, index: int) -> Hashable:
        """What tells the mask of a frame from others, without decoding it; None where the object is not visible."""
        frame = self._masklet.frames.get(index)
        if frame is None or not frame.visible:
            return None
        counts = frame.rle["counts"]
        return counts if isinstance(counts, str | bytes) else tuple(counts)

    def near(self, index: int) -> list[int]:
        """The anchors that a frame is conditioned on, ascending: the nearest on each side, then the nearest others."""
        by_distance = sorted((a for a in self.anchors if a != index), key=lambda a: abs(a - index))
        before, after = (next((a for a in by_distance if (a < index) == side), None) for side in (True, False))
        first = [a for a in (before, after) if a is not None]
        return sorted([*first, *(a for a in by_distance if a not in first)][:MAX_ANCHORS])


class _Latest(Generic[T]):
    """The most recently used values, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._values:
            self._values[key] = make()
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


@dataclass(frozen=True)
class _Corrected:
    """One frame of an object after some of its prompts."""

    clicks: Prompt | None  # since the last mask
    prediction: MaskPrediction | None
    logits_1hw: Tensor | None = None  # of a frame from its prompts alone
    quality: float = 1.0


@dataclass(frozen=True)
class _Context:
    """What the network knows of an object in a frame before its prompts there."""

    key: Hashable
    frame: Frame  # in the time of the memory
    conditioned_bchw: Tensor
    tracked: MaskPrediction


class Segmenter:
    """The network over the frames of one recording. Not thread-safe.

    Args:
        network: in eval mode, on the device to use.
        recording: its frames are read when they are needed.
        cached_frames: encodings that are kept, those used last; 4 MB each with nano, 17 MB with SAM 2 at 1024 px.
    """

    def __init__(self, network: SAM2, recording: FrameSource, cached_frames: int = 24) -> None:
        self._network = network
        self._recording = recording
        self._policy = BankPolicy.of(network.config)
        self._engine = Engine(network, self._policy, _LOST_AFTER_FRAMES, corrections_are_conditioning=False)
        self._frames: _Latest[Frame] = _Latest(cached_frames)
        self._memories: _Latest[FrameMemory | None] = _Latest(8 * cached_frames)
        self._contexts: _Latest[_Context] = _Latest(_CONTEXTS)
        self._corrected: _Latest[_Corrected] = _Latest(_CORRECTIONS)  # so that a further click decodes once

    @torch.inference_mode()
    def encode(self, index: int, masklet: Masklet | None = None) -> None:
        """Encode a frame, and track a masklet into it, ahead of the first click."""
        frame = self._encoded(index)
        if masklet is not None and (known := _KnownMasks(masklet)).near(index):
            self._context(frame, index, known)

    @torch.inference_mode()
    def click(
        self,
        masklet: Masklet | None,
        index: int,
        prompts: Sequence[FramePrompt],
        phase: int = 3,
        painted: NDArray[np.bool_] | None = None,
    ) -> MaskletFrame:
        """One frame of an object from the prompts that it has there.

        In phases 1 and 2 from these alone, as the image predictor does. In phase 3 they correct what is predicted from
        the masks of the nearest anchors and of the frames before this one; without an anchor in another frame it is as
        in the phases before.

        Args:
            masklet: what is stored of the object; None: nothing.
            index: the frame.
            prompts: in the order given; each corrects what those before it gave.
            phase: 1, 2 or 3.
            painted: (H, W) mask that a person painted before the prompts, which they correct.

        Returns:
            The frame with these prompts; its source is CLICK, or BRUSH where ``painted`` is given.

        Raises:
            ProjectError: a prompt does not fit the frame, the first does not say where the object is, or no such frame
                or phase.
        """
        if phase not in PHASES:
            raise ProjectError(f"phase: expected 1, 2 or 3, got {phase!r}")
        frame = self._encoded(index)
        known = _KnownMasks(masklet) if masklet is not None and phase == 3 else None
        has_memory = known is not None and bool(known.near(index))
        try:
            given = _keyed_prompts(prompts, painted, frame, may_correct=has_memory)
        except PromptError as error:
            raise ProjectError(str(error)) from error
        source = MaskSource.CLICK if painted is None else MaskSource.BRUSH
        if known is None or not has_memory:
            found = self._from_prompts_alone(frame, given)
        else:
            found = self._from_memory_too(self._context(frame, index, known), given)
        return replace(found, source=source, prompts=tuple(prompts))

    @torch.inference_mode()
    def propagate(
        self, masklets: Sequence[Masklet], start: int, stop: int, until_doubtful: float | None = None
    ) -> Iterator[Propagation]:
        """Track objects from one frame to another, in either direction, each to the frame before its next locked one.

        Stop the iteration to cancel. Nothing is stored. Objects are independent: the other masklets affect
        results by rounding only.

        Args:
            masklets: each needs a visible mask in the frame ``start``, its first conditioning frame. Frames that a
                person made on the way are conditioning frames too, and kept; where the person says that the object is
                not visible, nothing is remembered of it.
            start: the frame to start from, which is not part of what comes out.
            stop: the last frame; before ``start`` to go backward.
            until_doubtful: an object ends with the first frame of at least this ``doubtfulness``.

        Raises:
            ProjectError: no such frame, or a masklet without a mask in the frame ``start``.
        """
        for name, index in (("start", start), ("stop", stop)):
            if not 0 <= index < len(self._recording):
                raise ProjectError(f"{name}: expected a frame from 0 to {len(self._recording) - 1}, got {index}")
        direction = 1 if stop >= start else -1
        objects = {masklet.masklet_id: _KnownMasks(masklet) for masklet in masklets}
        for masklet in masklets:
            if objects[masklet.masklet_id].mask_of(start) is None:
                raise ProjectError(f"{masklet.name} has no mask in frame {start} to start from: click on it first")
        tracks = {i: self._started(i, known, start, direction) for i, known in objects.items()}
        for index in range(start + direction, stop + direction, direction):
            tracks = {i: track for i, track in tracks.items() if index not in objects[i].barriers}
            if not tracks:
                return
            frame = replace(self._encoded(index), index=direction * index)
            prompts = {
                i: (AcceptedPrompt(1, PromptAction.REFINE, make_prompt(mask=mask)),)
                for i in tracks
                if index in objects[i].kept and (mask := objects[i].mask_of(index)) is not None
            }
            hidden = {i for i in tracks if index in objects[i].kept and i not in prompts}
            advanced = self._engine.settle(self._engine.look(frame, list(tracks.values()), prompts), hidden)
            tracks = advanced.tracks
            frames = {
                i: _predicted(advanced.predictions[i], frame, track.state)
                for i, track in tracks.items()
                if index not in objects[i].kept
            }
            yield Propagation(index, frames, abs(index - start), abs(stop - start))
            if until_doubtful is not None:
                doubtful = {i for i, each in frames.items() if each.doubtfulness >= until_doubtful}
                tracks = {i: track for i, track in tracks.items() if i not in doubtful}

    def _encoded(self, index: int) -> Frame:
        def make() -> Frame:
            return encode(self._network, RawFrame(index, self._recording.frame_rgb(index)))

        return self._frames.get(index, make)

    def _from_prompts_alone(self, frame: Frame, prompts: Sequence[_KeyedPrompt]) -> MaskletFrame:
        image = EncodedImage(frame.features, self._network.without_memory(frame.features), *frame.size_hw)
        key: Hashable = ("alone", frame.index)
        so_far = _Corrected(None, None)
        for each in prompts:
            key = (key, each.key)
            so_far = self._corrected.get(key, partial(self._decoded_alone, image, each.prompt, so_far))
        assert so_far.logits_1hw is not None
        return _shown(so_far.logits_1hw, frame, 1.0, so_far.quality)

    def _decoded_alone(self, image: EncodedImage, prompt: Prompt, so_far: _Corrected) -> _Corrected:
        if prompt.mask is not None:
            return _Corrected(None, None, logits_of_mask(self._network, prompt.mask)[None])
        clicks = prompt if so_far.clicks is None else so_far.clicks.followed_by(prompt)
        decoded = decode(self._network, image, [clicks], so_far.logits_1hw, multimask=clicks.num_tokens == 1)
        best = int(decoded.ious_bn[0].argmax())
        return _Corrected(clicks, None, decoded.fed_back_bnhw[0, best : best + 1], float(decoded.ious_bn[0, best]))

    def _from_memory_too(self, context: _Context, prompts: Sequence[_KeyedPrompt]) -> MaskletFrame:
        key, so_far = context.key, _Corrected(None, context.tracked)
        for each in prompts:
            key = (key, each.key)
            so_far = self._corrected.get(key, partial(self._decoded_from_memory, context, each.prompt, so_far))
        prediction = so_far.prediction
        assert prediction is not None
        is_shown = bool(prediction.object_score_logits_b1 > 0)
        if not is_shown and any(each.prompt.shows_object for each in prompts):
            # the person who clicked on the object sees it
            best = int(prediction.candidate_ious_bm[0].argmax())
            quality = float(prediction.candidate_ious_bm[0, best])
            return _shown(prediction.candidates_bmhw[0, best : best + 1].float(), context.frame, 1.0, quality)
        return _predicted(prediction, context.frame, ObjectState.TRACKED if is_shown else ObjectState.OCCLUDED)

    def _decoded_from_memory(self, context: _Context, prompt: Prompt, so_far: _Corrected) -> _Corrected:
        network, frame = self._network, context.frame
        if prompt.mask is not None:
            device = frame.features.top_bchw.device
            mask_11ss = mask_to_input(prompt.mask, network.config.image_size, device)
            return _Corrected(None, network.adopt_mask(frame.features, mask_11ss))
        clicks = prompt if so_far.clicks is None else so_far.clicks.followed_by(prompt)
        return _Corrected(clicks, corrected(network, frame, context.conditioned_bchw, clicks, so_far.prediction))

    def _started(self, object_id: str, known: _KnownMasks, start: int, direction: int) -> Track:
        """The track after the frame that propagation starts from, with the anchors behind it."""
        track = Track(object_id, 1, ObjectState.TRACKED, direction * start)
        for anchor in known.near(start):
            if direction * (anchor - start) < 0:  # those ahead are met on the way
                self._remember(track, anchor, direction, known, True)
        self._remember(track, start, direction, known, True)
        return track

    def _context(self, frame: Frame, index: int, known: _KnownMasks) -> _Context:
        """The object tracked into a frame, coming from its nearest anchor."""
        anchors = known.near(index)
        nearest = min(anchors, key=lambda anchor: abs(anchor - index))
        direction = 1 if nearest < index else -1
        reach = min(self._policy.reach, abs(index - nearest) - 1)
        between = range(index - direction * reach, index, direction)
        # Anchors before the tracked frames: to remember a frame drops those that are too old for it.
        remembered = [*((anchor, True) for anchor in anchors), *((i, False) for i in between)]
        key = (index, *((i, is_conditioning, known.code_of(i)) for i, is_conditioning in remembered))

        def make() -> _Context:
            track, timed = (
                Track("object", 1, ObjectState.TRACKED, direction * nearest),
                replace(frame, index=direction * index),
            )
            for i, is_conditioning in remembered:
                self._remember(track, i, direction, known, is_conditioning)
            conditioned_bchw = conditioned_on(self._network, timed, track, self._policy)
            return _Context(key, timed, conditioned_bchw, self._network.decode_masks(conditioned_bchw, timed.features))

        return self._contexts.get(key, make)

    def _remember(self, track: Track, index: int, direction: int, known: _KnownMasks, is_conditioning: bool) -> None:
        """Add the memory of a stored mask to a track; a frame without one is skipped."""
        if (code := known.code_of(index)) is None:
            return
        key = (index, is_conditioning, code)
        memory = self._memories.get(key, lambda: self._memory_of(index, known.mask_of(index), is_conditioning))
        if memory is not None:
            track.remember(self._policy, direction * index, memory, is_conditioning)

    def _memory_of(self, index: int, mask: NDArray[np.bool_] | None, prompted: bool) -> FrameMemory | None:
        if mask is None:
            return None
        network, frame = self._network, self._encoded(index)
        device = frame.features.top_bchw.device
        adopted = network.adopt_mask(frame.features, mask_to_input(mask, network.config.image_size, device))
        spatial_bchw = network.encode_memory(
            frame.features, adopted.logits_b1hw, adopted.object_score_logits_b1, prompted
        )
        return FrameMemory(spatial_bchw.to(torch.bfloat16), adopted.pointer_bc)


@dataclass(frozen=True)
class _KeyedPrompt:
    """A prompt as the network is given it, and what tells it from others."""

    key: Hashable
    prompt: Prompt


def _keyed_prompts(
    prompts: Sequence[FramePrompt], painted: NDArray[np.bool_] | None, frame: Frame, may_correct: bool
) -> list[_KeyedPrompt]:
    """What the network is given; PromptError where that cannot be used."""
    if not prompts:
        raise PromptError("no prompt: expected clicks or a box")
    made: list[tuple[Hashable, Prompt]] = [
        (each, make_prompt(each.points_xy or None, each.labels or None, each.box_xyxy)) for each in prompts
    ]
    if painted is not None and painted.any():
        made.insert(0, (np.packbits(painted).tobytes(), make_prompt(mask=painted)))
    given = [_KeyedPrompt(key, fit_to_image(prompt, *frame.size_hw)) for key, prompt in made]
    if not may_correct and not given[0].prompt.shows_object:
        raise PromptError(
            "the first prompt of a frame must show the object: a point labelled 1 (left click) or a box; in phase 3, "
            "points that do not belong to it correct what the memory predicts"
        )
    return given


def _shown(logits_1hw: Tensor, frame: Frame, score: float, quality: float) -> MaskletFrame:
    mask = (logits_to_image_size(logits_1hw, *frame.size_hw)[0] > 0).cpu().numpy()
    return MaskletFrame.of_mask(mask, MaskSource.PROPAGATED, score=score, quality=quality)


def _predicted(prediction: MaskPrediction, frame: Frame, state: ObjectState) -> MaskletFrame:
    score, quality = float(prediction.object_score_logits_b1.sigmoid()), float(prediction.iou_b)
    if state is not ObjectState.TRACKED:
        empty = encode_rle(np.zeros(frame.size_hw, np.bool_))
        return MaskletFrame(empty, MaskSource.PROPAGATED, state, score, quality)
    return _shown(prediction.logits_b1hw[:, 0], frame, score, quality)
