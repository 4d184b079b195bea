"""Each clip holds what its name says, and the same seed gives the same clip."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.evaluation.limit_clips import LIMIT_KINDS, LimitClip, limit_clip

MIN_AREA_PX = 250


def centers(clip: LimitClip) -> np.ndarray:
    """(T, 2) x, y of the first object; NaN where it is hidden."""
    found = [np.argwhere(masks[0]) for masks in clip.masks_tnhw]
    return np.array([pixels.mean(axis=0)[::-1] if len(pixels) else (np.nan, np.nan) for pixels in found])


@pytest.mark.parametrize("kind", LIMIT_KINDS)
def test_all_objects_show_at_first_and_stay_apart(kind: str) -> None:
    clip = limit_clip(kind, 1)
    frames, height, width, _ = clip.images_thwc.shape
    assert clip.masks_tnhw.shape == (frames, {"12 objects": 12, "two mugs": 2}.get(kind, 1), height, width)
    assert clip.masks_tnhw[0].sum(axis=(1, 2)).min() >= MIN_AREA_PX
    assert clip.masks_tnhw.sum(axis=1).max() == 1, "the visible parts of two objects overlap"


def test_the_seed_decides() -> None:
    first, again, other = limit_clip("fast", 3), limit_clip("fast", 3), limit_clip("fast", 4)
    np.testing.assert_array_equal(first.images_thwc, again.images_thwc)
    np.testing.assert_array_equal(first.masks_tnhw, again.masks_tnhw)
    assert (first.images_thwc != other.images_thwc).any()


def test_a_shot_change_is_a_cut() -> None:
    clip = limit_clip("shot change", 0)
    change = np.abs(np.diff(clip.images_thwc.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert clip.event_frame is not None
    assert int(change.argmax()) == clip.event_frame - 1
    assert change.max() > 4 * np.sort(change)[-2]


def test_a_long_occlusion_hides_all_for_a_while_and_ends_before_the_clip() -> None:
    clip = limit_clip("long occlusion", 0)
    visible = clip.masks_tnhw[:, 0].any(axis=(1, 2))
    assert (~visible).sum() >= 8 and visible[0]
    assert clip.event_frame is not None
    assert visible[clip.event_frame :].all() and len(visible) - clip.event_frame >= 5


def test_look_alikes_have_the_colours_of_the_target() -> None:
    clip = limit_clip("look-alikes", 0)
    target = clip.images_thwc[0][clip.masks_tnhw[0, 0]].astype(int)
    colour, spread = target.mean(axis=0), target.std(axis=0) + 8
    similar = (np.abs(clip.images_thwc[0] - colour) < 2 * spread).all(axis=2)
    assert similar.sum() > 3 * clip.masks_tnhw[0, 0].sum()


def test_thin_is_thin_and_fast_is_fast() -> None:
    stick = np.argwhere(limit_clip("thin", 0).masks_tnhw[0, 0])
    height, width = np.ptp(stick, axis=0) + 1
    assert height > 20 * width
    fast = limit_clip("fast", 0)
    steps = np.linalg.norm(np.diff(centers(fast), axis=0), axis=1)
    side = np.sqrt(fast.masks_tnhw[0, 0].sum())
    assert np.median(steps) > side


def test_unknown_kind_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"plain, shot change.*'dark'"):
        limit_clip("dark", 0)
