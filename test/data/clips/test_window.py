"""The window follows the object with a delay of one frame, and opens where the object was not seen."""

from __future__ import annotations

import numpy as np

from sam2_ros.data.clips.clip import Clip
from sam2_ros.data.clips.window import WindowedClips, WindowRange, choose_target, window_round, windowed
from sam2_ros.tracking.zoom.window import Window, WindowRules, next_window

SIZE_PX = 64
EXACT = WindowRange(jitter=0.0, whole_first_prob=0.0)


def clip_of(places: list[tuple[int, int] | None]) -> Clip:
    """A white 8 x 8 square at (x, y) in each frame, or none; a second object that stays in the corner."""
    images = np.full((len(places), SIZE_PX, SIZE_PX, 3), 50, np.uint8)
    masks = np.zeros((len(places), 2, SIZE_PX, SIZE_PX), bool)
    masks[:, 1, :4, :4] = True
    for t, place in enumerate(places):
        if place is not None:
            x, y = place
            images[t, y : y + 8, x : x + 8] = 255
            masks[t, 0, y : y + 8, x : x + 8] = True
    return Clip(images, masks)


def seen(places: list[tuple[int, int] | None], ranges: WindowRange = EXACT, seed: int = 0) -> Clip:
    return windowed(clip_of(places), 0, np.random.default_rng(seed), ranges=ranges)


def test_an_object_that_stands_is_about_half_as_wide_as_its_window() -> None:
    for seed in range(20):
        clip = seen([(30, 30)] * 3, seed=seed)
        assert clip.masks_tnhw.shape == (3, 1, SIZE_PX, SIZE_PX)
        widths = clip.masks_tnhw[:, 0].any(axis=1).sum(axis=1) / SIZE_PX
        assert ((widths > 0.25) & (widths < 0.75)).all()


def test_mask_and_picture_go_through_the_same_window() -> None:
    clip = seen([(10, 20), (13, 22), (15, 26), (18, 30)])
    for image, mask in zip(clip.images_thwc, clip.masks_tnhw[:, 0], strict=True):
        assert ((image[..., 0] > 152) == mask).mean() > 0.97


def test_it_lies_round_the_mask_of_the_frame_before() -> None:
    clip = seen([(30, 30), (34, 30), (34, 30)])
    middles = [np.argwhere(mask).mean(axis=0)[1] / SIZE_PX for mask in clip.masks_tnhw[:, 0]]
    # Frame 0 is seen round its own mask, which is given; frame 1 round where the object was.
    assert abs(middles[0] - 0.5) < 0.04 and middles[1] > 0.6 and abs(middles[2] - 0.5) < 0.04


def test_the_whole_frame_is_seen_after_an_object_was_absent() -> None:
    clip = seen([(30, 30), None, (30, 30), (30, 30)])
    widths = clip.masks_tnhw[:, 0].any(axis=1).sum(axis=1)
    assert widths[1] == 0 and widths[2] == 8 and widths[3] > 16


def test_an_object_that_outruns_its_window_is_absent_there_and_found_again() -> None:
    widths = seen([(4, 4), (50, 50), (50, 50)]).masks_tnhw[:, 0].any(axis=1).sum(axis=1)
    assert widths[1] == 0 and widths[2] == 8


def test_the_first_frame_is_whole_as_often_as_told() -> None:
    first = [seen([(30, 30)] * 2, WindowRange(whole_first_prob=1.0), seed).masks_tnhw[0].sum() for seed in range(5)]
    assert first == [64] * 5


def test_windows_stay_inside_the_frame_and_are_not_too_small() -> None:
    mask = np.zeros((SIZE_PX, SIZE_PX), bool)
    mask[0, 63] = True
    for seed in range(20):
        window = window_round(mask, None, 2.0, np.random.default_rng(seed), WindowRange())
        assert window.side >= WindowRules.smallest * SIZE_PX
        assert Window.whole((SIZE_PX, SIZE_PX)).contains(window.box_xyxy)


def test_without_jitter_the_windows_are_those_of_the_tracker() -> None:
    exact = WindowRange(size_jitter=0.0, jitter=0.0)
    previous: Window | None = None
    for x in (10, 12, 20, 24, 40):
        mask = np.zeros((SIZE_PX, SIZE_PX), bool)
        mask[20:30, x : x + 12] = True
        window = window_round(mask, previous, 2.0, np.random.default_rng(0), exact)
        assert window == next_window((x, 20, x + 12, 30), (SIZE_PX, SIZE_PX), previous)
        previous = window


def test_windows_vary_by_the_jitter_alone() -> None:
    mask = np.zeros((SIZE_PX, SIZE_PX), bool)
    mask[26:36, 26:36] = True
    windows = {window_round(mask, None, 2.0, np.random.default_rng(seed), WindowRange()) for seed in range(20)}
    assert len(windows) > 5 and all(16 <= window.side <= 25 for window in windows)


def test_a_smaller_clip_can_be_made_of_a_larger_one() -> None:
    clip = windowed(clip_of([(30, 30)] * 2), 0, np.random.default_rng(0), size_px=32)
    assert clip.images_thwc.shape == (2, 32, 32, 3) and clip.masks_tnhw.shape == (2, 1, 32, 32)


def test_the_chosen_target_is_one_that_the_first_frame_shows() -> None:
    clip = clip_of([None, (30, 30)])
    assert {choose_target(clip, np.random.default_rng(seed)) for seed in range(8)} == {1}


def test_some_seeds_are_seen_through_a_window() -> None:
    plain, larger = clip_of([(30, 30)] * 2), clip_of([(20, 20)] * 2)
    for probability, low, high in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)):
        clips = WindowedClips(lambda seed: plain, lambda seed: larger, 32, probability)
        made = [clips(seed) for seed in range(40)]
        assert low <= sum(clip.images_thwc.shape == (2, 32, 32, 3) for clip in made) <= high
        assert all(clip is plain for clip in made if clip.masks_tnhw.shape[1] == 2)
    again = WindowedClips(lambda seed: plain, lambda seed: larger, 32, 1.0)(5)
    np.testing.assert_array_equal(again.images_thwc, made[5].images_thwc)
