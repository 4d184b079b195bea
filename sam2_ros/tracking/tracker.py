"""``Tracker.step``: one camera image in, every object's mask and state out, for ever, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sam2_ros.model.sam2 import SAM2, MaskPrediction
from sam2_ros.tracking.heads import Frame, apply_prompt, encode_memories, follow
from sam2_ros.tracking.mask_ops import centroid_xy, label_image, tight_box_xyxy
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.preprocess import image_to_input, logits_to_image_size
from sam2_ros.tracking.prompts import Prompt, check_fits, make_prompt
from sam2_ros.tracking.track import Track
from sam2_ros.tracking.types import FrameResult, PromptError, TrackedMask

_MAX_LABEL = 65535  # what a label image of 16 bits holds


class Tracker:
    """Follows any number of objects through a stream of images.

    Objects are independent: each has its own memory, and they share one image encoding. Object ids never change and
    labels are not given twice until ``reset``. Not thread-safe: one thread calls everything.

    Args:
        model: in eval mode, on the device that is to be used.
        lost_after_frames: an object unseen for longer than this is LOST; until then it is OCCLUDED.
        corrections_are_conditioning: keep corrected frames as conditioning frames
            (``add_all_frames_to_correct_as_cond``) instead of letting them pass like tracked ones.
    """

    def __init__(self, model: SAM2, lost_after_frames: int = 30, corrections_are_conditioning: bool = False) -> None:
        config = model.config
        self._model = model
        self._device = model.no_mem_embed.device
        self._policy = BankPolicy.of(config)
        self._lost_after_frames = lost_after_frames
        self._corrections_are_conditioning = corrections_are_conditioning
        self._tracks: dict[str, Track] = {}
        self._frame_index = 0
        self._next_label = 1
        self._frame_size: tuple[int, int] | None = None

    @property
    def model_name(self) -> str:
        return self._model.config.name

    @property
    def object_ids(self) -> tuple[str, ...]:
        """Ids in order of label."""
        return tuple(self._tracks)

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(H, W) of the last image; None before the first."""
        return self._frame_size

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
        frame_size: tuple[int, int] | None = None,
    ) -> int:
        """Point at something; it takes effect in the next ``step``.

        An unknown id is a new object, segmented from the prompt alone. For a known id the next frame is tracked
        first, then corrected by the points or box; a mask replaces what was tracked. A second prompt for the same id
        before the next step replaces the first.

        Args:
            object_id: chosen by the caller, not empty.
            points: (P, 2) x, y in pixels of the camera image.
            labels: (P,) 1 = on the object, 0 = not on it.
            box: (4,) x0, y0, x1, y1 in pixels.
            mask: (H, W), non-zero = object; alone, without points or box.
            frame_size: (H, W) of the next image where the caller knows it; None: that of the last image.

        Returns:
            The object's label, 1 or more: its value in label images.

        Raises:
            PromptError: a bad prompt; nothing has changed. Before the first image its size is not known: then a prompt
                that turns out not to fit is dropped by ``step`` and named in ``FrameResult.rejected``.
        """
        prompt = make_prompt(points, labels, box, mask)
        self._check_prompt(object_id, prompt, frame_size or self._frame_size)
        if object_id not in self._tracks:
            self._tracks[object_id] = Track(object_id, self._next_label)
            self._next_label += 1
        self._tracks[object_id].pending = prompt
        return self._tracks[object_id].label

    def _check_prompt(self, object_id: str, prompt: Prompt, frame_size: tuple[int, int] | None) -> None:
        """PromptError where this prompt cannot be taken for this object now; changes nothing."""
        if not isinstance(object_id, str) or not object_id:
            raise PromptError(f"object_id: expected a non-empty string, got {object_id!r}")
        has_positive = prompt.mask is not None or prompt.box_xyxy is not None or prompt.labels.any()
        track = self._tracks.get(object_id)
        if track is None and self._next_label > _MAX_LABEL:
            raise PromptError(f"{object_id}: all labels up to {_MAX_LABEL} have been given; reset starts again at 1")
        if (track is None or not track.has_memory) and not has_positive:
            raise PromptError(f"{object_id} is new: expected at least one point labelled 1, a box or a mask")
        if frame_size is not None:
            check_fits(prompt, *frame_size)

    def clear_prompts(self, object_id: str, frame_index: int) -> None:
        """Let a prompted frame of an object count as a tracked one from now on (``clear_all_prompts_in_frame``).

        Raises:
            KeyError: unknown id.
            PromptError: not a conditioning frame of this object, or its only one.
        """
        track = self._track(object_id)
        known = ", ".join(map(str, sorted(track.conditioning))) or "none"
        if frame_index not in track.conditioning:
            raise PromptError(f"{object_id}: expected a conditioning frame of it ({known}), got frame {frame_index}")
        if len(track.conditioning) == 1:
            raise PromptError(
                f"{object_id}: frame {frame_index} is its only conditioning frame; remove the object, or give it a mask "
                "on another frame first"
            )
        track.demote(self._policy, frame_index, self._frame_index)

    def remove(self, object_id: str) -> None:
        """Forget one object. Raises KeyError for an unknown id."""
        self._track(object_id)
        del self._tracks[object_id]

    def clear(self) -> None:
        """Forget all objects; their labels are not given again."""
        self._tracks.clear()

    def reset(self) -> None:
        """As new: no objects, frames and labels count from the start."""
        self.clear()
        self._frame_index, self._next_label, self._frame_size = 0, 1, None

    @torch.inference_mode()
    def step(self, image_rgb: NDArray[np.uint8]) -> FrameResult:
        """Track every object into this image and apply the prompts that wait.

        Args:
            image_rgb: (H, W, 3) uint8, RGB.

        Raises:
            ValueError: the array is not such an image. After this or any other error nothing has changed.
        """
        started = time.perf_counter()
        _check_image(image_rgb)
        height, width = image_rgb.shape[:2]
        before = self._tracks
        self._tracks = {object_id: track.copy() for object_id, track in before.items()}
        try:
            rejected = self._drop_misfits(height, width)
            predictions = self._segment(image_rgb) if self._tracks else {}
            objects, labels_hw = self._describe(predictions, height, width)
        except BaseException:
            self._tracks = before
            raise
        self._frame_size = (height, width)
        self._frame_index += 1
        elapsed_ms = (time.perf_counter() - started) * 1e3
        return FrameResult(self._frame_index - 1, objects, labels_hw, elapsed_ms, rejected)

    def _drop_misfits(self, height: int, width: int) -> tuple[tuple[str, str], ...]:
        """Drop waiting prompts that do not fit this image, and new objects that had nothing else."""
        rejected = []
        for track in list(self._tracks.values()):
            try:
                if track.pending is not None:
                    check_fits(track.pending, height, width)
            except PromptError as error:
                rejected.append((track.object_id, str(error)))
                track.pending = None
                if not track.has_memory:
                    del self._tracks[track.object_id]
        return tuple(rejected)

    def _segment(self, image_rgb: NDArray[np.uint8]) -> dict[str, MaskPrediction]:
        """Run the model for all objects and remember the frame."""
        model, policy, tracks = self._model, self._policy, list(self._tracks.values())
        features = model.encode_image(image_to_input(image_rgb, model.config.image_size, self._device))
        frame = Frame(self._frame_index, features, *image_rgb.shape[:2])
        predictions = follow(model, frame, [t for t in tracks if t.has_memory], policy)
        prompted = [t for t in tracks if t.pending is not None]
        for track in prompted:
            predictions[track.object_id] = apply_prompt(model, frame, track, policy, predictions.get(track.object_id))
        memories = encode_memories(model, frame, predictions, [t.object_id for t in prompted])
        for track in tracks:
            # A correction passes like a tracked frame, as in the official code; a new object or a given mask stays.
            is_anchor = track.pending is not None and (
                not track.has_memory or track.pending.mask is not None or self._corrections_are_conditioning
            )
            track.remember(policy, self._frame_index, memories[track.object_id], is_anchor)
            track.pending = None
            visible = bool(predictions[track.object_id].object_score_logits_b1 > 0)
            track.update_state(self._frame_index, visible, self._lost_after_frames)
        return predictions

    def _describe(
        self, predictions: dict[str, MaskPrediction], height: int, width: int
    ) -> tuple[tuple[TrackedMask, ...], NDArray[np.uint8] | NDArray[np.uint16]]:
        tracks = [track for track in self._tracks.values() if track.object_id in predictions]
        objects: list[TrackedMask] = []

        def described() -> Iterator[NDArray[np.float32]]:
            for track in tracks:
                prediction = predictions[track.object_id]
                logits_hw = logits_to_image_size(prediction.logits_b1hw[:, 0], height, width)[0].cpu().numpy()
                objects.append(_tracked_mask(track, prediction, logits_hw))
                yield logits_hw

        labels_hw = label_image(described(), [track.label for track in tracks], height, width)
        return tuple(objects), labels_hw

    def _track(self, object_id: str) -> Track:
        if object_id not in self._tracks:
            known = ", ".join(self._tracks) or "none"
            raise KeyError(f"unknown object {object_id!r}; known objects: {known}")
        return self._tracks[object_id]


def _tracked_mask(track: Track, prediction: MaskPrediction, logits_hw: NDArray[np.float32]) -> TrackedMask:
    mask = logits_hw > 0
    return TrackedMask(
        object_id=track.object_id,
        label=track.label,
        state=track.state,
        score=float(prediction.object_score_logits_b1.sigmoid()),
        mask_quality=float(prediction.iou_b),
        mask=mask,
        area_px=int(mask.sum()),
        box_xyxy=tight_box_xyxy(mask),
        centroid_xy=centroid_xy(mask),
        low_res_logits=prediction.logits_b1hw[0, 0].cpu().numpy(),
    )


def _check_image(image_rgb: NDArray[np.uint8]) -> None:
    if not isinstance(image_rgb, np.ndarray) or image_rgb.dtype != np.uint8:
        kind = getattr(image_rgb, "dtype", type(image_rgb).__name__)
        raise ValueError(f"image: expected a uint8 array of shape (H, W, 3), RGB, got {kind}")
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or 0 in image_rgb.shape:
        raise ValueError(f"image: expected shape (H, W, 3), RGB, got {image_rgb.shape}")
