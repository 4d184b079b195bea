"""With zoom an object is looked for in a window round its last mask: to the pixel, now and later."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from red_network import RedNetwork, red_frame, red_mask
from tiny_model import assert_other_logits, assert_same_logits, assert_same_result, noise_frames, tiny_model

from sam2_ros.tracking import propagation
from sam2_ros.tracking.compiled import compile_network
from sam2_ros.tracking.concurrency import prefetch_images
from sam2_ros.tracking.state_io import SavedStateError
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import FrameResult, ObjectState, PromptAction
from sam2_ros.tracking.zoom.window import Window

SIZE_HW = (80, 120)
LEFT, RIGHT = (30, 30, 38, 38), (90, 40, 98, 48)  # boxes x0, y0, x1, y1
REPLACE = PromptAction.REPLACE


@pytest.fixture(scope="module")
def network() -> RedNetwork:
    return RedNetwork()


def moved(box: tuple[int, int, int, int], x: int, y: int = 0) -> tuple[int, int, int, int]:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def mask_of(box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    return red_mask(red_frame(box))


def zooming(network: RedNetwork, image: NDArray[np.uint8], frames: int = 12, **options: Any) -> Tracker:
    """A tracker that has followed the object in LEFT until its window is still."""
    tracker = Tracker(network, zoom=True, **options)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    for _ in range(frames):
        tracker.step(image)
    return tracker


def window_of(tracker: Tracker, object_id: str = "a") -> Window | None:
    return tracker._state.tracks[object_id].window


def test_masks_land_on_the_pixels_that_the_network_saw(network: RedNetwork) -> None:
    """A window of as many pixels as the network's masks have: what comes back is exact."""
    tracker = zooming(network, red_frame(LEFT))
    for x, y in ((0, 0), (1, 0), (0, 3), (-2, -1), (4, 3)):
        box = moved(LEFT, x, y)
        tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
        result = tracker.step(red_frame(box))
        assert result["a"].window_xyxy == (26, 25, 42, 41)
        assert np.array_equal(result["a"].mask, mask_of(box))
        assert np.array_equal(result.label_image, mask_of(box))
        assert result["a"].box_xyxy == box and result["a"].area_px == 64
        assert result["a"].low_res_logits is not None and result["a"].low_res_logits.shape == (16, 16)


