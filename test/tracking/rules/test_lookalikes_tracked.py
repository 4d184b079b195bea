"""Look-alikes in a tracker whose network's word comes from a list: what it shows, remembers, saves and tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from red_network import RED
from tiny_model import TINY, assert_same_result, tiny_model

from sam2_ros.model.sam2 import MaskPrediction
from sam2_ros.saved_values import SavedStateError
from sam2_ros.session.events import Event, EventSource, EventType
from sam2_ros.session.objects import ObjectView, TrackingView
from sam2_ros.tracking import outcome, propagation
from sam2_ros.tracking.overlay import tag_of_tracked
from sam2_ros.tracking.rules.scene_changes import SceneWatch
from sam2_ros.tracking.state import Track
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, Scene

CUP = np.array([1, 0], np.float32)
Box = tuple[int, int, int, int]
LEFT, MIDDLE, RIGHT = 20, 55, 90  # px, of images of 120 x 80


class Stage:
    """A tracker of "a" and "b" whose network says that they are at these places (left edges, px) in each frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.model = tiny_model(seed=4)
        self.places: dict[str, int | None] = {}
        monkeypatch.setattr(propagation, "track_from_memory", self._track)
        monkeypatch.setattr(outcome, "looks_of", lambda features, logits: np.stack([CUP] * len(logits)))
        self.options = options
        self.tracker = self.new()
        for name, x in (("a", LEFT), ("b", RIGHT)):
            self.tracker.add_prompt(name, mask=_square(x))

    def new(self) -> Tracker:
        return Tracker(self.model, **{"lookalike_doubt": True, **self.options})

    def _track(self, model: Any, frame: Any, tracks: Sequence[Track], policy: Any) -> dict[str, MaskPrediction]:
        return {track.object_id: self._prediction(track.object_id) for track in tracks}

    def _prediction(self, name: str) -> MaskPrediction:
        side = TINY.image_size // 4
        logits = torch.full((1, 1, side, side), -8.0)
        x = self.places[name]
        if x is not None:
            shown = torch.from_numpy(_square(x))[None, None].float()
            logits = 16 * torch.nn.functional.interpolate(shown, (side, side), mode="area") - 8
        score = torch.full((1, 1), -8.0 if x is None else 8.0)
        pointer = torch.full((1, TINY.d_model), float(x or 0))
        return MaskPrediction(logits, pointer, score, torch.tensor([0.9]), logits, torch.tensor([[0.9]]))

    def step(self, a: int | None, b: int | None, tracker: Tracker | None = None) -> FrameResult:
        self.places = {"a": a, "b": b}
        image = np.full((80, 120, 3), 90, np.uint8)
        for x in (a, b):
            if x is not None:
                image[30:50, x : x + 20] = RED
        return (tracker or self.tracker).step(image)

    def cross(self, *after: tuple[int | None, int | None]) -> list[FrameResult]:
        """They approach, b is hidden by a for two frames, and then this."""
        frames = [(LEFT + 8 * i, RIGHT - 8 * i) for i in range(4)] + 2 * [(MIDDLE, None)] + [*after]
        return [self.step(*places) for places in frames]


def _square(x: int) -> np.ndarray:
    mask = np.zeros((80, 120), bool)
    mask[30:50, x : x + 20] = True
    return mask


def middle_of(result: FrameResult, name: str) -> float:
    centre = result[name].centroid_xy
    assert centre is not None
    return centre[0] - 9.5


def test_the_tracker_exchanges_masks_and_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    result = stage.cross((LEFT + 20, RIGHT - 20))[-1]
    assert middle_of(result, "a") == pytest.approx(RIGHT - 20, abs=5)
    assert middle_of(result, "b") == pytest.approx(LEFT + 20, abs=5)
    assert [each.state for each in result] == 2 * [ObjectState.TRACKED]
    tracks = stage.tracker._state.tracks
    assert tracks["a"].recent[6].pointer_bc[0, 0] == RIGHT - 20
    assert tracks["a"].recent[3].pointer_bc[0, 0] == RIGHT - 24, "all that was b's is a's now"
    assert 4 not in tracks["a"].frames and 5 not in tracks["b"].frames, "while a hid b nothing was remembered"
    plain = Stage(monkeypatch, lookalike_doubt=False)
    assert middle_of(plain.cross((LEFT + 20, RIGHT - 20))[-1], "a") == pytest.approx(LEFT + 20, abs=5)


