"""The memory of one object is bounded, and its state follows its visibility."""

from __future__ import annotations

import pytest
import torch

from sam2_ros.tracking.memory_bank import BankPolicy, FrameMemory
from sam2_ros.tracking.state import Track
from sam2_ros.tracking.types import ObjectState

POLICY = BankPolicy(num_spatial=3, max_pointers=5, max_conditioning=4)
PENDING, TRACKED, OCCLUDED, LOST = ObjectState


def memory_of(frame: int) -> FrameMemory:
    return FrameMemory(torch.full((1, 2, 2, 2), float(frame)), torch.full((1, 4), float(frame)))


def test_memory_stays_within_its_bounds() -> None:
    track = Track("mug", 1)
    for frame in range(50):
        track.remember(POLICY, frame, memory_of(frame), is_conditioning=frame % 10 == 0)
    assert list(track.conditioning) == [0, 20, 30, 40]
    assert sorted(track.recent) == [46, 47, 48, 49]
    assert [frame for frame, memory in track.recent.items() if memory.spatial_bchw is not None] == [48, 49]
    assert float(track.frames[20].pointer_bc[0, 0]) == 20


def test_maps_are_kept_in_bfloat16_and_pointers_as_they_are() -> None:
    track = Track("mug", 1)
    track.remember(POLICY, 0, memory_of(0), is_conditioning=True)
    kept = track.conditioning[0]
    assert kept.spatial_bchw is not None
    assert kept.spatial_bchw.dtype == torch.bfloat16
    assert kept.pointer_bc.dtype == torch.float32


def test_memory_does_not_hold_on_to_the_batch_it_came_from() -> None:
    batch = FrameMemory(torch.zeros(8, 2, 2, 2), torch.zeros(8, 4))
    assert batch.spatial_bchw is not None
    track = Track("mug", 1)
    track.remember(POLICY, 0, FrameMemory(batch.spatial_bchw[:1], batch.pointer_bc[:1]), is_conditioning=True)
    kept = track.conditioning[0]
    assert kept.spatial_bchw is not None
    assert kept.spatial_bchw.untyped_storage().nbytes() == 8 * 2
    assert kept.pointer_bc.untyped_storage().nbytes() == 4 * 4


def test_copy_is_independent() -> None:
    track = Track("mug", 1)
    track.remember(POLICY, 0, memory_of(0), is_conditioning=True)
    copy = track.copy()
    copy.remember(POLICY, 1, memory_of(1), is_conditioning=False)
    copy.remember(POLICY, 2, memory_of(2), is_conditioning=True)
    copy.update_state(2, True, lost_after_frames=1)
    assert list(track.frames) == [0]
    assert track.state == PENDING


@pytest.mark.parametrize(
    ("first_frame", "visible", "states"),
    [
        (0, [1, 1], [TRACKED, TRACKED]),
        (0, [1, 0, 0, 0, 0, 1], [TRACKED, OCCLUDED, OCCLUDED, LOST, LOST, TRACKED]),
        (0, [1, 0, 1, 0, 0, 0], [TRACKED, OCCLUDED, TRACKED, OCCLUDED, OCCLUDED, LOST]),
        (0, [0, 0, 0, 0], [OCCLUDED, OCCLUDED, OCCLUDED, LOST]),
        (100, [0, 0, 0, 0], [OCCLUDED, OCCLUDED, OCCLUDED, LOST]),
    ],
)
def test_states_when_two_unseen_frames_are_allowed(first_frame: int, visible: list, states: list) -> None:
    track = Track("mug", 1)
    actual = []
    for offset, is_visible in enumerate(visible):
        track.update_state(first_frame + offset, bool(is_visible), lost_after_frames=2)
        actual.append(track.state)
    assert actual == states


@pytest.mark.parametrize(
    ("visible", "states"),
    [
        ([1, 0, 1, 1, 1], [TRACKED, OCCLUDED, OCCLUDED, TRACKED, TRACKED]),
        ([1, 0, 1, 0, 1, 0], [TRACKED, OCCLUDED, OCCLUDED, LOST, LOST, LOST]),  # a flicker is no sighting
        ([1, 1, 0, 0, 1, 1], [TRACKED, TRACKED, OCCLUDED, OCCLUDED, LOST, TRACKED]),
    ],
)
def test_a_missing_object_must_be_visible_twice_in_a_row(visible: list, states: list) -> None:
    track = Track("mug", 1)
    actual = []
    for frame, is_visible in enumerate(visible):
        track.update_state(frame, bool(is_visible), lost_after_frames=2, recover_after_frames=2)
        actual.append(track.state)
    assert actual == states


@pytest.mark.parametrize(
    ("rate_hz", "visible", "states"),
    [
        # Lost after 1 s, believed after 0.5 s.
        (2, "1000111", "TOOLLTT"),
        (4, "1000001101", "TOOOOLLLLL"),
        (4, "100110111", "TOOOOLLLT"),
    ],
)
def test_seconds_take_the_place_of_frames_where_stamps_are_known(rate_hz: int, visible: str, states: str) -> None:
    seconds, frames = Track("a", 1), Track("a", 1)
    seen = ""
    for frame, each in enumerate(visible):
        seconds.update_state(frame, each == "1", 1000, 1000, frame / rate_hz, 1.0, 0.5)
        frames.update_state(frame, each == "1", 1, 2, None, 1.0, 0.5)  # without stamps
        seen += seconds.state.name[0]
    assert seen == states
    plain = Track("a", 1)
    for frame, each in enumerate(visible):
        plain.update_state(frame, each == "1", 1, 2)
    assert plain.state == frames.state
