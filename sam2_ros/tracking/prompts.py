"""Prompts: validated before they change anything, the frame that each is for, and their form as model input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sam2_ros.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PointPrompts
from sam2_ros.tracking.types import PromptAction, PromptError

MAX_POINTS = 256  # of one prompt: each is a token, and thousands of them hold the model for a minute
STAMP_SLOP_S = 0.5  # an object may be elsewhere in an image that was taken so much earlier or later
MOST_SLOPS = 5  # where images are processed seldom, stamps may be farther from them, but not farther than so many slops
_GAP_SHARE = 0.75  # of the usual gap: half of it, and more because the gaps vary
_LEAST_GAPS = 2  # one may be a pause of the camera
KEEP_MORE = "keep more images (prompt_buffer_s of the node, buffer_frames of load_tracker)"
_THINNEST_BOX_PX = 0.999  # a pixel, as far as float32 can tell in a large image


@dataclass(frozen=True)
class Prompt:
    """Points and at most one box, or a mask alone; in pixels of the camera image."""

    points_xy: NDArray[np.float32]  # (P, 2)
    labels: NDArray[np.int64]  # (P,) 1 = on the object, 0 = not on it
    box_xyxy: NDArray[np.float32] | None  # (4,)
    mask: NDArray[np.bool_] | None  # (H, W)

    @property
    def num_tokens(self) -> int:
        """Number of prompt tokens of the model: one per point, two for a box."""
        return len(self.points_xy) + (0 if self.box_xyxy is None else 2)

    @property
    def shows_object(self) -> bool:
        """Whether it says where the object is: a mask, a box or a positive point."""
        return self.mask is not None or self.box_xyxy is not None or bool(self.labels.any())

    def followed_by(self, later: Prompt) -> Prompt:
        """The points of both prompts; a later box defines the object anew, so it discards what came before."""
        if later.box_xyxy is not None:
            return later
        return Prompt(
            np.concatenate((self.points_xy, later.points_xy)),
            np.concatenate((self.labels, later.labels)),
            self.box_xyxy,
            None,
        )


@dataclass(frozen=True)
class AcceptedPrompt:
    """An accepted prompt for one object in one frame."""

    number: int  # 1, 2, ... in the order of acceptance, over all objects
    action: PromptAction  # ADD, REFINE or REPLACE
    prompt: Prompt
    stamp_s: float | None = None  # of the image it is for, where that is still to come; not saved


def since_replaced(given: Sequence[AcceptedPrompt]) -> Sequence[AcceptedPrompt]:
    """Those of one frame's prompts that are in effect: the latest REPLACE discards the earlier ones."""
    starts = [place for place, each in enumerate(given) if each.action is PromptAction.REPLACE]
    return given[starts[-1] :] if starts else given


