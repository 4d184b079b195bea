"""What the tracker leaves out or does at once gives the same answers as keeping all and going one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_model import TINY, assert_other_logits, assert_same_logits, noise_frames, tiny_model

from sam2_ros.model.mask_decoder import StabilityFallback
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking import prediction
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.tracker import Tracker

pytestmark = pytest.mark.numeric

FRAMES = noise_frames(30)
MASK = np.zeros((48, 80), bool)
MASK[10:30, 10:40] = True

# Frame, object, prompt: corrections, a new anchor and late objects, so that every kind of memory is there.
SCRIPT = [
    (0, "click", {"points": [[20, 20]], "labels": [1]}),
    (0, "box", {"box": [30, 10, 60, 40]}),
    (4, "late", {"mask": MASK}),
    (6, "click", {"points": [[25, 20], [70, 5]], "labels": [1, 0]}),
    (13, "box", {"mask": ~MASK}),
    (17, "late", {"box": [5, 5, 50, 35]}),
    (25, "click", {"mask": MASK}),
]


class KeepEverything(BankPolicy):
    """Nothing is ever dropped."""

    def expired(self, next_frame, recent):  # type: ignore[no-untyped-def]
        return []

    def without_spatial(self, next_frame, recent):  # type: ignore[no-untyped-def]
        return []

    def surplus_conditioning(self, conditioning):  # type: ignore[no-untyped-def]
        return []


def set_policy(tracker: Tracker, policy: BankPolicy) -> None:
    tracker._engine = replace(tracker._engine, policy=policy)


@pytest.fixture
def model() -> SAM2:
    return tiny_model(seed=4)


def run_script(tracker: Tracker, only: str | None = None, count: int = len(FRAMES)) -> list[dict[str, np.ndarray]]:
    """Logits of each object in each frame."""
    frames = []
    for index, image in enumerate(FRAMES[:count]):
        for frame, object_id, prompt in SCRIPT:
            if frame == index and only in (None, object_id):
                tracker.add_prompt(object_id, **prompt)
        frames.append({o.object_id: o.low_res_logits for o in tracker.step(image)})
    return frames


def test_bounded_memory_gives_what_unbounded_does(model: SAM2) -> None:
    bounded, unbounded = Tracker(model), Tracker(model)
    set_policy(unbounded, KeepEverything(TINY.num_spatial_memories, TINY.max_pointers))
    for index, (ours, theirs) in enumerate(zip(run_script(bounded), run_script(unbounded), strict=True)):
        assert ours.keys() == theirs.keys()
        for object_id, logits in ours.items():
            assert_same_logits(logits, theirs[object_id], f"frame {index}, {object_id}")
    assert len(unbounded._state.tracks["click"].recent) == 28
    for track in bounded._state.tracks.values():
        assert len(track.recent) <= TINY.max_pointers - 1
        assert sum(m.spatial_bchw is not None for m in track.recent.values()) <= TINY.num_spatial_memories - 1


@pytest.mark.parametrize("policy", [BankPolicy(TINY.num_spatial_memories - 1, 8), BankPolicy(4, TINY.max_pointers - 1)])
def test_comparison_above_would_notice_a_memory_too_few(model: SAM2, policy: BankPolicy) -> None:
    one, other = Tracker(model), Tracker(model)
    set_policy(other, policy)
    last = [run_script(tracker, count=16)[-1] for tracker in (one, other)]
    for object_id, logits in last[0].items():
        assert_other_logits(logits, last[1][object_id])


@pytest.mark.parametrize("fallback", [None, StabilityFallback()], ids=["plain", "fallback"])
def test_objects_together_are_as_each_alone(fallback: StabilityFallback | None) -> None:
    model = tiny_model(seed=9, fallback=fallback, binarize_prompted_masks=fallback is not None)
    together = run_script(Tracker(model), count=16)
    for object_id in ("click", "box", "late"):
        alone = run_script(Tracker(model), only=object_id, count=16)
        for index, frame in enumerate(alone):
            if object_id in frame:
                assert_same_logits(together[index][object_id], frame[object_id], f"frame {index}")
    for index in range(5, 16):
        logits = list(together[index].values())
        for i in range(3):
            assert_other_logits(logits[i], logits[i - 1])


def test_many_prompts_keep_memory_bounded(model: SAM2) -> None:
    tracker = Tracker(model, corrections_are_conditioning=True)
    for image in FRAMES[:14]:
        tracker.add_prompt("mug", points=[[20, 20]], labels=[1])
        tracker.step(image)
    assert list(tracker._state.tracks["mug"].conditioning) == [0, *range(7, 14)]


def test_more_objects_than_go_through_the_network_at_once_are_as_each_alone(model: SAM2) -> None:
    together, count = Tracker(model), prediction._MAX_BATCH + 2
    clicks = [(4 * index, 2 * index) for index in range(count)]
    for index, click in enumerate(clicks):
        together.add_prompt(str(index), points=[click], labels=[1])
    results = [together.step(image) for image in FRAMES[:3]]
    for index in (0, prediction._MAX_BATCH - 1, prediction._MAX_BATCH, count - 1):
        alone = Tracker(model)
        alone.add_prompt("alone", points=[clicks[index]], labels=[1])
        for image, result in zip(FRAMES[:3], results, strict=True):
            expected = alone.step(image)["alone"].low_res_logits
            assert_same_logits(result[str(index)].low_res_logits, expected)
    assert [o.label for o in results[-1]] == list(range(1, count + 1))


def test_objects_of_different_ages_are_decoded_together(model: SAM2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose memories have other lengths attend apart; the rest of their work is one batch."""
    tracker = Tracker(model)
    for index, image in enumerate(FRAMES[:3]):
        tracker.add_prompt(str(index), points=[[20, 20]], labels=[1])
        tracker.step(image)
    batches: dict[str, list[int]] = {"attend_to_memory": [], "decode_masks": [], "encode_memory": []}

    def counted(name: str) -> Callable[..., Any]:
        run = getattr(model, name)

        def count(*args: Any, **options: Any) -> Any:
            sizes = {"attend_to_memory": lambda: args[1].tokens_bmc, "decode_masks": lambda: args[0]}
            batches[name].append(len(sizes.get(name, lambda: args[1])()))
            return run(*args, **options)

        return count

    for name in batches:
        monkeypatch.setattr(model, name, counted(name))
    tracker.step(FRAMES[3])
    assert batches == {"attend_to_memory": [1, 1, 1], "decode_masks": [3], "encode_memory": [3]}


