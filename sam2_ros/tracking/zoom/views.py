"""Between an image and what the network sees of it through a window: when there is one, prompts, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from sam2_ros.tracking.prompts import AcceptedPrompt, Prompt
from sam2_ros.tracking.transforms import tight_box_xyxy
from sam2_ros.tracking.zoom.window import MAX_ZOOMED_OBJECTS, Window, next_window


def window_in_frame(
    followed: Window | None, size_hw: tuple[int, int], given: Sequence[AcceptedPrompt], num_objects: int
) -> Window | None:
    """The part of a frame to look for an object in; None: the whole image.

    A prompt in time and the same prompt later find the same window, because it follows from these arguments alone.

    Args:
        followed: the object's window; None where its whereabouts are not known.
        size_hw: of the frame's image, px.
        given: the object's prompts for the frame. One that reaches out of the window needs the whole image.
        num_objects: that are tracked in the frame.
    """
    if followed is None or followed.image_hw != size_hw or num_objects > MAX_ZOOMED_OBJECTS:
        return None
    return followed if all(_is_inside(each.prompt, followed) for each in given) else None


def _is_inside(prompt: Prompt, window: Window) -> bool:
    boxes = [(x, y, x + 1, y + 1) for x, y in np.floor(prompt.points_xy).tolist()]
    if prompt.box_xyxy is not None:
        boxes.append(tuple(prompt.box_xyxy.tolist()))
    if prompt.mask is not None:
        box_xyxy = tight_box_xyxy(prompt.mask)
        assert box_xyxy is not None, "a mask prompt has at least one pixel"
        boxes.append(box_xyxy)
    return all(window.contains(box_xyxy) for box_xyxy in boxes)


def through_window(prompt: Prompt, window: Window | None) -> Prompt:
    """The prompt in pixels of the window, which it lies in; unchanged for the whole image."""
    if window is None:
        return prompt
    corner_xy = np.array([window.x0, window.y0], np.float32)
    return replace(
        prompt,
        points_xy=prompt.points_xy - corner_xy,
        box_xyxy=None if prompt.box_xyxy is None else prompt.box_xyxy - np.tile(corner_xy, 2),
        mask=None if prompt.mask is None else prompt.mask[window.slices],
    )


def window_after(logits_hw: Tensor, window: Window | None, image_hw: tuple[int, int]) -> Window | None:
    """Where to look for an object in the frame after one in which it is visible; None: in the whole image.

    Args:
        logits_hw: of its mask in that frame, at low resolution.
        window: what they cover; None: the whole image.
        image_hw: size of the image, px.
    """
    cells = tight_box_xyxy((logits_hw > 0).cpu().numpy())
    if cells is None:
        return None
    seen = window or Window.whole(image_hw)
    across, down = seen.width / logits_hw.shape[1], seen.height / logits_hw.shape[0]
    x0, y0, x1, y1 = cells
    box_xyxy = (seen.x0 + x0 * across, seen.y0 + y0 * down, seen.x0 + x1 * across, seen.y0 + y1 * down)
    following = next_window(box_xyxy, image_hw, window)
    return None if following.is_whole else following
