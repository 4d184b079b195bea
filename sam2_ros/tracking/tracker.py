"""``Tracker.step``: one camera image in, every object's mask and state out, for ever, in bounded memory.

What prompts do in which frame, and what is kept, is written down in ``docs/tracking.md``.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.describe import describe
from sam2_ros.tracking.engine import Engine
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.live import advance_live, drop_misfits
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.prompts import make_prompt
from sam2_ros.tracking.propagation import AheadImage, RawFrame, encode
from sam2_ros.tracking.replay import catch_up
from sam2_ros.tracking.state import StreamState
from sam2_ros.tracking.state_io import from_plain, to_plain
from sam2_ros.tracking.taking_prompts import action_for, frame_for, take_back, take_prompt
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.transforms import check_image
from sam2_ros.tracking.types import FrameResult, PromptAction, PromptError

_MIN_REPLAYED_FRAMES = 2  # before each new one: an object that is behind comes nearer whatever the budget


class Tracker:
    """Follows any number of objects through a stream of images.

    Objects are independent: each has its own memory, and they share one image encoding. Object ids never change and
    labels are not given twice until ``reset``. Not thread-safe: one thread calls everything but ``encode_ahead``. A
    call that raises has changed nothing.

    Args:
        model: in eval mode, on the device that is to be used.
        lost_after_frames: an object unseen for longer than this is LOST; until then it is OCCLUDED.
        corrections_are_conditioning: keep corrected frames as conditioning frames
            (``add_all_frames_to_correct_as_cond``) instead of letting them pass like tracked ones.
        buffer_frames: so many past frames can be prompted, and prompts in them be undone; their features stay on the
            device.
        catchup_budget_ms: time that a ``step`` takes to bring objects up to now whose past was changed; None: as long
            as it takes. Two frames are gone through in any case.
        recover_after_frames: an object that is OCCLUDED or LOST is TRACKED again, and has a mask, when it was visible
            in so many frames in a row, or was prompted.
    """

    def __init__(
        self,
        model: SAM2,
        lost_after_frames: int = 30,
        corrections_are_conditioning: bool = False,
        buffer_frames: int = 0,
        catchup_budget_ms: float | None = None,
        recover_after_frames: int = 1,
    ) -> None:
        if recover_after_frames < 1:
            raise ValueError(f"recover_after_frames: expected 1 or more, got {recover_after_frames}")
        if buffer_frames < 0:
            raise ValueError(f"buffer_frames: expected 0 or more, got {buffer_frames}")
        policy = BankPolicy.of(model.config)
        self._engine = Engine(model, policy, lost_after_frames, corrections_are_conditioning, recover_after_frames)
        self._buffer_frames = buffer_frames
        self._catchup_budget_ms = catchup_budget_ms
        self._state = StreamState()

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
        """How many frames each object has to be taken through until it is up to now; only those with any."""
        state = self._state
        return {object_id: state.next_frame - replay.next_index for object_id, replay in state.replays.items()}

    def image_predictor(self) -> ImagePredictor:
        """For single images with the same network; nothing that it does touches what is tracked."""
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
        """Point at something in the next frame, or in a past one that is still kept.

        ADD starts an object from the prompt alone. REFINE corrects a known one: it is tracked into the frame first,
        then corrected by the points or the box; a mask is taken as it is. Several prompts for one frame add up.
        REPLACE starts a known object again. After a prompt for a past frame the object is brought up to now by
        ``step`` or ``catch_up``, as if the prompt had come in time.

        Args:
            object_id: chosen by the caller, not empty.
            points: (P, 2) x, y in pixels of the camera image.
            labels: (P,) 1 = on the object, 0 = not on it.
            box: (4,) x0, y0, x1, y1 in pixels.
            mask: (H, W), non-zero = object; alone, without points or box.
            action: ADD, REFINE or REPLACE; None: ADD for an unknown id, REFINE for a known one.
            frame_index: of the frame that is meant; None: the next one.
            stamp_s: in place of ``frame_index``: when the image was taken. The frame nearest to it is meant.
            frame_size: (H, W) of the next image where the caller knows it; None: that of the last image.

        Returns:
            The object's label, 1 or more: its value in label images.

        Raises:
            PromptError: a bad prompt; nothing has changed. Before the first image its size is not known: then a prompt
                that turns out not to fit is dropped by ``step`` and named in ``FrameResult.rejected``.
        """
        prompt = make_prompt(points, labels, box, mask)
        state = self._state.copy()
        action = action_for(state, object_id, prompt, action)
        index = frame_for(state, frame_index, stamp_s)
        take_prompt(state, object_id, prompt, action, index, frame_size or state.frame_size)
        self._state = state
        return state.tracks[object_id].label

    def undo(self, object_id: str) -> None:
        """Take back the latest prompt of an object, whichever frame it was for: the object as it were without it.

        Raises:
            KeyError: unknown id.
            PromptError: nothing to undo: it has only its first prompt, or the frame is not kept any more.
        """
        self._track(object_id)
        state = self._state.copy()
        take_back(state, object_id)
        self._state = state

    def clear_prompts(self, object_id: str, frame_index: int) -> None:
        """Let a prompted frame of an object count as a tracked one from now on (``clear_all_prompts_in_frame``).

        Raises:
            KeyError: unknown id.
            PromptError: not a conditioning frame of this object, or its only one.
        """
        track = self._track(object_id).copy()
        known = ", ".join(map(str, sorted(track.conditioning))) or "none"
        if object_id in self._state.replays:
            raise PromptError(f"{object_id} is still being brought up to now: call catch_up first")
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
        """Forget one object. Raises KeyError for an unknown id."""
        self._track(object_id)
        state = self._state.copy()
        state.forget([object_id])
        self._state = state

    def clear(self) -> None:
        """Forget all objects; their labels are not given again. Past frames can still be prompted."""
        state = self._state.copy()
        state.forget(self.object_ids)
        self._state = state

    def reset(self) -> None:
        """As new: no objects and no past; frames and labels count from the start."""
        self._state = StreamState()

    @torch.inference_mode()
    def catch_up(self, budget_ms: float | None = None) -> int:
        """Bring objects up to now whose past was changed, for callers with time to spare between images.

        Args:
            budget_ms: stop after this time, but not before one frame has been gone through; None: no limit.

        Returns:
            How many frames are left for the object that is furthest behind; 0 = all are up to now.
        """
        state = self._state.copy()
        catch_up(self._engine, state, budget_ms, min_frames=1)
        self._state = state
        return max(self.frames_behind.values(), default=0)

    @torch.inference_mode()
    def encode_ahead(self, image_rgb: NDArray[np.uint8]) -> AheadImage:
        """Do the part of a later ``step`` that needs the image alone, on any thread: while another one is at work.

        Args:
            image_rgb: (H, W, 3) uint8, RGB; not to be written to before its ``step``.

        Raises:
            ValueError: the array is not such an image.
        """
        started = time.perf_counter()
        check_image(image_rgb)
        network = self._engine.model
        features = encode(network, RawFrame(0, image_rgb)).features
        return AheadImage(image_rgb, features, network, (time.perf_counter() - started) * 1e3)

    @torch.inference_mode()
    def step(self, image: NDArray[np.uint8] | AheadImage, stamp_s: float | None = None) -> FrameResult:
        """Track every object into this image and apply the prompts that wait.

        Args:
            image: (H, W, 3) uint8, RGB; or what ``encode_ahead`` of a tracker with this network has made of one.
            stamp_s: when it was taken, for prompts that name a time.

        Raises:
            ValueError: the array is not such an image, another network has encoded it, or the time is not a finite
                number. After this or any other error nothing has changed.
        """
        started = time.perf_counter()
        if isinstance(image, AheadImage):
            if image.network is not self._engine.model:
                raise ValueError("image: expected one that this tracker's network has encoded, got another network's")
            started -= image.encode_ms / 1e3  # the model's time for this image, whenever it was spent
            image_rgb = image.image_rgb
        else:
            image_rgb = image
        check_image(image_rgb)
        if stamp_s is not None:
            stamp_s = float(stamp_s)
            if not math.isfinite(stamp_s):
                raise ValueError(f"stamp_s: expected a finite time in seconds or None, got {stamp_s}")
        height, width = image_rgb.shape[:2]
        state = self._state.copy()
        catch_up(self._engine, state, self._catchup_budget_ms, _MIN_REPLAYED_FRAMES)
        drop_misfits(state, height, width)
        predictions = advance_live(self._engine, state, image, stamp_s, self._buffer_frames)
        objects, labels_hw = describe(state.tracks.values(), predictions, height, width)
        rejected, state.rejected = state.rejected, ()
        self._state = state
        return FrameResult(state.next_frame - 1, objects, labels_hw, (time.perf_counter() - started) * 1e3, rejected)

    def save_state(self) -> dict[str, Any]:
        """The objects and their memories as plain values, for ``torch.save``; see ``session_state``.

        Objects that are behind are brought up to now first. Past frames are not saved.
        """
        self.catch_up()
        return to_plain(self._engine.model, self._state)

    def load_state(self, state: object) -> None:
        """Go on with the objects of a saved state, in place of those of now.

        Raises:
            SessionStateError: a damaged state, or one of another model; nothing has changed.
        """
        self._state = from_plain(self._engine.model, self._engine.policy, state)

    def _track(self, object_id: str) -> Track:
        tracks = self._state.tracks
        if object_id not in tracks:
            known = ", ".join(tracks) or "none"
            raise KeyError(f"unknown object {object_id!r}; known objects: {known}")
        return tracks[object_id]