def make_prompt(
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    box: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Prompt:
    """Validate the parts of a prompt that do not depend on an image.

    Raises:
        PromptError: what was expected and what came.
    """
    points_xy = np.zeros((0, 2), np.float32) if points is None else _array(points, "points", np.float32)
    if points_xy.size == 0:
        points_xy = points_xy.reshape(0, 2)
    if points_xy.ndim != 2 or points_xy.shape[1] != 2:
        raise PromptError(f"points: expected shape (P, 2), x and y in pixels, got {points_xy.shape}")
    if len(points_xy) > MAX_POINTS:
        raise PromptError(f"points: expected at most {MAX_POINTS} in a prompt, got {len(points_xy)}; a mask says more")
    if labels is None and len(points_xy):
        raise PromptError(
            f"labels: expected one per point, 1 = object or 0 = not object, got none for {len(points_xy)} points"
        )
    label_values = np.zeros(0) if labels is None else _array(labels, "labels", np.float64)
    if label_values.shape != (len(points_xy),):
        raise PromptError(f"labels: expected as many as points ({len(points_xy)}), got {label_values.size}")
    if not np.isin(label_values, (0, 1)).all():
        raise PromptError(f"labels: expected only 1 (object) and 0 (not object), got {label_values.tolist()}")
    box_xyxy = None if box is None else _checked_box(box)
    checked_mask = None if mask is None else _checked_mask(mask)
    if not np.isfinite(points_xy).all():
        raise PromptError(f"points: expected finite pixel coordinates, got {points_xy.tolist()}")
    if checked_mask is not None and (len(points_xy) or box_xyxy is not None):
        raise PromptError("a mask stands alone: expected either a mask or points and a box, got both")
    if checked_mask is None and not len(points_xy) and box_xyxy is None:
        raise PromptError("empty prompt: expected points with labels, a box or a mask")
    return Prompt(points_xy, label_values.astype(np.int64), box_xyxy, checked_mask)


def fit_to_image(prompt: Prompt, height: int, width: int) -> Prompt:
    """The prompt for an image of this size: a box that reaches outside is clipped, as detectors give such boxes.

    Raises:
        PromptError: a point lies outside the image, less than a pixel of the box lies inside, or the mask is of
            another size.
    """
    inside = (prompt.points_xy >= 0).all(1) & (prompt.points_xy < (width, height)).all(1)
    if not inside.all():
        raise PromptError(
            f"points: expected 0 <= x < {width} and 0 <= y < {height} (the image is {width}x{height}), "
            f"got {prompt.points_xy[~inside][0].tolist()}"
        )
    if prompt.mask is not None and prompt.mask.shape != (height, width):
        raise PromptError(
            f"mask: expected the image's size, {height} rows of {width}, got {prompt.mask.shape[0]} rows of "
            f"{prompt.mask.shape[1]}"
        )
    if prompt.box_xyxy is None:
        return prompt
    clipped_xyxy = np.clip(prompt.box_xyxy, 0, np.array([width, height, width, height], np.float32))
    if np.array_equal(clipped_xyxy, prompt.box_xyxy):
        return prompt
    if (clipped_xyxy[2:] - clipped_xyxy[:2]).min() < _THINNEST_BOX_PX:
        raise PromptError(
            f"box: expected x0, y0, x1, y1 with at least a pixel within the image of {width}x{height}, "
            f"got {prompt.box_xyxy.tolist()}"
        )
    return replace(prompt, box_xyxy=clipped_xyxy)


def clipping_note(given: Prompt, fitted: Prompt) -> str:
    """What ``fit_to_image`` did to the box, for people; empty when it did nothing."""
    if given.box_xyxy is None or fitted.box_xyxy is None or np.array_equal(given.box_xyxy, fitted.box_xyxy):
        return ""
    return f"the box {given.box_xyxy.tolist()} reaches outside the image and is clipped to {fitted.box_xyxy.tolist()}"


def to_model_points(prompt: Prompt, height: int, width: int, image_size: int, device: torch.device) -> PointPrompts:
    """Points and box in pixels of the square model input, (1, P, 2); a box comes first, as its two corners."""
    xy, labels = prompt.points_xy, prompt.labels
    if prompt.box_xyxy is not None:
        xy = np.concatenate((prompt.box_xyxy.reshape(2, 2), xy))
        labels = np.concatenate(([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], labels))
    # Divide in float32 before scaling, in the order of the official code, so that rounding agrees.
    xy_norm = torch.from_numpy(xy) / torch.tensor([width, height], dtype=torch.float32)
    return PointPrompts((xy_norm * image_size)[None].to(device), torch.from_numpy(labels)[None].to(device))


def _array(values: ArrayLike, name: str, dtype: type) -> NDArray:
    try:
        return np.array(values, dtype=dtype)  # a copy: the caller may reuse the array before the next frame
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name}: expected numbers, got {values!r}") from error


def _checked_box(box: ArrayLike) -> NDArray[np.float32]:
    values = _array(box, "box", np.float32).reshape(-1)
    if values.shape != (4,) or not np.isfinite(values).all():
        raise PromptError(f"box: expected four finite numbers x0, y0, x1, y1 in pixels, got {values.tolist()}")
    if values[0] >= values[2] or values[1] >= values[3]:
        raise PromptError(f"box: expected x0 < x1 and y0 < y1, got {values.tolist()}")
    if (values[2:] - values[:2]).min() < _THINNEST_BOX_PX:
        raise PromptError(f"box: expected at least one pixel in width and height, got {values.tolist()}")
    return values


def _checked_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    try:
        values = np.asarray(mask)
        pixels = values.astype(bool)
    except (TypeError, ValueError) as error:
        raise PromptError(f"mask: expected rows of numbers, all of one length ({error})") from error
    if values.ndim != 2:
        raise PromptError(f"mask: expected shape (H, W), got {values.shape}")
    if not pixels.any():
        raise PromptError("mask: expected at least one pixel set, got an empty mask")
    return pixels


# The frame that a prompt is for; ``kept_s``: the stamps of the frames in the buffer, None where one has none ---------


