"""Images that are encoded before their turn, and the thread that does it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import assert_same_result, noise_frames, tiny_model

from sam2_ros.tracking.images_ahead import encoded_ahead
from sam2_ros.tracking.side_thread import SideThread
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import PromptAction

DEADLINE_S = 20.0
CLICK = {"points": [(30, 20)], "labels": [1]}


@pytest.mark.parametrize("buffer_frames", [0, 4])
def test_the_masks_are_the_same(buffer_frames: int) -> None:
    model = tiny_model()
    now, ahead = (Tracker(model, buffer_frames=buffer_frames) for _ in range(2))
    for index, image_rgb in enumerate(noise_frames(6)):
        for tracker in (now, ahead):
            if index == 1:
                tracker.add_prompt("a", **CLICK)
            if index == 4 and buffer_frames:  # of a frame that nothing was looked for in
                tracker.add_prompt("b", **CLICK, action=PromptAction.ADD, frame_index=0)
        assert_same_result(ahead.step(ahead.encode_ahead(image_rgb)), now.step(image_rgb))
    assert now.object_ids == ahead.object_ids == (("a", "b") if buffer_frames else ("a",))


def test_images_encoded_while_others_are_stepped() -> None:
    model = tiny_model()
    alone, beside = Tracker(model), Tracker(model)
    for tracker in (alone, beside):
        tracker.add_prompt("a", **CLICK)
    frames, side = noise_frames(8), SideThread()
    waiting = beside.encode_ahead(frames[0])
    for index, image_rgb in enumerate(frames[:-1]):
        with side.running(lambda index=index: beside.encode_ahead(frames[index + 1])) as following:
            result = beside.step(waiting)
        waiting = following.result()
        expected = alone.step(image_rgb)
        assert np.allclose(result["a"].low_res_logits, expected["a"].low_res_logits, atol=1e-3)
    side.rest()


def test_the_time_it_took_counts() -> None:
    tracker = Tracker(tiny_model())
    image = replace(tracker.encode_ahead(noise_frames(1)[0]), encode_ms=1e6)
    assert 1e6 < tracker.step(image).inference_ms < 1.1e6


def test_refusals_change_nothing() -> None:
    tracker, other = Tracker(tiny_model()), Tracker(tiny_model())
    (image_rgb,) = noise_frames(1)
    with pytest.raises(ValueError, match="another network's"):
        tracker.step(other.encode_ahead(image_rgb))
    with pytest.raises(ValueError, match="expected shape"):
        tracker.encode_ahead(image_rgb[0])
    assert tracker.frame_size is None
    assert tracker.step(image_rgb).frame_index == 0


def test_side_thread_shares_the_threads_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    side = SideThread()
    try:
        torch.set_num_threads(5)
        with side.running(torch.get_num_threads) as theirs:
            assert torch.get_num_threads() == 3
            assert theirs.result(DEADLINE_S) == 2
        assert torch.get_num_threads() == 5
        torch.set_num_threads(1)
        with side.running(torch.get_num_threads) as theirs:
            assert torch.get_num_threads() == 1
        assert theirs.result() == 1
    finally:
        torch.set_num_threads(before)
        side.rest()


def test_side_thread_is_waited_for_and_keeps_what_it_raised() -> None:
    side, begun, go = SideThread(), threading.Event(), threading.Event()

    def task() -> None:
        begun.set()
        assert go.wait(DEADLINE_S)
        raise ValueError("of the task")

    with pytest.raises(KeyError), side.running(task) as theirs:
        assert begun.wait(DEADLINE_S)
        go.set()
        raise KeyError("of the caller")
    assert theirs.done()
    with pytest.raises(ValueError, match="of the task"):
        theirs.result()
    side.rest()


def test_a_stream_is_encoded_ahead_in_order() -> None:
    tracker, alone = Tracker(tiny_model()), Tracker(tiny_model())
    for each in (tracker, alone):
        each.add_prompt("a", **CLICK)
    frames = noise_frames(5)
    seen = 0
    for expected_rgb, image in zip(frames, encoded_ahead(tracker, iter(frames)), strict=True):
        assert image.image_rgb is expected_rgb
        theirs, ours = alone.step(expected_rgb)["a"], tracker.step(image)["a"]
        assert np.allclose(theirs.low_res_logits, ours.low_res_logits, atol=1e-3)
        seen += 1
    assert seen == 5
    assert list(encoded_ahead(tracker, [])) == []


def test_what_a_stream_raises_comes_at_its_turn() -> None:
    (good,) = noise_frames(1)
    tracker, seen = Tracker(tiny_model()), []
    with pytest.raises(ValueError, match="expected shape"):
        for image in encoded_ahead(tracker, [good, good, good[0]]):
            seen.append(image.image_rgb)
    assert len(seen) == 2
