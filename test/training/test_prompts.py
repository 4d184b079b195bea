"""Simulated prompts lie where a user would put them."""

from __future__ import annotations

import pytest
import torch

from sam2_ros.training.prompts import add_corrective_click, box_prompts, click_prompts

SIZE = 32
DRAWS = 60


@pytest.fixture
def generators() -> list[torch.Generator]:
    """One for each of two objects."""
    return [torch.Generator().manual_seed(seed) for seed in range(2)]


def rectangles(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(B, 1, SIZE, SIZE) masks of boxes x0, y0, x1, y1, ends exclusive."""
    masks = torch.zeros(len(boxes), 1, SIZE, SIZE)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[0, y0:y1, x0:x1] = 1
    return masks


def test_click_is_anywhere_on_its_own_object(generators: list[torch.Generator]) -> None:
    masks = rectangles((2, 20, 6, 22), (10, 3, 11, 30))
    clicked = torch.zeros_like(masks)
    for _ in range(DRAWS):
        points = click_prompts(masks, generators)
        assert points.labels_bn.tolist() == [[1], [1]]
        for row, (x, y) in enumerate(points.xy_bn2[:, 0].long().tolist()):
            clicked[row, 0, y, x] = 1
    assert (clicked <= masks).all()
    assert clicked[0].sum() == 8, "all of eight pixels should have been clicked"


def test_click_for_an_object_that_is_nowhere_is_inside_the_image(generators: list[torch.Generator]) -> None:
    points = click_prompts(torch.zeros(1, 1, SIZE, SIZE), generators[:1])
    assert ((points.xy_bn2 >= 0) & (points.xy_bn2 < SIZE)).all()


def test_box_is_tight_up_to_a_tenth_of_its_size(generators: list[torch.Generator]) -> None:
    masks = rectangles((5, 10, 25, 20))
    tight, reach = torch.tensor([5.0, 10, 25, 20]), torch.tensor([2.0, 1, 2, 1])
    boxes = torch.stack([box_prompts(masks, generators[:1]).xy_bn2.flatten() for _ in range(DRAWS)])
    assert ((boxes - tight).abs() <= reach).all()
    assert (boxes - tight).abs().amax(0).gt(reach / 2).all(), "noise should use its range"
    assert box_prompts(masks, generators[:1]).labels_bn.tolist() == [[2, 3]]


def test_box_noise_is_at_most_20_px(generators: list[torch.Generator]) -> None:
    mask = torch.zeros(1, 1, 600, 600)
    mask[..., 100:500, 100:500] = 1
    corners = torch.stack([box_prompts(mask, generators[:1]).xy_bn2[0] for _ in range(DRAWS)])
    assert (corners - torch.tensor([[100.0, 100], [500, 500]])).abs().max() <= 20


def test_box_stays_inside_the_image(generators: list[torch.Generator]) -> None:
    for _ in range(DRAWS):
        box = box_prompts(rectangles((0, 0, SIZE, SIZE)), generators[:1]).xy_bn2
        assert ((box >= 0) & (box <= SIZE - 1)).all()


def test_box_of_an_empty_mask_is_the_image(generators: list[torch.Generator]) -> None:
    box = box_prompts(torch.zeros(1, 1, SIZE, SIZE), generators[:1]).xy_bn2.flatten()
    assert (box[:2] < 4).all()
    assert (box[2:] > SIZE - 5).all()


def test_corrective_clicks_lie_in_the_error_and_have_its_label(generators: list[torch.Generator]) -> None:
    truth = rectangles((4, 4, 12, 12), (4, 4, 12, 12))
    predicted = rectangles((8, 4, 16, 12), (4, 4, 12, 20)) > 0.5
    first = click_prompts(truth, generators)
    missed, invented = 0, 0
    for _ in range(DRAWS):
        points = add_corrective_click(first, predicted, truth, generators)
        assert torch.equal(points.xy_bn2[:, :1], first.xy_bn2)
        assert torch.equal(points.labels_bn[:, :1], first.labels_bn)
        for row, ((x, y), label) in enumerate(
            zip(points.xy_bn2[:, 1].long().tolist(), points.labels_bn[:, 1].tolist(), strict=True)
        ):
            is_object, was_found = bool(truth[row, 0, y, x]), bool(predicted[row, 0, y, x])
            assert is_object != was_found
            assert label == int(is_object)
            missed, invented = missed + int(is_object), invented + int(was_found)
    assert min(missed, invented) > 10, "both kinds of error should have been clicked"


def test_without_an_error_the_click_still_has_the_right_label(generators: list[torch.Generator]) -> None:
    truth = rectangles((4, 4, 20, 20))
    for _ in range(DRAWS):
        points = add_corrective_click(click_prompts(truth, generators[:1]), truth > 0.5, truth, generators[:1])
        x, y = points.xy_bn2[0, 1].long().tolist()
        assert points.labels_bn[0, 1] == truth[0, 0, y, x]


def test_first_click_in_a_tracked_frame_is_a_correction(generators: list[torch.Generator]) -> None:
    truth = rectangles((4, 4, 12, 12))
    points = add_corrective_click(None, torch.zeros_like(truth) > 0, truth, generators[:1])
    x, y = points.xy_bn2[0, 0].long().tolist()
    assert (points.labels_bn.tolist(), float(truth[0, 0, y, x])) == ([[1]], 1)


@pytest.mark.parametrize(("share", "on_error"), [(0.0, DRAWS), (1.0, 0)])
def test_share_of_clicks_is_drawn_from_the_object(
    generators: list[torch.Generator], share: float, on_error: int
) -> None:
    """The object was found, with much around it: clicks on the error are negative, those on the object positive."""
    truth = rectangles((4, 4, 12, 12))
    predicted = rectangles((0, 0, 30, 30)) > 0.5
    labels = [add_corrective_click(None, predicted, truth, generators[:1], share).labels_bn for _ in range(DRAWS)]
    assert sum(int(label == 0) for label in labels) == on_error


def test_prompts_of_an_object_do_not_depend_on_the_others() -> None:
    masks = rectangles((4, 4, 20, 20), (2, 2, 30, 30))
    for prompts in (box_prompts, click_prompts):
        both = prompts(masks, [torch.Generator().manual_seed(seed) for seed in (3, 4)]).xy_bn2
        alone = prompts(masks[1:], [torch.Generator().manual_seed(4)]).xy_bn2
        assert torch.equal(both[1:], alone)
        assert not torch.equal(prompts(masks[1:], [torch.Generator().manual_seed(5)]).xy_bn2, alone)


@pytest.mark.parametrize(("center_share", "in_the_middle"), [(0.0, False), (1.0, True)])
def test_share_of_clicks_is_in_the_middle(
    generators: list[torch.Generator], center_share: float, in_the_middle: bool
) -> None:
    truth = rectangles((4, 4, 25, 25))
    predicted = rectangles((4, 4, 25, 14)) > 0.5  # what is missing is 21 x 11, its middle (14, 19)
    places = [click_prompts(truth, generators[:1], center_share).xy_bn2[0, 0].tolist() for _ in range(DRAWS)]
    assert all(place == [14, 14] for place in places) is in_the_middle
    corrections = [
        add_corrective_click(None, predicted, truth, generators[:1], 0.0, center_share) for _ in range(DRAWS)
    ]
    assert all(click.labels_bn.tolist() == [[1]] for click in corrections)
    assert all(click.xy_bn2[0, 0, 1] == 19 for click in corrections) is in_the_middle


def test_middle_of_nothing_is_anywhere(generators: list[torch.Generator]) -> None:
    truth = rectangles((4, 4, 12, 12))
    right = add_corrective_click(None, truth > 0.5, truth, generators[:1], 0.0, 1.0)
    assert ((right.xy_bn2 >= 0) & (right.xy_bn2 < SIZE)).all()
    assert click_prompts(torch.zeros_like(truth), generators[:1], 1.0).labels_bn.tolist() == [[1]]