def frame_of_index(kept_s: Mapping[int, float | None], next_frame: int, frame_index: int) -> int:
    """``frame_index``, if a prompt can be applied to it: the next frame or one in the buffer.

    Raises:
        PromptError: it is not in the buffer; the message says how old it is and how far back the buffer reaches.
    """
    if isinstance(frame_index, bool) or not isinstance(frame_index, int) or not 0 <= frame_index <= next_frame:
        raise PromptError(f"frame_index: expected a frame from 0 to {next_frame} (the next), got {frame_index!r}")
    if frame_index == next_frame or frame_index in kept_s:
        return frame_index
    latest = next_frame - 1
    raise PromptError(
        f"frame {frame_index} is too old: it came {latest - frame_index} frames before the latest ({latest}), and "
        f"{reach(kept_s)}; prompt a later frame, or {KEEP_MORE}"
    )


def frame_of_stamp(
    kept_s: Mapping[int, float | None], next_frame: int, latest_s: float | None, stamp_s: float, slop_s: float
) -> int:
    """The frame that a prompt with this stamp is for: the nearest one in the buffer, or the next for a later time.

    Raises:
        PromptError: the stamp is older than the buffer, or too far from every image (``allowed_slop_s``); the message
            says by how much, and how far back the buffer reaches.
    """
    if not math.isfinite(stamp_s):
        raise PromptError(f"stamp: expected a finite time in seconds, got {stamp_s}")
    if next_frame == 0:
        return next_frame
    if latest_s is None:
        raise PromptError(f"stamp: the latest image came without one, so no image can be found for {stamp_s:.3f} s")
    times_s = [each_s for each_s in kept_s.values() if each_s is not None]
    allowed_s = allowed_slop_s(kept_s, slop_s)
    # Not the latest stamp alone: with two clocks in turn it may be of another time than the image that is meant.
    if stamp_s > latest_s and not any(0 <= each_s - stamp_s <= allowed_s for each_s in times_s):
        return next_frame
    if not times_s or stamp_s < min(times_s):
        seconds = f", {latest_s - min(times_s):.2f} s" if times_s else ""
        raise PromptError(
            f"the image is too old: taken {latest_s - stamp_s:.2f} s before the latest, and {reach(kept_s)}{seconds}; "
            f"prompt a newer image, or {KEEP_MORE}"
        )
    nearest, nearest_s = nearest_frame(kept_s, stamp_s) or (next_frame, math.inf)
    check_slop(stamp_s, nearest_s, allowed_s, "the nearest image")
    return nearest


def nearest_frame(kept_s: Mapping[int, float | None], stamp_s: float) -> tuple[int, float] | None:
    """The frame in the buffer that was taken nearest to this time, and its stamp; None where none has a stamp."""
    found = [(abs(each_s - stamp_s), index, each_s) for index, each_s in kept_s.items() if each_s is not None]
    return min(found)[1:] if found else None


def allowed_slop_s(kept_s: Mapping[int, float | None], slop_s: float) -> float:
    """How far the stamp of a prompt may be from that of its image: ``slop_s``, and more for a slow model.

    Between two images that a slow model processes the camera sends many others, and a user may have seen any of them:
    such a stamp is up to half of the usual gap away. A single gap may be a pause, in which objects go anywhere.
    """
    times_s = sorted(each_s for each_s in kept_s.values() if each_s is not None)  # of two clocks in turn: of each
    gaps_s = sorted(after - before for before, after in itertools.pairwise(times_s))
    if len(gaps_s) < _LEAST_GAPS:
        return slop_s
    usual_s = gaps_s[(len(gaps_s) - 1) // 2]
    return max(slop_s, min(_GAP_SHARE * usual_s, MOST_SLOPS * slop_s))


def check_slop(meant_s: float, image_s: float, slop_s: float, which: str) -> None:
    """PromptError when a prompt for the image of one time would be applied to that of another."""
    off_s = image_s - meant_s
    if abs(off_s) > slop_s:
        side = "later" if off_s > 0 else "earlier"
        raise PromptError(
            f"stamp: {which} was taken {abs(off_s):.2f} s {side} than the one it names, at most {slop_s:g} s are "
            "allowed; give the stamp of an image that was processed, such as that of an output, or allow more "
            "(stamp_slop_s; prompt_slop_s of the node)"
        )


def reach(kept_s: Mapping[int, float | None]) -> str:
    """How far back the buffer reaches, for error messages."""
    if not kept_s:
        return "no past frames are kept"
    return f"what is kept reaches back {len(kept_s) - 1} frames, to frame {min(kept_s)}"
