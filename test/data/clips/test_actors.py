"""Paths: every kind of motion is among them, and gaps are kept."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_ros.data.clips.actors import (
    Gap,
    acting_centers,
    card_poses,
    covering_offsets,
    draw_gap,
    leaving_centers,
    racing_centers,
    size_curve,
    swapping_centers,
)

FRAMES = 12


def inside(center_t2: np.ndarray) -> np.ndarray:
    return ((center_t2 > -0.02) & (center_t2 < 1.02)).all(axis=1)


def test_some_paths_leave_some_return_some_enter_and_some_jump() -> None:
    counts = dict.fromkeys(("leave", "return", "enter", "jump"), 0)
    for seed in range(400):
        path_t2 = acting_centers(np.random.default_rng(seed), FRAMES, 1.0, 0.05)
        shown = inside(path_t2)
        steps = np.hypot(*np.diff(path_t2, axis=0).T)
        counts["leave"] += bool(shown[0] and not shown[-1])
        counts["return"] += bool(shown[0] and not shown.all() and shown[-1])
        counts["enter"] += bool(not shown[0] and shown[-1])
        counts["jump"] += bool(shown.all() and steps.max() > 0.15 and np.sort(steps)[-2] < 0.1)
    assert all(8 < count < 80 for count in counts.values()), counts


def test_a_racer_crosses_the_frame() -> None:
    for seed in range(20):
        path_t2 = racing_centers(np.random.default_rng(seed), FRAMES, 1.5)
        assert (np.ptp(path_t2, axis=0) / (1.5, 1.0)).max() > 0.45


def test_sizes_change_up_to_three_times_when_told() -> None:
    def ranges(probability: float) -> list[float]:
        curves = [size_curve(np.random.default_rng(seed), FRAMES, 0.5, probability) for seed in range(60)]
        assert all(curve[0] == pytest.approx(1) for curve in curves)
        return [float(np.abs(np.log(curve)).max()) for curve in curves]

    assert max(ranges(0.0)) < 0.3
    assert 0.9 < max(ranges(1.0)) <= np.log(3.0) + 1e-9


def test_gaps_spare_the_first_frame_and_end_with_the_clip_unless_told() -> None:
    for seed in range(50):
        for num_frames in (2, 4, 16):
            gap = draw_gap(np.random.default_rng(seed), num_frames, 0.0)
            assert 1 <= gap.start < gap.end == num_frames
            gap = draw_gap(np.random.default_rng(seed), num_frames, 1.0)
            assert 1 <= gap.start < gap.end <= num_frames
    ends = [draw_gap(np.random.default_rng(seed), 16, 1.0).end for seed in range(50)]
    assert np.mean([end < 16 for end in ends]) > 0.7


def test_frames_know_how_far_they_are_from_the_gap() -> None:
    assert list(Gap(2, 4).outside(6)) == [-2, -1, 0, 0, 1, 2]
    assert list(Gap(1, 3).outside(3)) == [-1, 0, 0]


def test_who_leaves_is_beyond_the_edge_in_the_gap_and_on_its_path_far_from_it() -> None:
    for seed in range(20):
        path_t2 = leaving_centers(np.random.default_rng(seed), np.full((12, 2), 0.5), Gap(5, 8), 1.0, 0.2)
        beyond = np.maximum(-path_t2, path_t2 - 1).max(axis=1)
        assert (beyond[5:8] >= 0.1).all()
        np.testing.assert_allclose(path_t2[[0, 1, 11]], 0.5)


def test_what_covers_lies_on_the_object_in_the_gap_and_beside_it_soon_after() -> None:
    for seed in range(20):
        far_t = np.hypot(*covering_offsets(np.random.default_rng(seed), 12, Gap(4, 6), 0.3).T)
        assert not far_t[4:6].any()
        assert far_t[3] > 0.1 and far_t[6] > 0.1
        assert far_t[2] > 0.29 and far_t[7] > 0.29


def test_two_that_swap_pass_each_other_and_the_lower_is_in_front() -> None:
    for seed in range(20):
        swap = swapping_centers(np.random.default_rng(seed), FRAMES, 1.0, 0.2)
        apart_t2 = swap.first_t2 - swap.second_t2
        assert (apart_t2[0] @ apart_t2.T).min() < 0, "they never change sides"
        np.testing.assert_array_equal(swap.first_in_front_t, apart_t2[:, 1] > 0)


def test_a_card_that_turns_is_foreshortened() -> None:
    """The half that comes nearer is drawn longer than the other."""
    corners = np.array([[0, 0, 1], [40, 0, 1], [40, 20, 1], [0, 20, 1.0]])
    ratios = []
    for seed in range(30):
        pose_t33 = card_poses(np.random.default_rng(seed), (21, 41), np.full((8, 2), 0.5), np.full(8, 0.01), 1.0)
        seen = corners @ pose_t33[-1].T
        seen = seen[:, :2] / seen[:, 2:]
        np.testing.assert_allclose((pose_t33[-1] @ [20, 10, 1])[:2], 0.5)
        ratios.append(np.hypot(*(seen[3] - seen[0])) / np.hypot(*(seen[2] - seen[1])))
    assert np.abs(np.log(ratios)).max() > 0.3
