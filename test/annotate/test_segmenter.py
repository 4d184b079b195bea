"""Masks from prompts with and without memory, and propagation in both directions, on a tiny network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from annotate_rig import SIZE_HW, a_click, a_square, make_project
from tiny_model import shift_object_score, tiny_model

from sam2_ros.annotate.masklets import FramePrompt, Masklet, MaskletFrame, MaskSource, ProjectError
from sam2_ros.annotate.project import Project
from sam2_ros.annotate.segmenter import MAX_ANCHORS, Segmenter, _KnownMasks
from sam2_ros.model.sam2 import SAM2
from sam2_ros.tracking.image_predictor import ImagePredictor
from sam2_ros.tracking.tracker import Tracker
from sam2_ros.tracking.types import ObjectState


@pytest.fixture
def network() -> SAM2:
    return tiny_model()  # to which nothing is ever hidden


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path / "p") as project:
        yield project


@pytest.fixture
def segmenter(network: SAM2, project: Project) -> Segmenter:
    return Segmenter(network, project.recordings[0])


def drawn(mask: np.ndarray, locked: bool = False) -> MaskletFrame:
    return MaskletFrame.of_mask(mask, MaskSource.BRUSH, locked=locked)


def masklet(frames: dict[int, MaskletFrame], masklet_id: str = "m0001") -> Masklet:
    return Masklet(masklet_id, masklet_id, frames=frames)


def propagated(segmenter: Segmenter, given: Masklet, start: int, stop: int) -> dict[int, MaskletFrame]:
    steps = segmenter.propagate([given], start, stop)
    return {step.index: step.frames[given.masklet_id] for step in steps if step.frames}


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_a_first_click_gives_what_the_image_predictor_gives(segmenter: Segmenter, network, project, phase: int) -> None:
    predictor = ImagePredictor(network)
    predictor.set_image(project.recordings[0].frame_rgb(2))
    expected = predictor.predict([(30, 20)], [1]).ordered()
    frame = segmenter.click(None, 2, [a_click(30, 20)], phase)
    assert np.array_equal(frame.mask(), expected.masks[0])
    assert frame.quality == pytest.approx(float(expected.scores[0]), abs=1e-4)
    assert frame.source is MaskSource.CLICK and frame.prompts == (a_click(30, 20),)


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_clicks_correct_what_the_clicks_before_gave(segmenter: Segmenter, network, project, phase: int) -> None:
    predictor = ImagePredictor(network)
    predictor.set_image(project.recordings[0].frame_rgb(2))
    first = predictor.predict([(30, 20)], [1]).ordered()
    expected = predictor.predict([(30, 20), (60, 40)], [1, 0], logits=first.logits[:1], multimask=False)
    frame = segmenter.click(None, 2, [a_click(30, 20), a_click(60, 40, 0)], phase)
    assert np.array_equal(frame.mask(), expected.masks[0])


def test_phase_3_corrects_from_memory_and_the_others_do_not(segmenter: Segmenter) -> None:
    known = masklet({0: drawn(a_square(10, 10)), 1: drawn(a_square(12, 10))})
    alone = [segmenter.click(known, 2, [a_click(30, 20)], phase).mask() for phase in (1, 2)]
    assert np.array_equal(*alone)
    assert not np.array_equal(alone[0], segmenter.click(known, 2, [a_click(30, 20)], 3).mask())


def test_a_correction_is_what_the_tracker_makes_of_the_same_masks(network: SAM2, segmenter: Segmenter, project) -> None:
    frames_rgb = [project.recordings[0].frame_rgb(index) for index in range(2)]
    tracker = Tracker(network)
    tracker.add_prompt("a", mask=a_square(10, 10), frame_size=SIZE_HW)
    tracker.step(frames_rgb[0])
    tracker.add_prompt("a", points=[(30, 20)], labels=[1])
    expected = tracker.step(frames_rgb[1])["a"]
    frame = segmenter.click(masklet({0: drawn(a_square(10, 10))}), 1, [a_click(30, 20)], 3)
    assert np.mean(frame.mask() == expected.mask) > 0.999


def test_propagation_is_what_the_tracker_does_and_backward_is_forward_in_the_reversed_clip(
    network: SAM2, segmenter: Segmenter, project: Project
) -> None:
    frames_rgb = [project.recordings[0].frame_rgb(index) for index in range(8)]
    for start, stop, clip in ((0, 7, frames_rgb), (7, 0, frames_rgb[::-1])):
        tracker = Tracker(network)
        tracker.add_prompt("a", mask=a_square(10, 10), frame_size=SIZE_HW)
        expected = [tracker.step(image)["a"].mask for image in clip]
        found = propagated(segmenter, masklet({start: drawn(a_square(10, 10))}), start, stop)
        direction = 1 if stop > start else -1
        assert list(found) == list(range(start + direction, stop + direction, direction))
        for age, frame in enumerate(found.values(), 1):
            assert np.mean(frame.mask() == expected[age]) > 0.999, f"from {start}, {age} frames on"
            assert frame.source is MaskSource.PROPAGATED and not frame.prompts


def test_propagation_ends_before_a_locked_frame_and_keeps_what_a_person_made(segmenter: Segmenter) -> None:
    given = masklet({1: drawn(a_square(10, 10)), 3: drawn(a_square(50, 20)), 6: drawn(a_square(60, 20), locked=True)})
    assert list(propagated(segmenter, given, 1, 7)) == [2, 4, 5]
    without = propagated(segmenter, masklet({1: drawn(a_square(10, 10))}), 1, 5)
    after = propagated(segmenter, given, 1, 5)
    assert np.array_equal(after[2].mask(), without[2].mask())
    assert not np.array_equal(after[4].mask(), without[4].mask()), "a frame made on the way is a conditioning frame"


def test_nothing_is_remembered_of_a_frame_in_which_a_person_says_that_it_is_hidden(segmenter: Segmenter) -> None:
    start = {1: drawn(a_square(10, 10))}
    hidden = {3: drawn(np.zeros(SIZE_HW, np.bool_))}
    without, after = (propagated(segmenter, masklet(frames), 1, 5) for frames in (start, {**start, **hidden}))
    assert list(after) == [2, 4, 5] and np.array_equal(after[2].mask(), without[2].mask())
    assert not np.array_equal(after[4].mask(), without[4].mask()), "frame 3 was remembered with a mask"


def test_objects_that_go_along_change_nothing(segmenter: Segmenter) -> None:
    one, two = masklet({2: drawn(a_square(10, 10))}), masklet({2: drawn(a_square(50, 20))}, "m0002")
    two = masklet({**two.frames, 4: drawn(a_square(52, 20), locked=True)}, "m0002")
    steps = list(segmenter.propagate([one, two], 2, 6))
    assert [sorted(step.frames) for step in steps] == [["m0001", "m0002"], ["m0001"], ["m0001"], ["m0001"]]
    assert [(step.index, step.done, step.total) for step in steps] == [(3, 1, 4), (4, 2, 4), (5, 3, 4), (6, 4, 4)]
    alone = propagated(segmenter, one, 2, 6)
    for step in steps:
        assert np.mean(step.frames["m0001"].mask() == alone[step.index].mask()) > 0.999


def test_an_object_ends_with_its_first_doubtful_frame(network: SAM2, segmenter: Segmenter) -> None:
    given = masklet({0: drawn(a_square(10, 10))})
    assert len(list(segmenter.propagate([given], 0, 5, until_doubtful=1.1))) == 5
    shift_object_score(network, -100.0)  # everything is hidden, and that is certain; then it is not
    hidden = propagated(segmenter, given, 0, 5)
    assert {frame.state for frame in hidden.values()} == {ObjectState.OCCLUDED} and not hidden[1].mask().any()
    assert len(list(segmenter.propagate([given], 0, 5, until_doubtful=0.0))) == 1


def test_results_depend_on_the_stored_masks_alone(network: SAM2, segmenter: Segmenter, project: Project) -> None:
    given = masklet({0: drawn(a_square(10, 10)), 5: drawn(a_square(40, 10))})
    used = propagated(segmenter, given, 0, 4)
    stored = masklet({**given.frames, **used})
    again = segmenter.click(stored, 4, [a_click(30, 20)], 3)
    fresh = Segmenter(network, project.recordings[0]).click(stored, 4, [a_click(30, 20)], 3)
    assert again == fresh


def test_a_mask_that_was_changed_is_remembered_as_it_is_now(
    network: SAM2, segmenter: Segmenter, project: Project
) -> None:
    before = segmenter.click(masklet({0: drawn(a_square(10, 10))}), 1, [a_click(30, 20)], 3)
    changed = masklet({0: drawn(a_square(40, 20, 20))})
    after = segmenter.click(changed, 1, [a_click(30, 20)], 3)
    assert after != before
    assert after == Segmenter(network, project.recordings[0]).click(changed, 1, [a_click(30, 20)], 3)


def test_a_frame_is_conditioned_on_the_nearest_anchor_of_each_side() -> None:
    known = _KnownMasks(masklet({index: drawn(a_square(10, 10)) for index in (0, *range(10, 30))}))
    assert known.near(5) == [0, 10, 11, 12] and known.near(40) == [26, 27, 28, 29]
    assert len(known.near(15)) == MAX_ANCHORS and 15 not in known.near(15)


def test_clicks_after_painting_correct_what_was_painted(segmenter: Segmenter) -> None:
    painted = a_square(40, 20, 20)
    frame = segmenter.click(None, 2, [a_click(42, 22, 0)], 1, painted)
    assert frame.source is MaskSource.BRUSH
    assert not np.array_equal(frame.mask(), segmenter.click(None, 2, [a_click(42, 22, 1)], 1).mask())


@pytest.mark.parametrize(
    ("prompts", "index", "phase", "reason"),
    [
        ([], 0, 1, "no prompt"),
        ([a_click(80, 0)], 0, 1, "0 <= x < 80"),
        ([a_click(3, 4, 0)], 0, 1, "must show the object"),
        ([FramePrompt(box_xyxy=(9, 9, 5, 20))], 0, 1, "x0 < x1"),
        ([a_click(3, 4)], 8, 1, "expected 0 to 7"),
        ([a_click(3, 4)], 0, 4, "phase: expected 1, 2 or 3"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(segmenter: Segmenter, prompts, index, phase, reason) -> None:
    with pytest.raises(ProjectError, match=reason):
        segmenter.click(None, index, prompts, phase)


def test_propagation_needs_a_mask_to_start_from(segmenter: Segmenter) -> None:
    given = masklet(
        {0: drawn(a_square(10, 10)), 1: MaskletFrame.of_mask(np.zeros(SIZE_HW, np.bool_), MaskSource.BRUSH)}
    )
    for start, stop, reason in ((1, 5, "no mask in frame 1"), (2, 5, "no mask in frame 2"), (0, 8, "stop: expected")):
        with pytest.raises(ProjectError, match=reason):
            next(segmenter.propagate([given], start, stop))