def test_an_object_that_moves_is_followed(network: RedNetwork) -> None:
    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", points=[[12, 34]], labels=[1])
    for x in range(0, 80, 4):
        box = moved((8, 30, 16, 38), x, x // 3)
        found = tracker.step(red_frame(box, seed=x))["a"]
        assert found.state == ObjectState.TRACKED and found.box_xyxy is not None
        assert found.window_xyxy is not None
        assert found.window_xyxy[2] - found.window_xyxy[0] < 45
        if x >= 20:
            assert np.abs(np.subtract(found.box_xyxy, box)).max() <= 1
    assert found.window_xyxy[0] > 60


def test_an_object_that_stands_is_seen_in_the_same_pixels(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    windows = {tracker.step(red_frame(LEFT, seed=seed))["a"].window_xyxy for seed in range(5)}
    assert len(windows) == 1
    ((x0, _, x1, _),) = (window for window in windows if window is not None)
    assert 15 <= x1 - x0 <= 20


def test_each_of_two_objects_has_a_window_of_its_own(network: RedNetwork) -> None:
    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    tracker.add_prompt("b", mask=mask_of(RIGHT))
    for _ in range(8):
        result = tracker.step(red_frame(LEFT, RIGHT))
    for object_id, box in (("a", LEFT), ("b", RIGHT)):
        assert np.abs(np.subtract(result[object_id].box_xyxy, box)).max() <= 1
        assert result.label_image[box[1] + 4, box[0] + 4] == result[object_id].label


def test_clicks_boxes_and_masks_mean_the_pixels_of_the_image(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", points=[[34, 33], [26, 40]], labels=[1, 0])
    tracker.step(red_frame(LEFT))
    assert network.points_xy is not None
    np.testing.assert_allclose(network.points_xy, [[8 / 16, 8 / 16], [0, 15 / 16]], atol=1e-6)
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", box=[30, 30, 38, 42 - 1])
    tracker.step(red_frame(LEFT))
    np.testing.assert_allclose(network.points_xy, [[4 / 16, 5 / 16], [12 / 16, 1]], atol=1e-6)
    tracker._state.tracks["a"].window = Window(26, 25, 42, 41, SIZE_HW)
    tracker.add_prompt("a", mask=mask_of((28, 27, 32, 39)))
    assert np.array_equal(tracker.step(red_frame(LEFT))["a"].mask, mask_of((28, 27, 32, 39)))


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param({"points": [[100, 10]], "labels": [1]}, id="a click beside it"),
        pytest.param({"points": [[34, 34], [5, 70]], "labels": [1, 0]}, id="one of two clicks"),
        pytest.param({"box": [20, 20, 90, 60]}, id="a box that reaches out of it"),
        pytest.param({"mask": mask_of(RIGHT)}, id="a mask beside it"),
    ],
)
def test_a_prompt_that_the_window_does_not_hold_is_taken_in_the_whole_image(
    network: RedNetwork, prompt: dict[str, Any]
) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker.add_prompt("a", **prompt)
    result = tracker.step(red_frame(LEFT))
    assert result.rejected == () and result["a"].window_xyxy is None
    if "points" in prompt:
        assert network.points_xy is not None
        np.testing.assert_allclose(network.points_xy, np.divide(prompt["points"], SIZE_HW[::-1]), atol=1e-6)
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


@pytest.mark.parametrize(
    "prompt", [{"mask": mask_of(LEFT)}, {"box": [29, 28, 40, 40]}, {"points": [[34, 34]], "labels": [1]}]
)
def test_an_object_that_starts_is_looked_for_in_the_whole_image_and_then_in_its_window(
    network: RedNetwork, monkeypatch: pytest.MonkeyPatch, prompt: dict[str, Any]
) -> None:
    """So its first memory shows it as large as the later frames do."""
    tracker, encode, seen = Tracker(network, zoom=True), network.encode_image, []

    def counted(images_bchw: torch.Tensor) -> Any:
        features = encode(images_bchw)
        seen.append(float(features.red_b1hw.mean()))
        return features

    monkeypatch.setattr(network, "encode_image", counted)
    for start in ({}, {"action": REPLACE}):
        seen.clear()
        tracker.add_prompt("a", **prompt, **start)
        assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None
        assert len(seen) == 2 and seen[0] < 0.01 and seen[1] > 5 * seen[0]
        tracker.step(red_frame(LEFT))
        assert len(seen) == 3


def test_an_object_that_is_seen_in_the_whole_image_alone_starts_there(
    network: RedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls = network.decode_masks, []

    def absent_at_the_second(*args: Any, **options: Any) -> Any:
        calls.append(args)
        found = decode(*args, **options)
        return found if len(calls) != 2 else replace(found, object_score_logits_b1=torch.full((1, 1), -5.0))

    tracker = Tracker(network, zoom=True)
    tracker.add_prompt("a", points=[[34, 34]], labels=[1])
    monkeypatch.setattr(network, "decode_masks", absent_at_the_second)
    found = tracker.step(red_frame(LEFT))["a"]
    assert len(calls) == 2 and found.state == ObjectState.TRACKED and found.window_xyxy is None
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


def test_an_object_out_of_sight_is_looked_for_in_the_whole_image(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT), lost_after_frames=2, recover_after_frames=2)
    seen = [tracker.step(red_frame())["a"] for _ in range(4)]
    assert [each.state for each in seen] == [ObjectState.OCCLUDED] * 2 + [ObjectState.LOST] * 2
    assert [each.window_xyxy is None for each in seen] == [False, True, True, True]
    found = [tracker.step(red_frame(RIGHT))["a"] for _ in range(4)]
    # Not believed in its first frame, so the second is still the whole image.
    assert [each.state for each in found] == [ObjectState.LOST] + [ObjectState.TRACKED] * 3
    assert [each.window_xyxy is None for each in found] == [True, True, False, False]
    assert found[-1].box_xyxy is not None and np.abs(np.subtract(found[-1].box_xyxy, RIGHT)).max() <= 1


def test_with_more_than_two_objects_the_whole_image_is_looked_at(network: RedNetwork) -> None:
    tracker = zooming(network, red_frame(LEFT))
    tracker.add_prompt("b", mask=mask_of(RIGHT))
    assert tracker.step(red_frame(LEFT, RIGHT))["a"].window_xyxy is not None
    tracker.add_prompt("c", mask=mask_of((60, 60, 70, 70)))
    for _ in range(2):
        assert {each.window_xyxy for each in tracker.step(red_frame(LEFT))} == {None}
    tracker.remove("c")
    tracker.remove("b")
    assert tracker.step(red_frame(LEFT))["a"].window_xyxy is not None


def test_three_objects_are_tracked_as_without_zoom() -> None:
    model = tiny_model(seed=4)
    rectangle = np.zeros((48, 80), bool)
    rectangle[12:36, 20:60] = True
    prompts = {"a": {"points": [[20, 20]], "labels": [1]}, "b": {"box": [30, 10, 60, 40]}, "c": {"mask": rectangle}}
    trackers = Tracker(model, zoom=True, buffer_frames=6), Tracker(model, buffer_frames=6)
    for index, image in enumerate(noise_frames(8)):
        for tracker in trackers:
            if index == 0:
                for object_id, prompt in prompts.items():
                    tracker.add_prompt(object_id, **prompt)
            if index == 5:
                tracker.add_prompt("b", points=[[20, 20]], labels=[0], frame_index=2)
        zoomed, plain = (tracker.step(image) for tracker in trackers)
        assert_same_result(zoomed, plain)
        assert {each.window_xyxy for each in zoomed} == {None}


def test_without_zoom_nothing_looks_through_a_window(network: RedNetwork) -> None:
    tracker = Tracker(network, buffer_frames=3)
    tracker.add_prompt("a", mask=mask_of(LEFT))
    for _ in range(4):
        assert tracker.step(red_frame(LEFT))["a"].window_xyxy is None
    assert window_of(tracker) is None
    assert all(past.frame.image_rgb is None for past in tracker._state.past.values())  # no memory for nothing


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
