"""Two objects with one mask: who yields, and that the frame is not remembered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from red_network import RedNetwork, mask_of, red_frame
from tiny_model import assert_same_result

from sam2_ros.tracking.rules.crowds import yielding
from sam2_ros.tracking.rules.sightings import Sighting, in_whole_image
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState
from sam2_ros.tracking.zoom.window import Window


def sighting(
    columns: tuple[int, int], hidden_frame: int = -1, quality: float = 0.5, label: int = 1, is_prompted: bool = False
) -> Sighting:
    mask = np.zeros((4, 20), bool)
    mask[:, slice(*columns)] = True
    return Sighting(mask, hidden_frame, quality, label, is_prompted)


@pytest.mark.parametrize(
    ("sightings", "gone"),
    [
        pytest.param({"a": sighting((0, 10), 5), "b": sighting((0, 10), 9)}, {"b"}, id="hidden more recently"),
        pytest.param({"a": sighting((0, 10), 9), "b": sighting((0, 10), 5)}, {"a"}, id="the other way round"),
        pytest.param({"a": sighting((0, 10), 9), "b": sighting((0, 10))}, {"a"}, id="the other was never hidden"),
        pytest.param({"a": sighting((0, 10), 5), "b": sighting((2, 12), 9)}, set(), id="an overlap of 0.67"),
        pytest.param({"a": sighting((0, 10), 5), "b": sighting((0, 7), 9)}, {"b"}, id="an overlap of 0.7"),
        pytest.param(
            {"a": sighting((0, 10), quality=0.4), "b": sighting((0, 10), quality=0.6)}, {"a"}, id="the worse mask"
        ),
        pytest.param({"a": sighting((0, 10)), "b": sighting((0, 10), label=2)}, {"b"}, id="the newer one"),
        pytest.param(
            {"a": sighting((0, 10), 9, is_prompted=True), "b": sighting((0, 10), 5)}, {"b"}, id="the user has said so"
        ),
        pytest.param(
            {"a": sighting((0, 10), is_prompted=True), "b": sighting((0, 10), is_prompted=True)}, set(), id="of both"
        ),
        pytest.param({"a": sighting((0, 0), 5), "b": sighting((0, 0), 9)}, set(), id="empty masks"),
        pytest.param(
            {"a": sighting((0, 10), 9), "b": sighting((0, 10), 5), "c": sighting((0, 8), 1)}, {"a", "b"}, id="three"
        ),
    ],
)
def test_who_yields(sightings: dict[str, Sighting], gone: set[str]) -> None:
    assert yielding(sightings) == gone
    assert yielding(dict(reversed(sightings.items()))) == gone


def test_masks_of_windows_are_compared_in_the_whole_image() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:, :4] = True  # the left half
    expected = np.zeros((256, 256), bool)
    expected[:128, 128:192] = True
    assert np.array_equal(in_whole_image(mask, Window(40, 0, 80, 40, (80, 80))), expected)
    expected = np.zeros((256, 256), bool)
    expected[:, :128] = True
    assert np.array_equal(in_whole_image(mask, None), expected)


def two(images: list[Any], crowd_suppression: bool = True, **options: Any) -> tuple[Tracker, list[FrameResult]]:
    """Two objects; the network sees all that is red as one mask, of whoever it is asked for."""
    tracker = Tracker(RedNetwork(), crowd_suppression=crowd_suppression, **options)
    tracker.add_prompt("a", mask=mask_of(NEAR))
    tracker.add_prompt("b", mask=mask_of(FAR))
    return tracker, [tracker.step(image) for image in images]


NEAR, FAR = (8, 24, 40, 56), (78, 30, 108, 60)  # boxes x0, y0, x1, y1
BOTH = red_frame(NEAR, FAR)


@pytest.mark.parametrize("zoom", [False, True])
def test_one_of_two_equal_masks_is_taken_away_and_its_memory_with_it(zoom: bool) -> None:
    images = [BOTH] + 3 * [red_frame(NEAR)]
    tracker, results = two(images, zoom=zoom)
    states = [(result["a"].state, result["b"].state) for result in results]
    assert states[0] == (ObjectState.TRACKED, ObjectState.TRACKED), "prompts are never taken away"
    assert all(sorted(pair) == [ObjectState.TRACKED, ObjectState.OCCLUDED] for pair in states[1:])
    assert len(set(states[1:])) == 1, "the same one yields: it was hidden last"
    hidden = "b" if states[1][0] is ObjectState.TRACKED else "a"
    for result in results[1:]:
        assert (result[hidden].area_px, result[hidden].box_xyxy) == (0, None)
        assert result[hidden].score < 0.5
    # With zoom the window of the hidden one holds nothing in the first frame, which is no mask to take away.
    assert sorted(tracker._state.tracks[hidden].recent) == ([1] if zoom else [])
    assert len(tracker._state.tracks["a" if hidden == "b" else "b"].recent) == 3


def test_without_the_setting_both_keep_the_mask() -> None:
    tracker, results = two([BOTH, red_frame(NEAR)], crowd_suppression=False)
    assert [tracked.state for tracked in results[-1]] == 2 * [ObjectState.TRACKED]
    assert len(tracker._state.tracks["a"].recent) == len(tracker._state.tracks["b"].recent) == 1


def test_a_saved_state_knows_who_was_hidden() -> None:
    tracker, _ = two([BOTH] + 3 * [red_frame(NEAR)])
    loaded = Tracker(RedNetwork(), crowd_suppression=True)
    loaded.load_state(tracker.save_state())
    assert {i: t.hidden_frame for i, t in loaded._state.tracks.items()} == {
        i: t.hidden_frame for i, t in tracker._state.tracks.items()
    }
    assert_same_result(loaded.step(red_frame(NEAR)), tracker.step(red_frame(NEAR)))


@pytest.mark.numeric
def test_a_replayed_object_yields_to_the_masks_that_others_had() -> None:
    tracker, _ = two([BOTH] + 6 * [red_frame(NEAR)], buffer_frames=10)
    hidden = next(i for i, track in tracker._state.tracks.items() if not track.recent)
    tracker.add_prompt(hidden, points=[(92, 44)], labels=[1], frame_index=0)
    tracker.catch_up()
    assert not tracker._state.tracks[hidden].recent
    assert tracker._state.tracks[hidden].hidden_frame == 6
