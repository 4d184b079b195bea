"""Cuts, and a camera that is covered or frozen: what is seen, what is not taken for it, and what the tracker does."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from red_network import LEFT, RIGHT, RedNetwork, mask_of, red_frame
from tiny_model import assert_same_result, noise_frames, shift_object_score, tiny_model

from sam2_ros.saved_values import SavedStateError
from sam2_ros.tracking.rules.scene_changes import SceneWatch
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState, Scene

Image = NDArray[np.uint8]
DAVIS = Path(__file__).resolve().parents[4] / "shared" / "data" / "davis16_dev"


def place(seed: int, height: int = 96, width: int = 128, wide: int = 400) -> Image:
    """(height, wide, 3): a wide picture of blotches in colours of its own, to look at parts of."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, wide, 3), np.float32) + rng.uniform(40, 200, 3)
    for cells, strength in ((6, 45), (30, 25)):
        noise = rng.normal(0, strength, (cells, 4 * cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (wide, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def pan(seed: int, count: int, step_px: int = 6) -> list[Image]:
    """A camera that turns."""
    picture = place(seed)
    return [np.ascontiguousarray(picture[:, step_px * i : step_px * i + 128]) for i in range(count)]


def scenes(images: list[Image], stamps_s: list[float] | None = None) -> list[Scene]:
    watch, seen = SceneWatch(), []
    for index, image in enumerate(images):
        watch, scene = watch.observe(image, stamps_s[index] if stamps_s else None)
        seen.append(scene)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_another_place_is_a_cut_in_its_first_image(seed: int) -> None:
    images = pan(seed, 8) + pan(seed + 10, 8) + pan(seed, 8)
    expected = [Scene.CUT if index in (8, 16) else Scene.STEADY for index in range(24)]
    assert scenes(images) == expected


@pytest.mark.parametrize("between", [1, 2])
def test_a_second_cut_soon_after_the_first_is_seen(between: int) -> None:
    assert scenes(pan(1, 6) + pan(11, between) + pan(1, 6))[6::between][:2] == [Scene.CUT, Scene.CUT]


@pytest.mark.parametrize("step_px", [2, 10, 20])
def test_a_camera_that_turns_is_none(step_px: int) -> None:
    assert set(scenes(pan(3, 13, step_px))) == {Scene.STEADY}


def test_light_that_is_switched_is_none() -> None:
    images = pan(4, 12)
    darker = [(image * 0.5).astype(np.uint8) for image in images]
    assert set(scenes(images[:4] + darker[4:8] + images[8:])) == {Scene.STEADY}


def test_something_large_that_comes_in_is_none() -> None:
    images = [image.copy() for image in pan(5, 10, 2)]
    for index, image in enumerate(images):
        image[20:80, : 8 * index] = (200, 30, 30)
    assert set(scenes(images)) == {Scene.STEADY}


def test_an_image_of_another_size_is_compared_too() -> None:
    images = pan(6, 4)
    larger = [cv2.resize(image, (256, 192)) for image in images]
    assert set(scenes(images + larger)) == {Scene.STEADY}
    assert scenes(images + [cv2.resize(image, (256, 192)) for image in pan(16, 1)])[-1] is Scene.CUT


def black(seed: int) -> Image:
    return np.random.default_rng(seed).normal(8, 3, (96, 128, 3)).clip(0, 255).astype(np.uint8)


def test_a_covered_camera_is_seen_and_so_is_what_comes_after() -> None:
    covered = [black(seed) for seed in range(4)]
    assert scenes(pan(7, 4) + covered + pan(7, 4)) == 4 * [Scene.STEADY] + 4 * [Scene.COVERED] + 4 * [Scene.STEADY]
    carried = scenes(pan(7, 4) + covered + pan(17, 2))
    assert carried[8:] == [Scene.CUT, Scene.STEADY], "it was uncovered in another place"
    assert set(scenes([black(seed) for seed in range(6)])) == {Scene.STEADY}, "it never saw anything"


def test_a_frozen_camera_is_one_whose_image_stays_the_same_to_the_last_bit() -> None:
    still = pan(8, 1)[0]
    stamps_s = [index / 10 for index in range(40)]
    seen = scenes(pan(8, 5)[1:] + 30 * [still] + pan(8, 7)[1:], stamps_s)
    assert seen.index(Scene.FROZEN) == 4 + 20, "two seconds at 10 Hz"
    assert seen[34:] == 6 * [Scene.STEADY]
    assert scenes(70 * [still]).index(Scene.FROZEN) == 60, "without stamps it takes 60 images"
    noisy = [np.clip(still.astype(int) + np.random.default_rng(i).integers(0, 2), 0, 255) for i in range(70)]
    assert Scene.FROZEN not in scenes([image.astype(np.uint8) for image in noisy])


@pytest.mark.skipif(not DAVIS.is_dir(), reason=f"needs real sequences in {DAVIS}")
def test_real_sequences_have_no_cut_and_put_together_one_each() -> None:
    names = ("bus", "mallard-fly", "tennis", "dog-agility")
    parts = []
    for name in names:
        files = sorted((DAVIS / name / "images").iterdir())[:24:2]
        parts.append([np.asarray(cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_4)) for path in files])
    seen = scenes([image for part in parts for image in part])
    assert [index for index, scene in enumerate(seen) if scene is Scene.CUT] == [12, 24, 36]


def test_an_image_takes_less_than_a_millisecond() -> None:
    images = [np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    watch, spent_s = SceneWatch(), []
    for index in range(40):
        started_s = time.thread_time()
        watch, _ = watch.observe(images[index % 2])
        spent_s.append(time.thread_time() - started_s)
    assert min(spent_s) < 1e-3


def seen_left(scene_changes: bool = True, **options: object) -> tuple[Tracker, list[Image]]:
    """A tracker that has followed what is red on the left for 8 frames of one place."""
    tracker = Tracker(RedNetwork(), scene_changes=scene_changes, **options)  # type: ignore[arg-type]
    tracker.add_prompt("a", mask=mask_of(LEFT))
    images = [red_frame(LEFT, seed=1) for _ in range(8)]
    for image in images:
        image[:, :, 1:] = place(1, 80, 120, 120)[:, :, 1:]
    for index, image in enumerate(images):
        tracker.step(np.roll(image, index % 2, axis=0))
    return tracker, images


def elsewhere(*boxes: tuple[int, int, int, int]) -> Image:
    image = red_frame(*boxes, seed=2)
    image[:, :, 1:] = 255 - place(2, 80, 120, 120)[:, :, :2] // 3
    return image


def test_after_a_cut_only_conditioning_frames_are_left_until_it_is_found() -> None:
    tracker, _ = seen_left()
    assert len(tracker._state.tracks["a"].recent) == 7
    result = tracker.step(elsewhere())
    track = tracker._state.tracks["a"]
    assert result.scene is Scene.CUT
    assert (list(track.conditioning), list(track.recent), track.is_sought) == ([0], [], True)
    for index in range(3):
        tracker.step(np.roll(elsewhere(), index + 1, axis=0))
    assert not tracker._state.tracks["a"].recent, "nothing is remembered of where it is not"
    found = tracker.step(elsewhere(RIGHT))
    assert found["a"].state is ObjectState.TRACKED
    track = tracker._state.tracks["a"]
    assert (list(track.recent), track.is_sought) == ([found.frame_index], False)


def test_without_the_setting_nothing_changes() -> None:
    tracker, _ = seen_left(scene_changes=False)
    assert tracker.step(elsewhere()).scene is Scene.STEADY
    assert len(tracker._state.tracks["a"].recent) == 7


def test_a_cut_is_no_reason_to_believe_the_first_thing_that_is_found() -> None:
    tracker, _ = seen_left(recover_after_frames=2)
    assert tracker.step(elsewhere(RIGHT))["a"].state is ObjectState.OCCLUDED
    assert tracker.step(elsewhere(RIGHT))["a"].state is ObjectState.TRACKED


def test_nothing_is_tracked_in_a_covered_camera_and_nothing_remembered() -> None:
    model = tiny_model(seed=4)  # sees everything everywhere
    tracker = Tracker(model, scene_changes=True)
    tracker.add_prompt("a", points=[(40, 24)], labels=[1])
    for image in pan(9, 4):
        tracker.step(image)
    before = list(tracker._state.tracks["a"].recent)
    result = tracker.step(black(0))
    assert (result.scene, result["a"].state, result["a"].area_px) == (Scene.COVERED, ObjectState.OCCLUDED, 0)
    assert list(tracker._state.tracks["a"].recent) == before
    for seed in range(1, 20):
        tracker.step(black(seed))
    assert not tracker._state.tracks["a"].recent, "they are too old to be attended to"
    tracker.load_state(tracker.save_state())


def test_a_saved_state_knows_the_place_and_whether_an_object_is_sought() -> None:
    tracker, _ = seen_left()
    tracker.step(elsewhere())
    saved = tracker.save_state()
    loaded = Tracker(RedNetwork(), scene_changes=True)
    loaded.load_state(saved)
    for image in (np.roll(elsewhere(), 1, axis=0), elsewhere(RIGHT), red_frame(LEFT, seed=1)):
        result, expected = loaded.step(image), tracker.step(image)
        assert_same_result(result, expected)
        assert result.scene is expected.scene
    for damaged in ({}, {**saved["watch"], "distances": [2.0]}, {**saved["watch"], "sample": "x"}):
        with pytest.raises(SavedStateError, match="watch"):
            loaded.load_state({**saved, "watch": damaged})


@pytest.mark.numeric
def test_a_late_prompt_meets_the_cut_where_it_was() -> None:
    def run(late: bool) -> Tracker:
        tracker = Tracker(tiny_model(seed=4), scene_changes=True, buffer_frames=16)
        tracker.add_prompt("a", points=[(40, 24)], labels=[1])
        for index, image in enumerate(pan(10, 6) + pan(20, 6)):
            if index == 3 and not late:
                tracker.add_prompt("a", points=[(20, 20)], labels=[0])
            tracker.step(image)
        if late:
            tracker.add_prompt("a", points=[(20, 20)], labels=[0], frame_index=3)
        tracker.catch_up()
        return tracker

    in_time, late = run(late=False), run(late=True)
    assert sorted(late._state.tracks["a"].recent) == list(range(6, 12))
    for image in noise_frames(3, 96, 128):
        assert_same_result(late.step(image), in_time.step(image))


def test_a_prompt_in_the_first_image_of_another_place_counts() -> None:
    tracker, _ = seen_left()
    shift_object_score(tracker._engine.model, 0.0)
    tracker.add_prompt("a", mask=mask_of(RIGHT))
    result = tracker.step(elsewhere(RIGHT))
    assert (result.scene, result["a"].state) == (Scene.CUT, ObjectState.TRACKED)
    assert sorted(tracker._state.tracks["a"].conditioning) == [0, result.frame_index]
    assert not tracker._state.tracks["a"].is_sought
