"""The tracker: ``step`` takes one camera image and returns the mask and state of every object, in bounded memory.

``docs/tracking.md`` specifies what prompts do in which frame, and what is kept.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.prediction import encode
from sam2_ros.tracking.prompts import STAMP_SLOP_S, make_prompt
from sam2_ros.tracking.propagation import Engine, propagate
from sam2_ros.tracking.replay import (
    accept_prompt,
    catch_up,
    resolve_action,
    resolve_frame,
    settle_waiting_prompts,
    undo_prompt,
)
from sam2_ros.tracking.results import build_result
from sam2_ros.tracking.rules.memory_selection import bank_policy
from sam2_ros.tracking.rules.quality import Calibration
from sam2_ros.tracking.runtime.free_cores import FOLLOWER
from sam2_ros.tracking.state import PrefetchedImage, RawFrame, StreamState, Track, When
from sam2_ros.tracking.state_io import from_plain, to_plain
from sam2_ros.tracking.types import FrameResult, PromptAction, PromptError, check_image
from sam2_ros.tracking.zoom.window import MAX_ZOOMED_OBJECTS

_MIN_REPLAYED_FRAMES = (
    2  # before each new frame, whatever the budget: an object that is behind always gains on the stream
)


class Tracker:
    """Tracks any number of objects through a stream of images.

    Objects are independent: each has its own memory, and they share one image encoding. An object id always names the
    same object, and a label is not reused until ``reset``. Not thread-safe: all calls but ``prefetch`` come from one
    thread. A call that raises has changed nothing.

    Args:
        model: in eval mode, on the device to use.
        lost_after_frames: an object not seen for longer than this is LOST; until then it is OCCLUDED.
        corrections_are_conditioning: make corrected frames conditioning frames (``add_all_frames_to_correct_as_cond``)
            instead of tracked ones.
        buffer_frames: number of past frames that can be prompted, and whose prompts can be undone; their features stay
            on the device.
        catchup_budget_ms: time that a ``step`` spends on replaying objects whose past was changed; None: no limit. Two
            frames are replayed in any case.
        recover_after_frames: an OCCLUDED or LOST object is TRACKED again, and has a mask, once it was visible in this
            many consecutive frames, or was prompted.
        zoom: look for one or two objects in a window round each one's last mask, at the full resolution of the image;
            in the whole image while an object is not visible, and with more objects. Each window is encoded for
            itself.
        memory_selection: which tracked frames memories are made of: "recent", those just before, as SAM 2 does;
            "confident" leaves frames out in which the object was hardly seen; "distractor" takes frames further apart,
            and keeps those that told the object from a rival; "auto": what the network's table names, the last for
            nano, the first for all others. See ``rules/memory_selection.py``.
        crowd_suppression: of two objects with nearly the same mask the one that was hidden more recently loses it in
            this frame, and its memory of the frame is not kept.
        lookalike_doubt: of two objects that look alike and met, or were out of sight together, the motion must say
            which is which; where it does not, both are without a mask until a prompt does, with
            ``TrackedMask.doubted_with``. See ``rules/lookalikes.py``.
        scene_changes: notice cuts, and a camera that is covered or frozen, in ``FrameResult.scene``; no memory
            reaches across a cut, and none is made of a covered or frozen image.
        lost_after_s, recover_after_s: above 0 in place of ``lost_after_frames`` and ``recover_after_frames``, by the
            stamps of the images; of images without stamps the frames count.
        stamp_slop_s: how far the stamp of a prompt may be from that of its image; more where images come seldom, see
            ``allowed_slop_s``.
        calibration: of ``mask_quality``; None: as the network gives it.
        follow_load: on a CPU, let PyTorch's number of threads (one for the whole process) follow the cores that other
            processes leave free, see ``free_cores``; what it is at the first ``step`` is the most.
    """

    def __init__(
        self,
        model: SAM2,
        lost_after_frames: int = 30,
        corrections_are_conditioning: bool = False,
        buffer_frames: int = 0,
        catchup_budget_ms: float | None = None,
        recover_after_frames: int = 1,
        zoom: bool = False,
        memory_selection: str = "auto",
        crowd_suppression: bool = False,
        lookalike_doubt: bool = False,
        scene_changes: bool = False,
        lost_after_s: float = 0.0,
        recover_after_s: float = 0.0,
        stamp_slop_s: float = STAMP_SLOP_S,
        calibration: Calibration | None = None,
        follow_load: bool = False,
    ) -> None:
        if recover_after_frames < 1:
            raise ValueError(f"recover_after_frames: expected 1 or more, got {recover_after_frames}")
        for name, seconds in (("lost_after_s", lost_after_s), ("recover_after_s", recover_after_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"{name}: expected 0 or more seconds, got {seconds}")
        if buffer_frames < 0:
            raise ValueError(f"buffer_frames: expected 0 or more, got {buffer_frames}")
        policy = bank_policy(model.config, memory_selection)
        self._engine = Engine(
            model,
            policy,
            lost_after_frames,
            corrections_are_conditioning,
            recover_after_frames,
            zoom,
            crowd_suppression,
            lost_after_s,
            recover_after_s,
            lookalike_doubt,
        )
        self._scene_changes = scene_changes
        self._calibration = calibration or Calibration()
        self._buffer_frames = buffer_frames
        self._stamp_slop_s = stamp_slop_s
        self._catchup_budget_ms = catchup_budget_ms
        self._follows_load = follow_load and model.no_mem_embed.device.type == "cpu"
        self._state = StreamState()

    @property
    def network(self) -> SAM2:
        return self._engine.model

    @property
    def model_name(self) -> str:
        return self._engine.model.config.name

    @property
    def object_ids(self) -> tuple[str, ...]:
        """Ids in order of label."""
        return tuple(self._state.tracks)

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(H, W) of the last image; None before the first."""
        return self._state.frame_size

    @property
    def frames_behind(self) -> dict[str, int]:
        """Number of frames still to be replayed, by id of the objects that are behind."""
        state = self._state
        return {object_id: state.next_frame - replay.next_index for object_id, replay in state.replays.items()}

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """(object_id, what was changed) of the prompts accepted since the last image; as in the next result."""
        return self._state.notes

    def follow_load(self) -> None:
        """Choose the number of threads for what comes, as each ``step`` does but one with a prefetched image."""
        if self._follows_load:
            FOLLOWER.follow()

    def image_predictor(self) -> ImagePredictor:
        """A predictor for single images that shares the network and leaves the tracked objects alone."""
        return ImagePredictor(self._engine.model)

    def label_of(self, object_id: str) -> int:
        return self._track(object_id).label

    def add_prompt(
        self,
        object_id: str,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        action: PromptAction | None = None,
        frame_index: int | None = None,
        stamp_s: float | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> int:
        """Prompt an object in the next frame, or in a past one that is still in the buffer.

        ADD starts an object from the prompt alone. REFINE corrects a known one: it is tracked into the frame first,
        then corrected by the points or the box; a mask replaces the predicted one. Several prompts for one frame
        accumulate. REPLACE starts a known object again. After a prompt for a past frame, ``step`` and ``catch_up``
        replay the object until it is as if the prompt had come in time.

        Args:
            object_id: any non-empty string.
            points: (P, 2) x, y in pixels of the camera image.
            labels: (P,) 1 = on the object, 0 = not on it.
            box: (4,) x0, y0, x1, y1 in pixels.
            mask: (H, W), non-zero = object; without points or box.
            action: ADD, REFINE or REPLACE; None: ADD for an unknown id, REFINE for a known one.
            frame_index: the frame to prompt; None: the next one.
            stamp_s: instead of ``frame_index``, when the image was taken; the nearest frame in the buffer is prompted,
                or the next one for a later time.
            frame_size: (H, W) of the next image if the caller knows it; None: that of the last image.

        Returns:
            The object's label, 1 or more: its value in label images.

        Raises:
            PromptError: the prompt is rejected; nothing has changed. Of the next image, time and at first size are
                unknown: a prompt that turns out not to fit is rejected by ``step``, in ``FrameResult.rejected``.
        """
        prompt = make_prompt(points, labels, box, mask)
        state = self._state.copy()
        action = resolve_action(state, object_id, prompt, action)
        index = resolve_frame(state, frame_index, stamp_s, self._stamp_slop_s)
        accept_prompt(state, object_id, prompt, action, index, frame_size or state.frame_size, stamp_s)
        self._state = state
        return state.tracks[object_id].label

    def undo(self, object_id: str) -> None:
        """Undo the latest prompt of an object, whichever frame it was for, as if it had never been given.

        Raises:
            KeyError: unknown id.
            PromptError: nothing to undo: the object has only its first prompt, or the frame has left the buffer.
        """
        self._track(object_id)
        state = self._state.copy()
        undo_prompt(state, object_id)
        self._state = state

    def clear_prompts(self, object_id: str, frame_index: int) -> None:
        """Turn a conditioning frame of an object into a tracked one (``clear_all_prompts_in_frame``).

        Raises:
            KeyError: unknown id.
            PromptError: not a conditioning frame of this object, or its only one.
        """
        track = self._track(object_id).copy()
        known = ", ".join(map(str, sorted(track.conditioning))) or "none"
        if object_id in self._state.replays:
            raise PromptError(f"{object_id} is still being replayed: call catch_up first")
        if frame_index not in track.conditioning:
            raise PromptError(f"{object_id}: expected a conditioning frame of it ({known}), got frame {frame_index}")
        if len(track.conditioning) == 1:
            raise PromptError(
                f"{object_id}: frame {frame_index} is its only conditioning frame; remove the object, or give it a "
                "mask on another frame first"
            )
        state = self._state.copy()
        track.demote(self._engine.policy, frame_index, state.next_frame)
        state.tracks[object_id] = track
        state.cleared[object_id] = (*state.cleared.get(object_id, ()), frame_index)
        self._state = state

    def remove(self, object_id: str) -> None:
        """Remove one object. Raises KeyError for an unknown id."""
        self._track(object_id)
        state = self._state.copy()
        state.forget([object_id])
        self._state = state

    def clear(self) -> None:
        """Remove all objects. Their labels are not reused; frames in the buffer can still be prompted."""
        state = self._state.copy()
        state.forget(self.object_ids)
        self._state = state

    def reset(self) -> None:
        """Return to the initial state: no objects, no buffer; frame indices and labels start again."""
        self._state = StreamState()

    @torch.inference_mode()
    def catch_up(self, budget_ms: float | None = None) -> int:
        """Replay objects whose past was changed, for callers with time to spare between images.

        Args:
            budget_ms: stop after this time, but not before one frame is replayed; None: no limit.

        Returns:
            Number of frames left for the object that is furthest behind; 0 = none is behind.
        """
        state = self._state.copy()
        catch_up(self._engine, state, budget_ms, min_frames=1)
        self._state = state
        return max(self.frames_behind.values(), default=0)

    @torch.inference_mode()
    def prefetch(self, image_rgb: NDArray[np.uint8]) -> PrefetchedImage:
        """Encode an image ahead of its ``step``, which needs no tracker state; may run beside it on another thread.

        With ``zoom`` and one or two objects nothing is encoded: which part of the image is looked at follows from the
        masks of the step before.

        Args:
            image_rgb: (H, W, 3) uint8, RGB; must not be written to before its ``step``.

        Raises:
            ValueError: not such an array.
        """
        started = time.perf_counter()
        check_image(image_rgb)
        network = self._engine.model
        zooms = self._engine.zoom and 1 <= len(self._state.tracks) <= MAX_ZOOMED_OBJECTS
        features = None if zooms else encode(network, RawFrame(0, image_rgb)).features
        return PrefetchedImage(image_rgb, features, network, (time.perf_counter() - started) * 1e3)

    @torch.inference_mode()
    def step(
        self, image: NDArray[np.uint8] | PrefetchedImage, stamp_s: float | None = None, time_s: float | None = None
    ) -> FrameResult:
        """Track every object into this image and apply the waiting prompts.

        Args:
            image: (H, W, 3) uint8, RGB; or the result of ``prefetch``, of any tracker with this network.
            stamp_s: when it was taken, for prompts that name a time.
            time_s: the same by a clock that neither jumps nor goes back, for settings in seconds; None: ``stamp_s``.

        Raises:
            ValueError: not such an array, prefetched with another network, or a time that is not finite. After this or
                any other error nothing has changed.
        """
        started = time.perf_counter()
        if isinstance(image, PrefetchedImage):
            if image.network is not self._engine.model:
                raise ValueError("image: expected one prefetched with this tracker's network, got another network's")
            started -= image.encode_ms / 1e3  # count the model's time for this image wherever it was spent
            image_rgb = image.image_rgb
        else:
            self.follow_load()
            image_rgb = image
        check_image(image_rgb)
        if stamp_s is not None:
            stamp_s = float(stamp_s)
            if not math.isfinite(stamp_s):
                raise ValueError(f"stamp_s: expected a finite time in seconds or None, got {stamp_s}")
        height, width = image_rgb.shape[:2]
        state = self._state.copy()
        if state.waiting:
            settle_waiting_prompts(state, height, width, stamp_s, self._stamp_slop_s)
        if state.replays:
            catch_up(self._engine, state, self._catchup_budget_ms, _MIN_REPLAYED_FRAMES)
        when = When(stamp_s, time_s=stamp_s if time_s is None else time_s)
        if self._scene_changes:
            state.watch, scene = state.watch.observe(image_rgb, when.time_s)
            when = replace(when, scene=scene)
        advanced = propagate(self._engine, state, image, when, self._buffer_frames)
        above_logit = self._engine.model.config.visible_above_logit
        result = build_result(state, advanced, (height, width), when.scene, started, self._calibration, above_logit)
        state.rejected = state.notes = ()
        self._state = state
        return result

    def save_state(self) -> dict[str, Any]:
        """The objects and their memories as plain values, for ``torch.save``; see ``state_io``.

        Objects that are behind are replayed first. The buffer of past frames is not saved.
        """
        self.catch_up()
        return to_plain(self._engine.model, self._engine.policy, self._state)

    def load_state(self, state: object) -> None:
        """Replace the objects by those of a saved state.

        Raises:
            sam2_ros.saved_values.SavedStateError: damaged, or of another model; nothing has changed.
        """
        self._state = from_plain(self._engine.model, self._engine.policy, state)

    def _track(self, object_id: str) -> Track:
        tracks = self._state.tracks
        if object_id not in tracks:
            known = ", ".join(tracks) or "none"
            raise KeyError(f"unknown object {object_id!r}; known objects: {known}")
        return tracks[object_id]