def bytes_of(frame: object) -> int:
    """What a kept frame holds: arrays, tensors and those of its features."""
    values = [getattr(frame, name, None) for name in ("image_rgb", "inputs_13ss", "features")]
    features = [part for value in values if hasattr(value, "top_bchw") for part in vars(value).values()]
    return sum(value.nbytes for value in (*values, *features) if hasattr(value, "nbytes"))


@pytest.mark.parametrize("height", [24, 300], ids=["smaller than the input", "larger"])
def test_without_an_object_no_more_is_kept_than_the_models_input(model: SAM2, height: int) -> None:
    """And a prompt for such an image gives what it would have given in time."""
    images = noise_frames(6, height, 2 * height)
    late, in_time = Tracker(model, buffer_frames=5), Tracker(model)
    for image in images[:5]:
        late.step(image)
    kept = [bytes_of(past.frame) for past in late._state.past.values()]
    input_bytes = 3 * TINY.image_size**2 * 4
    assert kept == [min(input_bytes, images[0].nbytes)] * 5
    click = {"points": [[height, height / 2]], "labels": [1]}
    late.add_prompt("mug", **click, frame_index=2)
    in_time.add_prompt("mug", **click)
    for image in images[2:5]:
        in_time.step(image)
    ours, expected = late.step(images[5])["mug"], in_time.step(images[5])["mug"]
    assert_same_logits(ours.low_res_logits, expected.low_res_logits)


def test_with_zoom_the_images_are_kept_at_their_full_resolution(model: SAM2) -> None:
    tracker, images = Tracker(model, buffer_frames=2, zoom=True), noise_frames(2, 300, 600)
    for image in images:
        tracker.step(image)
    for past, image in zip(tracker._state.past.values(), images, strict=True):
        assert np.array_equal(past.frame.image_rgb, image)