def test_in_doubt_both_are_occluded_then_lost_and_remember_nothing_until_a_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, lost_after_frames=6)
    apart = (LEFT + 20, RIGHT - 20)
    results = stage.cross((None, None), *[apart] * 8)
    states = [[each.state for each in result] for result in results[7:]]
    assert states[0] == 2 * [ObjectState.OCCLUDED] and states[-1] == 2 * [ObjectState.LOST]
    assert [each.doubted_with for each in results[-1]] == ["b", "a"]
    assert [each.area_px for each in results[-1]] == [0, 0] and not results[-1].label_image.any()
    assert max(stage.tracker._state.tracks["a"].frames) <= 6, "no frame in doubt is remembered"
    assert tag_of_tracked(results[-1]["a"]) == "a LOST 0.00, or b?"
    stage.tracker.add_prompt("a", mask=_square(RIGHT - 20))
    result = stage.step(LEFT + 20, LEFT + 20)
    assert [each.state for each in result] == 2 * [ObjectState.TRACKED]
    assert middle_of(result, "a") == pytest.approx(RIGHT - 20, abs=5)
    assert [each.doubted_with for each in result] == ["", ""]


def test_where_look_alikes_do_not_meet_the_results_are_the_same_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [(LEFT, RIGHT), (LEFT + 4, RIGHT), (LEFT + 8, None), (LEFT + 8, RIGHT), (LEFT + 4, RIGHT)]
    stage = Stage(monkeypatch)
    results = [stage.step(*each) for each in places]
    assert stage.tracker._state.pairs
    plain = Stage(monkeypatch, lookalike_doubt=False)
    for result, (a, b) in zip(results, places, strict=True):
        expected = plain.step(a, b)
        assert_same_result(result, expected)
        for one, other in zip(result, expected, strict=True):
            assert np.array_equal(one.low_res_logits, other.low_res_logits)
    assert not plain.tracker._state.pairs


def test_a_saved_state_knows_who_met(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.cross()
    loaded = stage.new()
    saved = stage.tracker.save_state()
    loaded.load_state(saved)
    assert loaded._state.pairs == stage.tracker._state.pairs
    assert_same_result(stage.step(40, 70, loaded), stage.step(40, 70))
    assert middle_of(stage.step(70, 40, loaded), "a") == pytest.approx(70, abs=5)


@pytest.mark.parametrize(
    "damage",
    [
        {"objects": ["b", "a"]},
        {"objects": ["a"]},
        {"objects": ["a", "c"]},
        {"objects": [["a"], "b"]},
        {"frame": 9},
        {"offset_xy": [0.1]},
        {"speed_xy": [0.1, float("nan")]},
        {"areas": [0.0, 0.1]},
        {"least_share": 2.0},
        {"is_in_doubt": 1},
    ],
)
def test_a_damaged_pair_is_rejected(monkeypatch: pytest.MonkeyPatch, damage: dict[str, object]) -> None:
    stage = Stage(monkeypatch)
    stage.cross()
    saved = stage.tracker.save_state()
    saved["pairs"][0] |= damage
    with pytest.raises(SavedStateError, match=r"pairs\[0\]"):
        stage.new().load_state(saved)


def test_after_a_cut_pairs_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, scene_changes=True)
    scenes = iter([Scene.STEADY] * 3 + [Scene.CUT, Scene.STEADY])
    monkeypatch.setattr(SceneWatch, "observe", lambda self, image, stamp_s: (self, next(scenes)))
    for _ in range(3):
        stage.step(LEFT, RIGHT)
    assert stage.tracker._state.pairs["a", "b"].frames == 3
    result = stage.step(RIGHT, LEFT)
    assert middle_of(result, "a") == pytest.approx(RIGHT, abs=5), "not exchanged, as without the cut"
    assert stage.tracker._state.pairs["a", "b"].frames == 1


def test_an_object_that_is_removed_or_replayed_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, buffer_frames=8)
    stage.cross()
    assert set(stage.tracker._state.pairs) == {("a", "b")}
    stage.tracker.add_prompt("b", mask=_square(MIDDLE), frame_index=3)
    stage.tracker.catch_up()
    assert not stage.tracker._state.pairs
    stage.step(LEFT, RIGHT)
    assert stage.tracker._state.pairs
    stage.tracker.remove("b")
    assert not stage.tracker._state.pairs


def test_the_event_says_whom_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, events = Stage(monkeypatch), list[Event]()
    source = EventSource(events.append)
    results = stage.cross((MIDDLE, None), *[(MIDDLE, None)] * 30, (LEFT + 20, RIGHT - 20))
    for result in results:
        objects = tuple(ObjectView(each, "", 0, 0) for each in result)
        source.observed(TrackingView(None, 0, None, result, objects, 0))
    last = {event.object_id: event for event in events if event.type in (EventType.OCCLUDED, EventType.LOST)}
    assert last["a"].type is EventType.OCCLUDED
    assert last["a"].message == "in doubt: it may be b, which looks the same; prompt it"
