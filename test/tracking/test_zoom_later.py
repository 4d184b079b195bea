"""Zoom beside the rest: late prompts, undo, saved states, prefetched images, sizes, errors, compiled networks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from red_network import LEFT, RIGHT, RedNetwork, mask_of, moved, red_frame, window_of, zooming
from tiny_model import assert_other_logits, assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.saved_values import SavedStateError
from sam2_ros.tracking import propagation
from sam2_ros.tracking.concurrency import prefetch_images
from sam2_ros.tracking.runtime.compiled import compile_network
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, PromptAction
from sam2_ros.tracking.zoom.window import Window

pytestmark = pytest.mark.numeric

REPLACE = PromptAction.REPLACE


@pytest.fixture(scope="module")
def network() -> RedNetwork:
    return RedNetwork()


# Frame at which the prompt comes, object, the frame it is for (None: the next), and the prompt.
Entry = tuple[int, str, int | None, dict[str, Any]]
FIRST: Entry = (0, "a", None, {"mask": mask_of(LEFT)})
SECOND: Entry = (0, "b", None, {"mask": mask_of(RIGHT)})
FRAMES = [red_frame(moved(LEFT, 2 * i, i // 2), moved(RIGHT, -i), seed=i) for i in range(12)]
HIT = {"points": [[42, 36]], "labels": [1]}  # on the object in frame 4
MISS = {"points": [[36, 30]], "labels": [0]}
LATE = {
    "add": [(7, "a", 3, {"mask": mask_of(moved(LEFT, 6, 1))})],
    "a second object": [FIRST, (7, "b", 3, {"mask": mask_of(RIGHT)})],
    "a third object, which ends the zoom for itself": [FIRST, SECOND, (7, "c", 3, {"box": [10, 10, 60, 60]})],
    "refine in the window": [FIRST, SECOND, (7, "a", 4, HIT)],
    "refine, negative": [FIRST, SECOND, (7, "a", 4, MISS)],
    "refine out of the window": [FIRST, SECOND, (7, "a", 4, {"points": [[5, 75]], "labels": [0]})],
    "a box": [FIRST, SECOND, (7, "a", 4, {"box": [36, 30, 48, 42]})],
    "a mask": [FIRST, SECOND, (7, "a", 4, {"mask": mask_of(moved(LEFT, 8, 2))})],
    "replace": [FIRST, SECOND, (7, "a", 4, {"mask": mask_of(moved(LEFT, 8, 2)), "action": REPLACE})],
    "twice": [FIRST, SECOND, (7, "a", 4, HIT), (9, "a", 6, {"points": [[45, 37]], "labels": [1]})],
}


def play(tracker: Tracker, script: Sequence[Entry]) -> list[FrameResult]:
    results = []
    for index, image in enumerate(FRAMES):
        for frame, object_id, meant, prompt in script:
            if frame == index:
                tracker.add_prompt(object_id, **prompt, frame_index=meant)
        given = image.copy()
        results.append(tracker.step(given))
        given[:] = 0  # the caller reuses its array
    return results


def in_time(script: Sequence[Entry]) -> list[Entry]:
    return [(frame if meant is None else meant, object_id, None, prompt) for frame, object_id, meant, prompt in script]


@pytest.mark.parametrize("script", LATE.values(), ids=LATE)
def test_a_late_prompt_finds_the_window_of_its_frame(network: RedNetwork, script: list[Entry]) -> None:
    """What it gives is what it would have given in time."""
    late = play(Tracker(network, zoom=True, buffer_frames=10), script)
    expected = play(Tracker(network, zoom=True), in_time(script))
    prompted = script[-1][1]
    last = max(frame for frame, _, _, _ in script)
    for ours, theirs in zip(late[last:], expected[last:], strict=True):
        assert ours[prompted].window_xyxy == theirs[prompted].window_xyxy
        assert_same_logits(ours[prompted].low_res_logits, theirs[prompted].low_res_logits)
    assert (late[-1][prompted].window_xyxy is None) == (prompted == "c")


def test_undone_prompts_leave_the_window_as_it_was(network: RedNetwork) -> None:
    script: list[Entry] = [FIRST, (4, "a", None, {"mask": mask_of((20, 20, 60, 60))})]
    trackers = [Tracker(network, zoom=True, buffer_frames=10) for _ in range(2)]
    undone, undisturbed = (
        play(tracker, entries) for tracker, entries in zip(trackers, (script, script[:1]), strict=True)
    )
    assert_other_logits(*(results[6]["a"].low_res_logits for results in (undone, undisturbed)))
    trackers[0].undo("a")
    assert_same_result(*(tracker.step(FRAMES[-1]) for tracker in trackers))
    assert window_of(trackers[0]) == window_of(trackers[1])


def saved(tracker: Tracker) -> Any:
    file = io.BytesIO()
    torch.save(tracker.save_state(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_loaded_tracker_looks_through_the_same_window(network: RedNetwork) -> None:
    tracker, loaded = zooming(network, red_frame(LEFT)), Tracker(network, zoom=True)
    loaded.load_state(saved(tracker))
    assert window_of(loaded) == window_of(tracker) is not None
    for x in range(3):
        image = red_frame(moved(LEFT, x))
        result = loaded.step(image)
        assert result["a"].window_xyxy is not None
        assert_same_result(result, tracker.step(image))


def test_a_state_saved_with_zoom_goes_on_without_and_the_reverse(network: RedNetwork) -> None:
    plain = Tracker(network)
    plain.load_state(saved(zooming(network, red_frame(LEFT))))
    assert plain.step(red_frame(LEFT))["a"].window_xyxy is None
    zoomed = Tracker(network, zoom=True)
    state = saved(plain)
    assert "window" not in state["objects"][0]
    zoomed.load_state(state)
    assert [zoomed.step(red_frame(LEFT))["a"].window_xyxy is None for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "window",
    [
        None,
        "all",
        [0, 0, 5],
        [0, 0, 0, 5],
        [5, 0, 3, 5],
        [0, 0, 121, 80],
        [0, 0, 120, 81],
        [-1, 0, 9, 9],
        [0.5, 0, 9, 9],
    ],
)
def test_a_damaged_window_is_refused(network: RedNetwork, window: object) -> None:
    state = saved(zooming(network, red_frame(LEFT), frames=2))
    state["objects"][0]["window"] = window
    with pytest.raises(SavedStateError, match="window: expected"):
        Tracker(network, zoom=True).load_state(state)
    state["objects"][0]["window"], state["frame_size"] = [0, 0, 5, 5], None
    with pytest.raises(SavedStateError, match="window: expected"):
        Tracker(network, zoom=True).load_state(state)


def test_prefetched_images_are_read_ahead_and_encoded_where_it_is_looked(network: RedNetwork) -> None:
    ahead, plain = Tracker(network, zoom=True, buffer_frames=4), Tracker(network, zoom=True, buffer_frames=4)
    assert ahead.prefetch(FRAMES[0]).features is not None  # nothing is tracked, so the whole image it will be
    for tracker in (ahead, plain):
        tracker.add_prompt("a", mask=mask_of(LEFT))
    assert ahead.prefetch(FRAMES[0]).features is None
    for image, prefetched in zip(FRAMES, prefetch_images(ahead, FRAMES), strict=True):
        assert_same_result(ahead.step(prefetched), plain.step(image))
    assert window_of(ahead) is not None
    for object_id in ("b", "c"):
        ahead.add_prompt(object_id, box=[60, 10, 90, 40])
    assert ahead.prefetch(FRAMES[0]).features is not None


def test_an_image_encoded_ahead_by_another_tracker_will_do(network: RedNetwork) -> None:
    tracker, plain = zooming(network, red_frame(LEFT), buffer_frames=2), zooming(network, red_frame(LEFT))
    encoded = Tracker(network).prefetch(red_frame(LEFT))
    assert_same_result(tracker.step(encoded), plain.step(red_frame(LEFT)))
    tracker.add_prompt("a", points=[[34, 34]], labels=[1], frame_index=12)
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


def test_an_image_of_another_size_is_looked_at_in_whole(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    large = red_frame(LEFT, height=100, width=130)
    assert [tracker.step(large)["a"].window_xyxy is None for _ in range(2)] == [True, False]


def test_a_step_that_fails_in_a_window_changes_nothing(network: RedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, undisturbed = (Tracker(network, zoom=True, buffer_frames=3) for _ in range(2))
    for each in (tracker, undisturbed):
        each.add_prompt("a", mask=mask_of(LEFT))
        each.add_prompt("b", mask=mask_of(RIGHT))
        for index in range(3):
            each.step(FRAMES[index])
    encode, calls = network.encode_image, []

    def fail_at_the_second(images_bchw: torch.Tensor) -> Any:
        calls.append(images_bchw)
        if len(calls) % 2 == 0:
            raise MemoryError
        return encode(images_bchw)

    with monkeypatch.context() as patch:
        patch.setattr(network, "encode_image", fail_at_the_second)
        with pytest.raises(MemoryError):
            tracker.step(FRAMES[3])
    assert_same_result(tracker.step(FRAMES[3]), undisturbed.step(FRAMES[3]))
    assert window_of(tracker, "b") == window_of(undisturbed, "b")


def test_a_compiled_network_compiles_nothing_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is one image of the model's size, which is what was compiled."""
    window = Window(10, 4, 50, 44, (48, 80))
    monkeypatch.setattr(propagation, "window_after", lambda *_: window)
    model = tiny_model(seed=4)
    plain, compiled = Tracker(model, zoom=True), Tracker(compile_network(model, backend="eager"), zoom=True)
    for each in (plain, compiled):
        for number in range(2):
            each.add_prompt(str(number), box=[12 + number, 8, 40, 40])
    with torch._dynamo.config.patch(error_on_recompile=True):
        for image in noise_frames(4):
            for ours, expected in zip(compiled.step(image), plain.step(image), strict=True):
                assert ours.window_xyxy == expected.window_xyxy
                np.testing.assert_allclose(ours.low_res_logits, expected.low_res_logits, rtol=0, atol=1e-2)
    assert ours.window_xyxy == window.box_xyxy
